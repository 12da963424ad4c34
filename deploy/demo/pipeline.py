"""Settings of a running stack -> reader, worker and exporter as processes of their own, as in production.

Edge: subprocesses. Each runs in a session of its own, by which its descendants are found, and writes to a log file of
its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_STOP_S = 45.0
# A process that cannot reach a server at its start exits with one of these codes.
_SERVER_AWAY = {Exit.POSTGRES_UNREACHABLE, Exit.CLICKHOUSE_UNREACHABLE, Exit.REDIS_UNREACHABLE}
_COMMANDS = {
    "reader": ["reader"],
    "worker": ["worker"],
    "exporter": ["exporter", "--every", "1", "--audit-every", "5", "--views-every", "5"],
}


class Process(Protocol):
    """As much of `subprocess.Popen` as a pipeline needs."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit code, after `poll` or `wait` returned it."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return the exit code."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal."""


def start(command: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> Process:
    """Start a process in a session of its own."""
    return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


class Pipeline:
    """The processes of one pipeline."""

    def __init__(
        self,
        env: Mapping[str, str],
        logs: Path,
        start: Callable[[Sequence[str], Mapping[str, str], IO[bytes]], Process] = start,
    ) -> None:
        """Store the settings and the directory for logs; nothing is started.

        Args:
            env: settings of all processes.
            logs: directory, for one file per process.
            start: starts a process in a session of its own, given its command, its whole environment and its log.
        """
        self._env = {**os.environ, **env}
        self._logs = logs
        self._start = start
        self._processes: dict[str, Process] = {}

    def start(self, *names: str, arguments: Sequence[str] = (), via: Sequence[str] = (), **env: str) -> None:
        """Start processes.

        Args:
            names: `reader`, `worker` or `exporter`; a suffix such as in `reader-2` starts another one.
            arguments: options of the command.
            via: a command with its arguments that runs the command, for example on another host.
            env: settings for these processes only.
        """
        for name in names:
            with (self._logs / f"{name}.log").open("ab") as log:
                command = [*via, sys.executable, "-P", "-m", "outhaul", *_COMMANDS[name.partition("-")[0]], *arguments]
                self._processes[name] = self._start(command, self._env | env, log)

    def pid(self, name: str) -> int:
        """Return the process id of a process."""
        return self._processes[name].pid

    def pids(self, kind: str) -> dict[str, int]:
        """Return the process ids of all processes of one kind (`worker`, `worker-2` ...), by name."""
        return {name: one.pid for name, one in self._processes.items() if name.partition("-")[0] == kind}

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process and its descendants."""
        _signal(self.pid(name), number)

    def log(self, name: str) -> str:
        """Return the whole log of a process."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            FatalError: one has ended. The message has the end of its log.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = "\n".join(self.log(name).splitlines()[-20:])
                raise FatalError(f"the {name} ended with exit code {process.returncode}:\n{tail}")

    def supervise(self) -> list[str]:
        """Restart processes that exited because they could not reach a server; return their names.

        Raises:
            FatalError: one has ended for another reason. The message has the end of its log.
        """
        gone = [name for name, process in self._processes.items() if process.poll() in _SERVER_AWAY]
        self.start(*gone)
        self.check()
        return gone

    def stop(self, *names: str) -> None:
        """Stop these processes, or all, by SIGTERM, so that they drain; after 45 s, kill those that still run."""
        processes = {name: self._processes.pop(name) for name in names or tuple(self._processes)}
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill(process)

    def kill(self, *names: str) -> None:
        """Kill these processes, or all, with their descendants, by SIGKILL."""
        for name in names or tuple(self._processes):
            _kill(self._processes.pop(name))

    def wait(self, name: str, timeout_s: float) -> int:
        """Wait until a process ends, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout_s` seconds.
        """
        code = self._processes[name].wait(timeout_s)
        del self._processes[name]
        return code


def _kill(process: Process) -> None:
    # Twice, since a descendant may start another process before it is killed. This also kills descendants of a process
    # that has already ended.
    for _ in range(2):
        _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(session: int, number: int) -> None:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(ProcessLookupError, FileNotFoundError):
            # After the name in parentheses: state, parent, group, session.
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(path.parent.name), number)


@contextmanager
def running(
    env: Mapping[str, str], logs: Path, *, metrics: Mapping[str, int], keep: bool = False
) -> Iterator[Pipeline]:
    """Start the processes in `metrics`, and stop them at the end of the block.

    Args:
        env: settings, with the addresses of the servers.
        logs: directory for the log files.
        metrics: the names of the processes, each with its port for metrics; 0 opens no port.
        keep: leave the processes running, unless the block raises.
    """
    pipeline = Pipeline(env, logs)
    try:
        for name, port in metrics.items():
            pipeline.start(name, OUTHAUL_METRICS_PORT=str(port))
        yield pipeline
    except BaseException:
        pipeline.stop()
        raise
    if not keep:
        pipeline.stop()
