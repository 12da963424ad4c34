"""`outhaul …` as tests run it: forked, which takes a tenth of the time, wherever that makes no difference.

Edge: processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import IO, TYPE_CHECKING

from tests.fork_server import Forked, ForkServer, key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The console script as pip installed it, whether or not its folder is on the path.
OUTHAUL = str(Path(sys.executable).with_name("outhaul"))

_MODULE = [sys.executable, "-P", "-m", "outhaul"]
# What the watchdog starts, with a pool that is the process itself.
_SOLO = ["celery", "-A", "outhaul.sink.app", "worker", "--pool", "solo", "--without-mingle", "--without-gossip"]


def run(
    *arguments: str, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Run `outhaul …` in a process of its own, with nothing to read; return its code and what it prints.

    Args:
        arguments: of the command.
        env: variables beside those of this process.
        cwd: where it runs.
        timeout_s: how long it may take.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    env = {**os.environ, **env}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _start([OUTHAUL, *arguments], env, out, err, cwd=cwd)
        try:
            code = process.wait(timeout_s)
        finally:
            process.send_signal(9)
        return subprocess.CompletedProcess([OUTHAUL, *arguments], code, _text(out), _text(err))


def start(
    command: Sequence[str], env: Mapping[str, str], log: IO[bytes], *, server: ForkServer | None = None
) -> Forked | subprocess.Popen[bytes]:
    """Start a process of a pipeline (see `Pipeline`), in a session of its own.

    Args:
        command: an interpreter and its arguments.
        env: all of its environment.
        log: the file for all that it prints.
        server: forks it, if the two agree (tests/fork_server.py); the one for most processes if not given.
    """
    return _start(command, env, log, log, server=server, new_session=True)


def start_solo(command: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> Forked | subprocess.Popen[bytes]:
    """Start a process of a pipeline as `start` does, but a worker without watchdog, and with no pool but itself.

    One that is to die, or has a page, is whole.
    """
    if command[: len(_MODULE) + 1] == [*_MODULE, "worker"] and _can_be_forked(env, _server()):
        command = [*_SOLO, "--hostname", f"outhaul-{token_hex(4)}@%h", *command[len(_MODULE) + 1 :]]
    return _start(command, env, log, log, new_session=True)


def close() -> None:
    """End the server that forks most processes."""
    if _server.cache_info().currsize:
        _server().close()
        _server.cache_clear()


def _start(
    command: Sequence[str],
    env: Mapping[str, str],
    out: IO[bytes],
    err: IO[bytes],
    *,
    server: ForkServer | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
) -> Forked | subprocess.Popen[bytes]:
    words = ["outhaul", *command[len(_MODULE) :]] if command[: len(_MODULE)] == _MODULE else list(command)
    server = server or _server()
    if Path(words[0]).name in {"outhaul", "celery"} and _can_be_forked(env, server):
        return server.start(words, env, stdout=out.fileno(), stderr=err.fileno(), cwd=cwd, new_session=new_session)
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, start_new_session=new_session
    )


def _can_be_forked(env: Mapping[str, str], server: ForkServer) -> bool:
    # A page of metrics shows all that was imported, and Sentry's client changes what others import after it.
    is_plain = env.get("OUTHAUL_METRICS_PORT", "0") == "0" and not env.get("OUTHAUL_SENTRY_DSN")
    return is_plain and key(env) == server.key


@cache
def _server() -> ForkServer:
    return ForkServer({})


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
