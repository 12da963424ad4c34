"""The units: what systemd takes, with settings and times as the code has them, and as shut as they can be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from outhaul.cdc_reader.session import loop, threads
from outhaul.sink.errors import Exit
from outhaul.sink.process import watchdog
from outhaul.sink.settings import load_from
from tests.launch import OUTHAUL

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer"), *FOLDER.glob("*.target")])
SERVICES = [path for path in UNITS if path.suffix == ".service"]
INSTALLED = "/opt/outhaul/bin/outhaul"
# systemd rates from 0 (shut) to 100 (open); what is left is that a service of the network talks to the network.
EXPOSED = 20


def service(path: Path) -> dict[str, list[str]]:
    """Return the section [Service], each key with all its values in order."""
    found: dict[str, list[str]] = {}
    section = path.read_text().partition("[Service]\n")[2].partition("\n[")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments: str) -> str:
    """Return the output of systemd-analyze; skip the test if it is not installed."""
    if not shutil.which("systemd-analyze"):
        reason = "systemd-analyze is not installed: apt-get install systemd"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The units with the `outhaul` of this checkout, since systemd looks whether a program exists."""
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, str(OUTHAUL)))
    return tmp_path


def test_systemd_has_nothing_to_say_about_any_unit(here: Path) -> None:
    assert analyze("verify", "--man=no", *(str(here / path.name) for path in UNITS)) == ""


def test_systemd_does_say_what_is_wrong_with_a_unit(here: Path) -> None:
    broken = here / "outhaul-reader.service"
    broken.write_text(broken.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    assert "NoNewPrivilege" in analyze("verify", "--man=no", str(broken))


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_systemd_rates_a_service_as_shut(path: Path, here: Path) -> None:
    analyze("security", "--offline=yes", f"--threshold={EXPOSED}", "--no-pager", str(here / path.name))


def test_all_services_are_shut_in_the_same_way() -> None:
    ways = {path.read_text().partition("\nDynamicUser=")[2].partition("\n[")[0].strip() for path in SERVICES}
    assert len(ways) == 1
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(ways.pop().splitlines())


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_a_service_runs_a_command_with_settings_that_exist_and_a_file_of_its_own(path: Path) -> None:
    name = path.stem.removeprefix("outhaul-")
    found = service(path)
    program, command, *_ = found["ExecStart"][0].split()
    assert program == INSTALLED
    assert command == name
    assert (FOLDER.parents[1] / "cdc_reader" / "cli" / f"{command}.py").exists()
    environment = dict(one.split("=", 1) for one in found["Environment"])
    assert environment.pop("OUTHAUL_CONFIG") == "%d/outhaul.toml"
    assert found["LoadCredential"] == [f"outhaul.toml:/etc/outhaul/{name}.toml"]
    load_from(environment)


def test_each_process_has_the_port_that_the_docs_give_it() -> None:
    said = (FOLDER.parents[1] / "docs" / "operations.md").read_text()
    for name, port in (("reader", "9461"), ("worker", "9462"), ("exporter", "9463")):
        assert f"OUTHAUL_METRICS_PORT={port}" in service(FOLDER / f"outhaul-{name}.service")["Environment"]
        assert port in said


def test_a_service_that_stops_has_the_time_that_its_process_takes() -> None:
    stop_s = {
        name: int(service(FOLDER / f"outhaul-{name}.service")["TimeoutStopSec"][0]) for name in ("reader", "worker")
    }
    assert stop_s["reader"] > loop.DRAIN_S + threads.JOIN_S + 5
    assert stop_s["worker"] > watchdog._STOP_S + 5


def test_only_what_a_start_must_read_again_is_not_tried_again() -> None:
    for path in SERVICES:
        found = service(path)
        if found["Type"] != ["oneshot"]:
            assert found["Restart"] == ["always"]
            assert {Exit(int(code)) for code in found["RestartPreventExitStatus"][0].split()} == {
                Exit.USAGE,
                Exit.SETTINGS,
            }
            assert "StartLimitIntervalSec=0" in path.read_text()


def test_celerys_children_get_the_stop_signal_from_the_watchdog_only() -> None:
    assert service(FOLDER / "outhaul-worker.service")["KillMode"] == ["mixed"]


def test_the_readme_names_every_unit() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(path.name in text or path.stem in text for path in UNITS)
