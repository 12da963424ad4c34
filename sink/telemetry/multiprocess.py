"""Metrics of Celery's pool -> files that outlive the pool's processes, in a directory that the watchdog reads.

Edge: the environment, and files that prometheus-client maps into memory. Each place in the pool has one set of files,
not each process. A process that replaces a killed one continues its counters. So no count is lost, and there are never
more sets of files than places.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from billiard.process import current_process
from celery.signals import worker_ready
from prometheus_client import values

# Environment variable from which prometheus-client takes the directory; the watchdog sets it for its worker.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
# Name of a file in the directory that exists once the worker takes messages.
READY = "ready"


def join() -> None:
    """Keep all metrics that are created from now on in the directory, if the environment names one."""
    if DIRECTORY in os.environ:
        values.ValueClass = values.MultiProcessValue(_place)  # type: ignore[no-untyped-call]


def _place() -> str:
    index: Any = getattr(current_process(), "index", None)
    return "main" if index is None else f"pool{index}"


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator] # celery has no types
def _mark_ready(**_: object) -> None:
    if directory := os.environ.get(DIRECTORY):
        (Path(directory) / READY).touch()
