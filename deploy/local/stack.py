"""Data directory -> PostgreSQL, Valkey and the ClickHouse engine, started, stopped, killed or shown.

Edge: starts processes. The services outlive the process that starts them. All state is in the data directory and /proc.
For example:

    stack = Stack(tmp_path)
    stack.up()
    os.environ.update(stack.env())
    stack.kill("redis")
    stack.up(["redis"])
    stack.down()
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from outhaul.deploy.local import leftovers
from outhaul.deploy.local.clickhouse import ClickHouse
from outhaul.deploy.local.flower import Flower
from outhaul.deploy.local.ports import Ports, free
from outhaul.deploy.local.postgres import Postgres
from outhaul.deploy.local.processes import Launch, Process, alive, find, send, start, wait_gone
from outhaul.deploy.local.valkey import Valkey
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NAMES = ("postgres", "redis", "clickhouse")
_VARIABLES = {"postgres": "OUTHAUL_POSTGRES_DSN", "redis": "OUTHAUL_REDIS_URL", "clickhouse": "OUTHAUL_CLICKHOUSE_URL"}
_LOCK_S = 120.0
_LEFT_OVER_S = 5.0
_LOOK_S = 0.02
_TAIL_BYTES = 2000
_STARTS = 3


class Service(Protocol):
    """What the stack needs from one service."""

    name: ClassVar[str]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    start_timeout_s: ClassVar[float]
    log: Path

    def prepare(self, port: int) -> Launch: ...
    def is_server(self, argv: tuple[str, ...]) -> bool: ...
    def is_leftover(self, argv: tuple[str, ...]) -> bool: ...
    def answers(self, port: int) -> bool: ...
    def version(self, port: int) -> str: ...
    def url(self, port: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one service. Its version is None if it does not answer, its port if it was never started."""

    name: str
    running: bool
    pid: int | None
    port: int | None
    version: str | None
    url: str | None


