"""The command `outhaul`, also `python -m outhaul` -> the command line, or which extra is missing.

Edge: the outermost line of the base install, which has the producer library alone.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

# Commands whose packages are in an extra of their own; all others need `pipeline`.
_EXTRAS = {"demo": "local", "local": "local", "flower": "flower"}
_USAGE = 3


def main() -> None:
    """Run the command line; exit with code 3 where the packages of the command are not installed."""
    if find_spec("typer") is None or find_spec("celery") is None:
        wanted = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        extra = _EXTRAS.get(wanted, "pipeline")
        command = f"outhaul {wanted}".strip()
        sys.stderr.write(f"outhaul: {command!r} is not installed here. Type: pip install 'outhaul[{extra}]'\n")
        sys.exit(_USAGE)
    from outhaul.cdc_reader.cli import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
