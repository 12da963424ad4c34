"""Settings that outhaul's statements bring along -> docs/reference/clickhouse-settings.md.

Pure.
"""

from __future__ import annotations

from outhaul.sink.pinned_settings import PINNED, On

_HEAD = """# Settings of ClickHouse that outhaul pins

ClickHouse applies the settings profile of a user to each statement. So that no profile changes what
a statement of outhaul means, each statement names these settings itself, in its SETTINGS clause. A
setting that the server does not list in `system.settings` is left out. Inserts of batches have more
settings: the token, the mark, the time limit and the size of blocks.

- A profile may have other values. They have no effect on outhaul.
- If a constraint or `readonly` keeps the user from setting one of them to this value, reader and
  worker stop: exit code 23, with the name of the setting and what to change. A constraint is no
  problem if the profile has the value of this page.
- Other limits of a profile (rows, bytes, memory, time) stay in force. A statement that meets one
  ends with an error, which names the limit. It never returns or stores a part of the rows.
- A materialized view runs with the settings of the insert. What its query needs goes into the
  SETTINGS clause of the query.

The code generates this page: `python -m outhaul.deploy.reference`.

| setting | value | statements | with another value |
|---|---|---|---|
"""
_STATEMENTS = {
    On.ALL: "all",
    On.READ: "SELECT",
    On.INSERT: "INSERT",
    On.INSERT_WITH_TOKEN: "INSERT of a batch",
}


def page() -> str:
    """Return the page."""
    rows = sorted(PINNED, key=lambda one: one.name)
    return _HEAD + "".join(f"| `{one.name}` | `{one.value!r}` | {_STATEMENTS[one.on]} | {one.why} |\n" for one in rows)
