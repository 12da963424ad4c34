"""Names in the statements of outhaul, as Postgres itself would quote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from outhaul.sink.quoting import postgres_identifier, postgres_literal

if TYPE_CHECKING:
    from outhaul.deploy.local.stack import Stack

NAMES = ["outbox", "_a1", "1st", "Outbox", "out-box", 'a"b', "a b", "größe", "", "a\\b", "a$b"]


def test_postgres_quotes_the_same_names_in_the_same_way(stack: Stack) -> None:
    with psycopg.connect(stack.env()["OUTHAUL_POSTGRES_DSN"]) as conn:
        keywords = [row[0] for row in conn.execute("SELECT word FROM pg_get_keywords()")]
        asked = "SELECT name, quote_ident(name), quote_literal(name) FROM unnest(%s::text[]) AS name"
        rows = conn.execute(asked, [[*keywords, *NAMES]]).fetchall()
    assert len(keywords) > 400
    assert {name: postgres_identifier(name) for name, _, _ in rows} == {name: quoted for name, quoted, _ in rows}
    # A backslash makes quote_literal write E'', which our servers' settings do not need.
    without = [(name, literal) for name, _, literal in rows if "\\" not in name]
    assert [postgres_literal(name) for name, _ in without] == [literal for _, literal in without]
