"""Allocators and garbage collector as they come -> such as suit a process that makes large buffers all the time.

Edge: glibc's malloc and Arrow's default pool keep what each thread has freed, for reuse by that thread. The reader's
buffers are short-lived and freed by another thread than the one that made them, so what is kept would grow to many
times what is used. On the other hand, what is given back to the kernel comes back as page faults: where every buffer of
more than 128 KB was mapped anew, the kernel took 0.6 s of a million rows, and 0.25 s with this.

Source: https://man7.org/linux/man-pages/man3/mallopt.3.html, https://docs.python.org/3/library/gc.html
"""

from __future__ import annotations

import ctypes
import gc

import pyarrow as pa

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# What is larger is mapped, and what lies free beyond it given back; a piece and its columns are smaller.
_KEPT_BYTES = 32 << 20

# A read makes tracked objects for every row, and frees them at once; looking through the young ones took a twelfth of
# the reader's time.
_YOUNG_OBJECTS = 50_000


def bound() -> None:
    """Set this process' allocators; where there is no glibc, only Arrow's."""
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def settle() -> None:
    """Take what lives by now for what lives for ever: modules and classes are not looked through any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