class Stack:
    """The embedded stack of one data directory."""

    def __init__(self, data_dir: Path | str = ".outhaul", ports: Mapping[str, int] | None = None) -> None:
        """Store the arguments; nothing is started.

        Args:
            data_dir: directory for data, logs and port numbers; `up` creates it.
            ports: fixed ports by service name; other services get a free port at their first start and keep it.
        """
        self.data_dir = Path(data_dir).absolute().resolve()
        self._requested_ports = dict(ports or {})
        self._ports = Ports(self.data_dir)
        services: tuple[Service, ...] = (Postgres(self.data_dir), Valkey(self.data_dir), ClickHouse(self.data_dir))
        self._services = {service.name: service for service in services}
        self._flower = Flower(self.data_dir, {})

    def up(self, services: Iterable[str] | None = None) -> list[str]:
        """Start these services, or all, and wait until they answer; services that run already are not restarted.

        Returns:
            Notes for the user about ports that differ from the last or requested ones.

        Raises:
            FatalError: a service does not start. The message has the end of its log.
        """
        chosen = self._chosen(services)
        with self._locked():
            (self.data_dir / "log").mkdir(exist_ok=True)
            with ThreadPoolExecutor(len(chosen)) as pool:
                return [note for note in pool.map(self._start, chosen) if note]

    def up_flower(self) -> str:
        """Start Flower, unless it runs already, and return without waiting for it.

        Returns:
            Its address, or the reason why it was not started. This is not an error, since no service needs Flower.
        """
        if not Flower.is_installed():
            return "not installed: pip install 'outhaul[flower]'"
        try:
            with self._locked():
                flower = Flower(self.data_dir, self.env())
                port = self._ports.remembered(flower.name)
                if port is None or not find(flower.is_server):
                    port, _ = self._ports.choose(flower.name, self._requested_ports.get(flower.name))
                    start(flower.prepare(port), flower.log)
                return flower.url(port)
        except (FatalError, OSError) as error:
            return f"not started: {error}"

    def down(self, services: Iterable[str] | None = None) -> None:
        """Stop these services; without names, stop all, Flower, and the demo's processes that were left running.

        It does not matter which process started them. A service that does not stop is killed.

        Raises:
            FatalError: a service survives SIGKILL.
        """
        chosen = self._chosen(services)
        if services is None:
            chosen.append(self._flower)
        if self.data_dir.exists():
            if services is None:
                leftovers.end(self.data_dir)
            with self._locked(), ThreadPoolExecutor(len(chosen)) as pool:
                list(pool.map(self._stop, chosen))

    def kill(self, service: str) -> None:
        """Kill a service by SIGKILL, as in a crash, and wait until it has ended.

        Raises:
            FatalError: the service still runs after 10 s.
        """
        (chosen,) = self._chosen([service])
        self._end(chosen, ((signal.SIGKILL, 10.0),))

    def status(self) -> dict[str, Status]:
        """Return the state of all services by name, and of Flower if it runs."""
        found = [self._status(service) for service in (*self._services.values(), self._flower)]
        return {one.name: one for one in found if one.running or one.name in NAMES}

    def pid(self, service: str) -> int | None:
        """Return the pid of a service, or None if it does not run."""
        (chosen,) = self._chosen([service])
        found = find(chosen.is_server)
        return found[0].pid if found else None

    def env(self) -> dict[str, str]:
        """Return the URLs of all services that were ever started, by the names of outhaul's settings.

        Raises:
            FatalError: no service was ever started.
        """
        known = {name: port for name in NAMES if (port := self._ports.remembered(name)) is not None}
        if not known:
            raise FatalError(f"no embedded stack was ever started in {self.data_dir}", todo="Run 'outhaul local up'")
        return {_VARIABLES[name]: self._services[name].url(port) for name, port in known.items()}

    def _chosen(self, names: Iterable[str] | None) -> list[Service]:
        names = NAMES if names is None else list(names)
        for name in names:
            if name not in self._services:
                raise FatalError(f"unknown service '{name}'", todo=f"Choose from {', '.join(NAMES)}")
        return [self._services[name] for name in dict.fromkeys(names)]

    def _start(self, service: Service) -> str:
        requested = self._requested_ports.get(service.name)
        if running := find(service.is_server):
            port = self._ports.remembered(service.name) or 0
            self._wait(service, running[0], port)
            return "" if requested in {None, port} else f"{service.name} already runs, on port {port}"
        self._clear(service)
        for last in range(_STARTS, 0, -1):
            port, note = self._ports.choose(service.name, requested)
            launch = service.prepare(port)
            process = Process(start(launch, service.log), launch.argv)
            try:
                self._wait(service, process, port)
            except FatalError:
                # Another program may have taken the port between the check and the service's start; then try again.
                if last == 1 or alive(process) or free(port):
                    raise
            else:
                return note
        raise AssertionError

    def _wait(self, service: Service, process: Process, port: int) -> None:
        deadline = time.monotonic() + service.start_timeout_s
        # At first /proc shows the command line of the shell that starts the service, so it does not count as alive.
        begun = False
        grace = time.monotonic() + 1.0
        while not service.answers(port):
            begun = begun or alive(process)
            ended = not alive(process) and (begun or time.monotonic() > grace)
            if ended or time.monotonic() > deadline:
                problem = "ended at its start" if ended else f"did not answer within {service.start_timeout_s:g} s"
                raise FatalError(
                    f"the embedded {service.name} {problem}; its log ends with:\n{_tail(service.log)}\n",
                    todo=f"Read {service.log}",
                )
            time.sleep(_LOOK_S)

    def _stop(self, service: Service) -> None:
        self._end(service, service.stop_signals)

    def _end(self, service: Service, signals: tuple[tuple[signal.Signals, float], ...]) -> None:
        left = find(service.is_server)
        for number, wait_s in signals:
            for process in left:
                send(process, number)
            left = wait_gone(left, wait_s)
            if not left:
                break
        if left:
            raise FatalError(
                f"the embedded {service.name} (pid {left[0].pid}) has not ended after SIGKILL",
                todo="Look at the state of the process in ps: D means that it waits for a disk",
            )
        self._clear(service)

    def _clear(self, service: Service) -> None:
        """Wait until the child processes of a killed service have ended; kill those that have not."""
        for process in wait_gone(find(service.is_leftover), _LEFT_OVER_S):
            send(process, signal.SIGKILL)
        wait_gone(find(service.is_leftover), _LEFT_OVER_S)

    def _status(self, service: Service) -> Status:
        port = self._ports.remembered(service.name)
        found = find(service.is_server)
        answers = bool(found) and port is not None and service.answers(port)
        return Status(
            service.name,
            running=bool(found),
            pid=found[0].pid if found else None,
            port=port,
            version=service.version(port) if answers and port is not None else None,
            url=service.url(port) if port is not None else None,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Allow one `up` or `down` at a time on a data directory."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _LOCK_S
        with (self.data_dir / "lock").open("w", encoding="utf-8") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise FatalError(
                            f"another 'outhaul local' has been working on {self.data_dir} for {_LOCK_S:g} s",
                            todo="Wait until it has ended, or end it",
                        ) from None
                    time.sleep(_LOOK_S)
            yield


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return "(no log)"
