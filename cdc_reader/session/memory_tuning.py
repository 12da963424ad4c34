"""Default settings of allocators and garbage collector -> settings for a process that makes large buffers all the time.

Edge: glibc's malloc and Arrow's default pool keep the memory that a thread has freed for reuse by that thread. The
reader's buffers live briefly, and another thread frees them than the one that made them. So the kept memory would grow
to many times the used memory. But memory that is returned to the kernel costs page faults when it is used again: when
every buffer of more than 128 KB was mapped, the kernel took 0.6 s for a million rows, and 0.25 s with these settings.

Source: https://man7.org/linux/man-pages/man3/mallopt.3.html, https://docs.python.org/3/library/gc.html
"""

from __future__ import annotations

import ctypes
import gc

import pyarrow as pa

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Larger buffers are mapped, and free memory beyond this is returned to the kernel; a piece and its columns are smaller.
_KEPT_BYTES = 32 << 20

# A read makes objects for every row and frees them at once; with the default threshold, the collector's passes over
# young objects took a twelfth of the reader's time.
_YOUNG_OBJECTS = 50_000


def limit_allocators() -> None:
    """Limit how much freed memory the allocators of this process keep; without glibc, only Arrow's."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def freeze_objects() -> None:
    """Exclude all present objects, such as modules and classes, from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
