"""A slot before a backlog -> how long pg_recvlogical takes to read it to /dev/null.

Edge: runs Postgres' own client, the measure of all ratios: it decodes nothing and stores nothing.

Source: https://www.postgresql.org/docs/current/app-pgrecvlogical.html
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from tests.benchmarks.stack_with_backlog import DEADLINE_S, program

if TYPE_CHECKING:
    from tests.benchmarks.stack_with_backlog import Bed

_SLOT = "peer"


def receive(bed: Bed, end: str, *, binary: bool = True, unix_socket: bool = False) -> float:
    """Let pg_recvlogical read from the base slot to `end`; return the seconds from its start to its end."""
    bed.copy_slot(_SLOT)
    dsn = make_conninfo(bed.dsn, host=str(bed.socket_dir)) if unix_socket else bed.dsn
    options = ["proto_version=1", f"publication_names={bed.settings.publication}"]
    options += ["binary=true"] if binary else []
    command = [
        str(program("pg_recvlogical")),
        "-d",
        dsn,
        "-S",
        _SLOT,
        "--start",
        "-E",
        end,
        "-f",
        "/dev/null",
        "--no-loop",
    ]
    command += [part for option in options for part in ("-o", option)]
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
    seconds = time.monotonic() - started
    bed.drop_slot(_SLOT)
    return seconds
