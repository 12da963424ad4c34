"""Options -> a benchmark on a stack of its own, printed as tables or as JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from outhaul.sink.errors import Exit, FatalError
from tests.benchmarks.measure import measure
from tests.benchmarks.report import moved, show
from tests.benchmarks.stack_with_backlog import bed

if TYPE_CHECKING:
    from tests.benchmarks.measure import Figures, Options


def run(options: Options, *, as_json: bool, compare: Path | None) -> None:
    """Measure and print; with `compare`, also what moved since those figures.

    Raises:
        FatalError: the older figures cannot be read.
    """
    old = _read(compare) if compare else None
    aside = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        # Postgres runs as another user where we are root.
        Path(folder).chmod(0o755)
        with bed(Path(folder)) as made:
            figures = measure(made, options, lambda line: aside.print(f"… {line}", highlight=False))
    console = aside if as_json else Console()
    show(figures, console)
    if old is not None:
        console.print(moved(old, figures))
    if as_json:
        print(json.dumps(figures, indent=2))


def _read(path: Path) -> Figures:
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FatalError(
            f"{path} has no figures of an earlier run: {error}",
            todo="Make them with `outhaul bench --json > old.json`",
            exit_code=Exit.SETTINGS,
        ) from None
    return figures
