"""`python -m tests.benchmarks` is `outhaul bench`."""

import typer

from deploy.bench import bench

typer.run(bench)
