"""What containers are made of and scripts are written in, as the tools that judge them see it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from outhaul.sink.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
REPLICAS = ROOT / "tests" / "replicas" / "compose.yaml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def said(program: str, *arguments: str) -> str:
    """Run a program of this environment; return what it found fault with."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_dockerfile_is_without_fault() -> None:
    assert said("hadolint", "deploy/Dockerfile") == ""


def test_the_stand_ins_dockerfile_is_without_fault() -> None:
    # They are made of whatever Debian has today, and run by tests only.
    assert said("hadolint", "--ignore=DL3008", "--ignore=DL3066", "tests/images/Dockerfile") == ""


def test_a_fault_in_a_dockerfile_is_found(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n")
    assert "DL3007" in said("hadolint", str(tmp_path / "Dockerfile"))


def test_the_shell_scripts_are_without_fault() -> None:
    scripts = [".ci/run", *(str(path) for path in (ROOT / "tests" / "images").glob("*.sh"))]
    assert said("shellcheck", *scripts) == ""


@pytest.mark.parametrize("path", [COMPOSE, REPLICAS], ids=["pipeline", "replicas"])
def test_the_compose_file_is_of_the_schema(path: Path) -> None:
    assert said("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflow_is_of_the_schema_and_runs_what_the_page_on_tests_shows(path: Path) -> None:
    assert said("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)) == ""
    page = (ROOT / "docs" / "testing.md").read_text()
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        runs = [step["run"].replace("${{ matrix.clickhouse }}", "25.8") for step in job["steps"] if "run" in step]
        for line in runs:
            if re.match(r"(docker run|docker compose .* up|\S*pytest) ", line):
                assert f"$ {line}\n" in page


def test_a_fault_in_a_workflow_is_found(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("on: push\njobs:\n  one:\n    steps: []\n")
    assert said("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(tmp_path / "wrong.yaml"))


def test_the_compose_file_has_no_secret_and_no_door_to_others() -> None:
    text = COMPOSE.read_text()
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        secrets = [value for key, value in service.get("environment", {}).items() if "PASSWORD" in key]
        assert all(value == "${PASSWORD:?}" for value in secrets), name
    assert set(re.findall(r"//outhaul:([^@]*)@", text)) == {"${PASSWORD:?}"}


@pytest.mark.parametrize("path", [COMPOSE, REPLICAS], ids=["pipeline", "replicas"])
def test_every_image_of_the_compose_file_has_a_version(path: Path) -> None:
    images = [service["image"] for service in yaml.safe_load(path.read_text())["services"].values()]
    assert all(re.search(r":[^:]*\d|^outhaul:", image) for image in images), images


def test_the_containers_of_outhaul_write_nowhere_and_may_nothing() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    ours = {name: service for name, service in services.items() if service["image"].startswith("outhaul:")}
    assert {"setup", "reader", "worker", "beat", "exporter", "flower", "webapp", "load", "faults"} == ours.keys()
    for name, service in ours.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert {key for key in service["environment"] if key.startswith("OUTHAUL_")} <= {
            f"OUTHAUL_{field.upper()}" for field in Settings.model_fields
        }, name


@pytest.mark.parametrize("path", [COMPOSE, REPLICAS], ids=["pipeline", "replicas"])
def test_every_file_that_compose_mounts_is_there(path: Path) -> None:
    services = yaml.safe_load(path.read_text())["services"].values()
    mounted = [volume.partition(":")[0] for service in services for volume in service.get("volumes", ())]
    assert all((path.parent / mount).exists() for mount in mounted if mount.startswith("."))


@pytest.mark.parametrize("path", sorted(REPLICAS.parent.glob("*.xml")), ids=lambda path: path.stem)
def test_the_configuration_of_the_replicas_is_xml(path: Path) -> None:
    assert ET.parse(path).getroot().tag == "clickhouse"


@pytest.mark.parametrize("extra", ["flower", "django", "local"])
def test_the_extras_that_images_are_built_with_exist(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert extra in (ROOT / "deploy" / "Dockerfile").read_text()
