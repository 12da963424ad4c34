"""Settings of a running stack -> reader and worker as processes of their own, as in production.

Edge: subprocesses, each in a session of its own so that its children can be found; what they say goes to a file each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_STOP_S = 45.0
# Start-up asks each server once and gives up with these.
_SERVER_AWAY = {Exit.POSTGRES_UNREACHABLE, Exit.CLICKHOUSE_UNREACHABLE, Exit.REDIS_UNREACHABLE}
_COMMANDS = {
    "reader": ["reader"],
    "worker": ["worker"],
    "exporter": ["exporter", "--every", "1", "--audit-every", "5"],
}


class Pipeline:
    """Reader, worker and what else belongs to one pipeline."""

    def __init__(self, env: Mapping[str, str], logs: Path) -> None:
        """Keep the settings and the folder for the logs; nothing is started yet."""
        self._env = {**os.environ, **env}
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str, arguments: Sequence[str] = (), via: Sequence[str] = (), **env: str) -> None:
        """Start `reader`, `worker`, `exporter` or more of them (`reader-2`), with settings of their own.

        Args:
            names: what to start; behind the hyphen is a name of yours.
            arguments: options of the command.
            via: a command that runs the command, elsewhere perhaps.
            env: settings that only these have.
        """
        for name in names:
            with (self._logs / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [*via, sys.executable, "-m", "outhaul", *_COMMANDS[name.partition("-")[0]], *arguments],
                    env=self._env | env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def pid(self, name: str) -> int:
        """Return the process id of `reader` or `worker`."""
        return self._processes[name].pid

    def pids(self, kind: str) -> dict[str, int]:
        """Return the process ids of all that run a command (`worker`, `worker-2` ...), by their names."""
        return {name: one.pid for name, one in self._processes.items() if name.partition("-")[0] == kind}

    def signal(self, name: str, number: int) -> None:
        """Signal a process and all of its descendants."""
        _signal(self.pid(name), number)

    def log(self, name: str) -> str:
        """Return all that a process has said."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def check(self) -> None:
        """Make sure that all are running.

        Raises:
            FatalError: one has ended, with the end of its log.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = "\n".join(self.log(name).splitlines()[-20:])
                raise FatalError(f"the {name} ended with exit code {process.returncode}:\n{tail}")

    def supervise(self) -> list[str]:
        """Start again what gave up because a server was away, as any supervisor does; return the names.

        Raises:
            FatalError: one has ended for another reason, with the end of its log.
        """
        gone = [name for name, process in self._processes.items() if process.poll() in _SERVER_AWAY]
        self.start(*gone)
        self.check()
        return gone

    def stop(self, *names: str) -> None:
        """Let these, or all, drain and end; kill what has not ended in time, with its children."""
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
        """Kill these, or all, with their children, by SIGKILL."""
        for name in names or tuple(self._processes):
            _kill(self._processes.pop(name))

    def wait(self, name: str, timeout_s: float) -> int:
        """Wait for a process to end by itself; return its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        code = self._processes[name].wait(timeout_s)
        del self._processes[name]
        return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Twice, since one that is about to be killed may start another; and also what a process that is gone has left.
    for _ in range(2):
        _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(session: int, number: int) -> None:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(ProcessLookupError, FileNotFoundError):
            # Behind the name in brackets: state, parent, group, session.
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(path.parent.name), number)


@contextmanager
def running(
    env: Mapping[str, str], logs: Path, *, metrics: Mapping[str, int], keep: bool = False
) -> Iterator[Pipeline]:
    """Run the processes that `metrics` names, each with its port, for a block, or, with `keep`, when all went well, on.

    Args:
        env: settings of the servers.
        logs: folder for a file each.
        metrics: `worker`, `reader`, `exporter` or some of them, and the port of each for its metrics; 0 is none.
        keep: leave them running.
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
