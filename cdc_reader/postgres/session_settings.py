"""Version of the server -> the statement that begins each session of outhaul, with the settings that outhaul relies on.

Pure. A role, a database and a server may have any value for these; so may the `options` of a DSN, and a pooler removes
such options. So they are set by a statement, after the login. `lc_messages` is not among them, since only a superuser
may set it: errors are recognised by their code.

Source: https://www.postgresql.org/docs/current/runtime-config-client.html
"""

from __future__ import annotations

from typing import LiteralString

_SETTINGS: dict[LiteralString, LiteralString] = {
    # The text form of a value is the same in each session.
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "quote_all_identifiers": "off",
    # A session may be idle for hours while it holds a snapshot or a lock, and one statement may read a whole table.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # Rows that a policy hides are in the stream: a query that would leave them out fails.
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on",
    # `outhaul setup` prints the notices of its statements.
    "client_min_messages": "notice",
}
_SINCE = {"idle_session_timeout": 140000, "transaction_timeout": 170000}

# Functions and operators are those of Postgres. Triggers of the outbox, and functions in a row filter, still find what
# the role's own path has.
_SEARCH_PATH: LiteralString = (
    "set_config('search_path', concat_ws(', ', 'pg_catalog', nullif(current_setting('search_path'), '')), false)"
)
_SESSION: LiteralString = (
    "pg_backend_pid() AS pid, (SELECT backend_type FROM pg_stat_get_activity(pg_backend_pid())) AS kind"
)


def statement(version: int) -> str:
    """Return the statement; its row has the server's process as `pid`, and what kind of process that is as `kind`.

    Args:
        version: `server_version_num`.
    """
    known = {name: value for name, value in _SETTINGS.items() if version >= _SINCE.get(name, 0)}
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in known.items())
    return f"SELECT {_SESSION}, {settings}, {_SEARCH_PATH}"
