"""`outhaul assets export DIR`: copy the files for Grafana, Prometheus, Kubernetes and systemd from the package.

Edge: the terminal and files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(no_args_is_help=True, help="Files for Grafana, Prometheus, Kubernetes and systemd.")

_HERE = Path(__file__).parent
# A link in README.md to a page outside of the exported folders.
_LINK = re.compile(r"\]\(\.\./\.\./([^)]+)\)")


@dataclass(frozen=True, slots=True)
class Kind:
    """The files for one program: the folder, patterns for the files that users need, and the next step."""

    folder: str
    patterns: tuple[str, ...]
    todo: str

    def paths(self) -> Iterator[Path]:
        """Yield the files, relative to the directory that they are exported to."""
        for pattern in self.patterns:
            yield from (path.relative_to(_HERE) for path in sorted((_HERE / self.folder).glob(pattern)))


KINDS = (
    Kind(
        "grafana",
        ("*.json", "provisioning/*/*.yml"),
        "In Grafana, choose Dashboards → New → Import for each .json file. Or provision them: see provisioning/.",
    ),
    Kind(
        "prometheus",
        ("*.yml",),
        "Add outhaul.rules.yml to your rule_files. prometheus.yml and alertmanager.yml are examples to start from.",
    ),
    Kind(
        "kubernetes",
        ("**/*.yaml",),
        "Write an overlay on overlays/ha with your image and settings, then type: kubectl apply -k YOUR-OVERLAY.",
    ),
    Kind("systemd", ("*.service", "*.timer", "*.target", "README.md"), "Do what README.md says."),
)


@app.callback()
def assets() -> None:
    """Files for Grafana, Prometheus, Kubernetes and systemd."""


@app.command()
def export(
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to write them; created if missing.")
    ] = None,
    *,
    show: Annotated[bool, typer.Option("--list", help="Print the names of the files, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that differ.")] = False,
) -> None:
    """Write the files for Grafana, Prometheus, Kubernetes and systemd to a directory.

    Example: outhaul assets export ./monitoring
    """
    contents = {path: _content(path) for kind in KINDS for path in kind.paths()}
    if show:
        for path in contents:
            typer.echo(path)
        return
    if directory is None:
        raise FatalError(
            "the directory is missing", todo="Type: outhaul assets export DIR, or --list", exit_code=Exit.USAGE
        )
    try:
        _write(directory, contents, force=force)
    except OSError as error:
        raise FatalError(f"{error.filename}: {error.strerror}", todo="Choose another directory") from None
    typer.echo("\nWhat to do next:")
    for kind in KINDS:
        typer.echo(f"  {directory / kind.folder}: {kind.todo}")


def _write(directory: Path, contents: dict[Path, bytes], *, force: bool) -> None:
    present = {path: (directory / path).read_bytes() for path in contents if (directory / path).exists()}
    different = [str(directory / path) for path, content in present.items() if content != contents[path]]
    if different and not force:
        raise FatalError(
            f"these files have other contents: {', '.join(different)}; nothing was written",
            todo="Pass --force to overwrite them, or choose another directory",
        )
    for path, content in contents.items():
        target = directory / path
        if present.get(path) == content:
            typer.echo(f"unchanged {target}")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        typer.echo(f"wrote     {target}")


def _content(path: Path) -> bytes:
    content = (_HERE / path).read_bytes()
    if path.suffix != ".md":
        return content
    return _LINK.sub(rf"]({_repository()}/blob/main/\1)", content.decode()).encode()


def _repository() -> str:
    urls = dict(url.split(", ", 1) for url in metadata("outhaul").get_all("Project-URL") or ())
    return str(urls["Source"])
