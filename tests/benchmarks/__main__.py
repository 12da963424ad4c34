"""`python -m tests.benchmarks` is `outhaul bench`."""

import typer

from outhaul.deploy.bench import bench

typer.run(bench)
