"""The small parts of the embedded stack that need no server: ports, turns, processes."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.local.clickhouse_http.query_limit import Slots
from outhaul.deploy.local.clickhouse_http.sql_statement import StatementError
from outhaul.deploy.local.ports import Ports, free
from outhaul.deploy.local.processes import Process, alive, find
from outhaul.deploy.local.unprivileged_user import copy_for_all
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_port_is_chosen_once(tmp_path: Path) -> None:
    port, note = Ports(tmp_path).choose("redis", None)
    assert (note, free(port)) == ("", True)
    assert Ports(tmp_path).choose("redis", None) == (port, "")
    assert Ports(tmp_path).remembered("redis") == port
    assert Ports(tmp_path).remembered("postgres") is None


def test_services_get_different_ports(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    assert len({ports.choose(str(number), None)[0] for number in range(50)}) == 50


def test_a_taken_port_is_left_to_the_other(tmp_path: Path) -> None:
    ports = Ports(tmp_path)
    port, _ = ports.choose("redis", None)
    with socket.create_server(("127.0.0.1", port)):
        other, note = ports.choose("redis", None)
        assert other != port
        assert str(port) in note
        with pytest.raises(FatalError):
            ports.choose("redis", port)


def test_a_broken_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    assert Ports(tmp_path).remembered("redis") is None


def test_a_statement_that_gets_no_turn_is_refused() -> None:
    slots = Slots(1, wait_s=0.01)
    with slots.hold():
        assert not slots.wait_idle(0.0)
        with pytest.raises(StatementError) as caught, slots.hold():
            pass
        assert caught.value.code == 202
    assert slots.wait_idle(0.0)
    with slots.hold():
        pass


def test_a_turn_goes_to_who_waits_for_it() -> None:
    slots = Slots(1, wait_s=30)
    got = threading.Event()

    def wait_for_it() -> None:
        with slots.hold():
            got.set()

    with slots.hold():
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert not got.is_set()
    thread.join(30)
    assert got.is_set()


def test_a_copy_is_for_everybody_and_made_once(tmp_path: Path) -> None:
    source = tmp_path / "packages" / "wheel"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "program").write_text("1")
    (source / "bin" / "program").chmod(0o700)
    (source / "data").write_text("2")
    (source / "data").chmod(0o600)
    (source / "link").symlink_to("data")
    target = tmp_path / "copy"
    copy_for_all((source, tmp_path / "packages" / "missing"), source.parent, target)
    modes = {str(path.relative_to(target)): path.stat().st_mode & 0o777 for path in target.rglob("*")}
    assert modes == {
        "wheel": 0o755,
        "wheel/bin": 0o755,
        "wheel/bin/program": 0o755,
        "wheel/data": 0o644,
        "wheel/link": 0o644,
    }
    (source / "data").write_text("3")
    copy_for_all((source,), source.parent, target)
    assert (target / "wheel" / "link").read_text() == "2"


def test_processes_are_recognised_by_their_command_line() -> None:
    mine = find(lambda argv: "pytest" in " ".join(argv))
    assert mine
    assert all(alive(process) for process in mine)
    assert not alive(Process(mine[0].pid, ("something else",)))
    assert not alive(Process(1 << 30, ("nobody",)))
