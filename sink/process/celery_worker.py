"""Options of Celery's worker -> that worker with outhaul's app; the watchdog starts it as a process of its own.

Edge: the command line. It is `celery -A outhaul.sink.app worker`, except that no file in the working directory is
imported in place of a library: `celery` looks for the app there first, so a file redis.py of the user's app would
become outhaul's Redis client.

Source: https://docs.celeryq.dev/en/stable/reference/cli.html#celery-worker
"""

from __future__ import annotations

import sys

import click

from outhaul.sink.app import make_app
from outhaul.sink.settings import load


def main() -> int:
    """Run the worker; return its exit code."""
    try:
        return int(make_app(load()).start(["worker", *sys.argv[1:]]) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
