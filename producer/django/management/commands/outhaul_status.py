"""`manage.py outhaul_status` -> the output and exit code of `outhaul status` for this project's database.

Edge: runs `outhaul status` as a subprocess.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections, router

from outhaul.django.conf import publication, target
from outhaul.django.models import OutboxEvent


class Command(BaseCommand):
    """Runs `outhaul status` with this project's database. OUTHAUL_POSTGRES_DSN, if set, has priority."""

    help = "Show slot, reader, sink and ClickHouse; exit code 1 when something is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept the option of `outhaul status`."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run `outhaul status`, and exit with its exit code.

        Raises:
            CommandError: psycopg is not installed, so `outhaul status` is not installed either.
        """
        try:
            from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - a project may have another driver
        except ImportError as error:
            raise CommandError("outhaul status is not installed. Type: pip install 'outhaul[pipeline]'") from error
        database = connections[router.db_for_read(OutboxEvent)].settings_dict
        given = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
        defaults = {
            "OUTHAUL_POSTGRES_DSN": make_conninfo("", **{name: database[key] or None for name, key in given.items()}),
            "OUTHAUL_TABLE": target().table if len(target().parts) > 1 else f"public.{target().table}",
            "OUTHAUL_PUBLICATION": publication(),
        }
        command = [sys.executable, "-P", "-m", "outhaul", "status", *(["--json"] if options["json"] else [])]
        done = subprocess.run(command, env=defaults | os.environ, check=False)
        if done.returncode:
            sys.exit(done.returncode)
