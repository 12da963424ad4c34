"""The manifests of deploy/kubernetes -> objects as kustomize makes them, or as the files have them.

Edge: files; `kubectl` or `kustomize`, if installed.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
# What can be applied; components are only ever added to one of them.
ROOTS = ("base", "setup", "overlays/ha")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Container:
    """A container of outhaul, with its pod and the kind of the object that creates the pod."""

    kind: str
    pod: Object
    spec: Object
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """Return which process it is."""
        return str(self.spec["name"])


def written() -> list[Object]:
    """Return all objects as they stand in files, patches left out."""
    paths = [FOLDER / path.parent / name for path in KUSTOMIZATIONS for name in read(path).get("resources", ())]
    return [one for path in paths if path.is_file() for one in yaml.safe_load_all(path.read_text())]


def read(path: Path) -> Object:
    """Return the one object of a file."""
    found: Object = yaml.safe_load(path.read_text())
    return found


def built(root: str) -> list[Object]:
    """Return the objects that kustomize makes; skip the test where there is no kustomize."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run(
                [*command, str(FOLDER / root)], capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            assert not done.stderr
            return list(yaml.safe_load_all(done.stdout))
    pytest.skip("neither kustomize nor kubectl is installed")


def containers(objects: list[Object]) -> Iterator[Container]:
    """Yield the containers of all pods."""
    for one in objects:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            for container in template["spec"]["containers"]:
                yield Container(one["kind"], template["spec"], container, template["metadata"]["labels"])
