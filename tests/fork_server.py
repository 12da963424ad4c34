"""A command and its environment -> the command, run by a process that was forked from one that has imported all of it.

Nine tenths of a short command are the imports of an interpreter, and a fork has them already. It is a process like any
other: its signals, exit code, children and open files are its own. Only /proc/PID/cmdline is the server's.

What Python, or a module of outhaul, reads from the environment when it is imported is the server's too: a server is for
processes that agree in that (`key`), and others need a server of their own, or an interpreter.

Edge: processes, and a Unix socket on which each message is one process to start, with its files.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
# Read when a module is imported: fail points, prometheus-client's folder, and whatever Python itself looks at.
_AT_IMPORT = ("OUTHAUL_FAILPOINTS", "OUTHAUL_BROKEN", "PROMETHEUS_MULTIPROC_DIR")
_INT = struct.Struct("i")
_LARGEST = 1 << 20
_END_S = 10.0
# Celery looks these up by name when a worker starts.
_LATE = (
    "celery.app.amqp",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.concurrency.solo",
    "celery.events.state",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "outhaul.sink.app",
    "outhaul.sink.letters.retry_task",
    "outhaul.sink.process.heartbeat",
    "outhaul.sink.process.probe",
    "outhaul.sink.redis.transport",
    "outhaul.sink.task",
)


def key(env: Mapping[str, str]) -> dict[str, str]:
    """Return what processes of one server have in common."""
    return {name: value for name, value in env.items() if name in _AT_IMPORT or name.startswith("PYTHON")}


class Forked:
    """A process of a server, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, status: int) -> None:
        """Wait for the process to be there.

        Args:
            status: a pipe with its pid, and at its end its exit code.
        """
        self._status = status
        self.pid = self._read()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
            self.returncode = self._read()
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _read(self) -> int:
        found = os.read(self._status, _INT.size)
        assert found, "the fork server is gone"
        return int(_INT.unpack(found)[0])


class ForkServer:
    """A process with everything imported, and the way to ask it for others."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Start it; it ends when nobody has its socket any more.

        Args:
            env: variables beside those of this process, for what its processes have in common; see `key`.
        """
        self.key = key({**os.environ, **env})
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, **env},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: int | None = None,
        stdout: int,
        stderr: int,
        cwd: Path | None = None,
        new_session: bool = False,
    ) -> Forked:
        """Start `outhaul …` or `celery …`.

        Args:
            command: its name and arguments.
            env: all of its environment.
            stdin: file that it reads; None means an empty one.
            stdout: file that it writes to.
            stderr: file that it writes errors to.
            cwd: where it runs; this process's directory if not given.
            new_session: whether it leads a session of its own.
        """
        request = {"command": list(command), "env": dict(env), "cwd": str(cwd or Path.cwd()), "session": new_session}
        read, write = os.pipe()
        try:
            with contextlib.ExitStack() as files:
                if stdin is None:
                    stdin = files.enter_context(Path(os.devnull).open("rb")).fileno()
                socket.send_fds(self._socket, [json.dumps(request).encode()], [stdin, stdout, stderr, write])
        finally:
            os.close(write)
        return Forked(read)

    def close(self) -> None:
        """End the server, as soon as its processes have ended."""
        self._socket.close()
        try:
            self._server.wait(_END_S)
        except subprocess.TimeoutExpired:
            # Somebody has left a process running.
            self._server.kill()
            self._server.wait()


def _import_all() -> None:
    from outhaul.cdc_reader import cli  # noqa: PLC0415 - this process alone imports all

    for name in cli._COMMANDS:
        importlib.import_module(f"outhaul.cdc_reader.cli.{name}")
    for entry in entry_points(group="outhaul.commands"):
        entry.load()
    for name in _LATE:
        importlib.import_module(name)


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the process that is to carry it out, and None when nobody asks any more."""
    ends: dict[int, int] = {}
    ended, note = os.pipe()
    for end in (ended, note):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A Ctrl-C in the terminal is for pytest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched: list[int] = [requests.fileno(), ended]
    while ends or len(watched) > 1:
        ready, _, _ = select.select(watched, [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ends(ends)
        if requests.fileno() not in ready:
            continue
        data, files, _, _ = socket.recv_fds(requests, _LARGEST, 4)
        if not data:
            watched.remove(requests.fileno())
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            requests.close()
            for end in (ended, note, files[3], *ends.values()):
                os.close(end)
            request: dict[str, Any] = json.loads(data)
            _become(request, files[:3])
            return request
        os.write(files[3], _INT.pack(pid))
        ends[pid] = files[3]
        for file in files[:3]:
            os.close(file)
    return None


def _tell_ends(ends: dict[int, int]) -> None:
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        end = ends.pop(pid)
        # Who started it may be gone.
        with contextlib.suppress(BrokenPipeError):
            os.write(end, _INT.pack(os.waitstatus_to_exitcode(status)))
        os.close(end)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = request["command"]


def _run(name: str) -> None:
    module = "celery.__main__" if name == "celery" else "outhaul.__main__"
    importlib.import_module(module).main()


class _End:
    """The end of an interpreter, without the last step: taking apart what was imported copies all of it to do so."""

    def __init__(self) -> None:
        # The first one that is registered is the last one that is called.
        atexit.register(self._leave)
        self._code: int | None = None

    def of(self, command: Sequence[str]) -> None:
        """Run a command, and note its exit code."""
        self._code = 1
        try:
            _run(Path(command[0]).name)
            self._code = 0
        except SystemExit as end:
            self._code = end.code if isinstance(end.code, int) else int(end.code is not None)
            raise

    def _leave(self) -> None:
        if self._code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code)


def main() -> None:
    """Serve until nobody has the other end of the socket."""
    end = _End()
    _import_all()
    # Nothing of what is there now is looked at again, and so copied, by a collection in a child.
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        end.of(request["command"])


if __name__ == "__main__":
    main()
