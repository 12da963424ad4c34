"""The package as users get it: built once, and installed away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Built:
    """Both archives; the wheel was built from the sdist."""

    wheel: Path
    sdist: Path


def build(target: Path) -> Built:
    """Build as `python -m build` does, with the build's requirements of this environment."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT))
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(wheel, sdist)


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment with the wheel, and nothing of the checkout."""

    home: Path

    @property
    def python(self) -> str:
        return str(self.home / "bin" / "python")

    @property
    def outhaul(self) -> str:
        return str(self.home / "bin" / "outhaul")

    @property
    def packages(self) -> Path:
        (found,) = self.home.glob("lib/python*/site-packages")
        return found

    def pip_install(self, *arguments: str) -> None:
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--quiet",
            "--disable-pip-version-check",
        )
        run(*pip, *arguments)

    def lend(self, *, without: Collection[str] = ()) -> None:
        """Let it import the packages of this environment, which costs no download; all but some, and but outhaul."""
        lent = self.home / "lent"
        lent.mkdir()
        for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
            name = path.name.partition("-")[0].partition(".")[0]
            if name not in {"outhaul", *without} and path.suffix != ".pth":
                (lent / path.name).symlink_to(path)
        (self.packages / "lent.pth").write_text(f"{lent}\n")


def install(wheel: Path, home: Path) -> Installed:
    """Make a virtual environment, without pip and without what the wheel requires."""
    run(sys.executable, "-m", "venv", "--without-pip", str(home))
    made = Installed(home)
    made.pip_install("--no-deps", "--no-index", str(wheel))
    return made


def run(*command: str, code: int = 0, cwd: Path = Path("/"), **options: Any) -> str:
    """Run a program, by default away from the checkout, whose folders Python would find; return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=150, **options)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return f"{done.stdout}{done.stderr}"
