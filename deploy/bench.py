"""`outhaul bench` -> figures of outhaul on this machine, beside pg_recvlogical and a polling design.

Edge: the terminal. The benchmark itself is in tests/benchmarks, which is part of a checkout and not of the package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import Annotated

import typer

from outhaul.sink.errors import Exit, FatalError


def bench(
    *,
    rows: Annotated[int | None, typer.Option(min=1000, help="Events in the backlog. Default: 1,000,000.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Runs of each kind, alternating. Default: 3.")] = None,
    quick: Annotated[bool, typer.Option(help="Take two minutes: fewer rows and runs, no growth.")] = False,
    growth: Annotated[bool, typer.Option(help="Also vary rows, transactions, sizes and workers.")] = True,
    compare: Annotated[Path | None, typer.Option(help="JSON of an earlier run: list changed figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Measure throughput, latency, cost and memory beside pg_recvlogical.

    Example: outhaul bench --quick --json > new.json
    """
    try:
        from tests.benchmarks.measure import QUICK, Options  # noqa: PLC0415 - see above
        from tests.benchmarks.run import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise FatalError(
            f"the benchmark is not installed ({error})",
            todo="Run `make bench` in a checkout of the repository",
            exit_code=Exit.SETTINGS,
        ) from None
    options = QUICK if quick else Options()
    run(
        replace(options, rows=rows or options.rows, runs=runs or options.runs, growth=growth and not quick),
        as_json=as_json,
        compare=compare,
    )
