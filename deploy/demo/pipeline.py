"""Settings of a running stack -> reader and worker as processes of their own, as in production.

Edge: subprocesses. They end when the demo does, whatever ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_STOP_S = 40.0
_COMMANDS = {"reader": ["reader"], "worker": ["worker", "--loglevel", "WARNING"]}


class Pipeline:
    """Reader and worker; `logs` is the folder with what they said."""

    def __init__(self, env: Mapping[str, str], logs: Path) -> None:
        """Keep the settings; nothing is started yet."""
        self._env = {**os.environ, **env}
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start `reader` or `worker`."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "cdc_reader", *_COMMANDS[name]], env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def check(self) -> None:
        """Make sure that all are running.

        Raises:
            FatalError: one has ended, with the end of its log.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = "\n".join((self._logs / f"{name}.log").read_text(errors="replace").splitlines()[-20:])
                raise FatalError(f"the {name} ended with exit code {process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Let all drain; kill what has not ended in time, with its children."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()


@contextmanager
def running(env: Mapping[str, str], logs: Path, *, keep: bool = False) -> Iterator[Pipeline]:
    """Run reader and worker for the time of a block, or, with `keep`, beyond it when all went well."""
    pipeline = Pipeline(env, logs)
    try:
        pipeline.start("worker")
        pipeline.start("reader")
        yield pipeline
    except BaseException:
        pipeline.stop()
        raise
    if not keep:
        pipeline.stop()
