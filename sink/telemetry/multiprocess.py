"""Celery's pool -> metrics that outlive its children, in a directory that the watchdog reads.

Edge: the environment, and files that prometheus-client maps into memory. There is one set of files a place in the pool,
not one a process: whoever takes the place of a child that was killed counts on from where that one was. So nothing that
was counted is lost, and there are never more files than places.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery.signals import worker_ready
from prometheus_client import values

# Where prometheus-client looks for the directory; the watchdog sets it for the worker that it starts.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
# A file there, as long as the worker takes messages.
READY = "ready"


def join() -> None:
    """Let all metrics that are made from here on be kept in the directory, where there is one."""
    if DIRECTORY in os.environ:
        values.ValueClass = values.MultiProcessValue(_place)  # type: ignore[no-untyped-call]


def _place() -> str:
    index: Any = getattr(current_process(), "index", None)
    return "main" if index is None else f"pool{index}"


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _say_ready(**_: object) -> None:
    if directory := os.environ.get(DIRECTORY):
        (Path(directory) / READY).touch()
