"""A name or a text -> its form in a statement, for Postgres and for ClickHouse.

Pure. Every name that outhaul puts into a statement's text, or into a statement that it prints, is quoted here. Values
are bound by the driver, except where a server takes none: in DDL, and in ClickHouse's mutations.

Source: https://www.postgresql.org/docs/current/sql-keywords-appendix.html
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
# A part of a name as an operator writes it: as it is, or in quotes, if it has dots, quotes, or blanks at an end.
_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".\s][^.]*?))\s*(\.|\Z)')
# Every keyword of Postgres that its quote_ident() puts in quotes: all but the unreserved ones.
_KEYWORDS = """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both
    case cast char character check coalesce collate collation column concurrently constraint create cross
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect
    interval into is isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query
    json_scalar json_serialize json_table json_value lateral leading least left like limit localtime
    localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset on
    only or order out outer overlaps overlay placing position precision primary real references returning right
    row select session_user setof similar smallint some substring symmetric system_user table tablesample then
    time timestamp to trailing treat trim true union unique user using values varchar variadic verbose when
    where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi
    xmlroot xmlserialize xmltable"""
_NEEDS_QUOTES = frozenset(_KEYWORDS.split())


def postgres_identifier(name: str) -> str:
    """Return a name for Postgres, in quotes if it needs them: the same as Postgres' quote_ident()."""
    if _PLAIN.fullmatch(name) and name not in _NEEDS_QUOTES:
        return name
    return '"' + name.replace('"', '""') + '"'


def split_name(text: str) -> tuple[str, ...]:
    """Return the parts of a name such as `schema.table` or `My Schema."a.b"`; capitals stay capitals.

    In a part in quotes, two quotes stand for one.

    Raises:
        ValueError: the text is not of that form.
    """
    parts, at = [], 0
    while match := _PART.match(text, at):
        quoted, bare, dot = match.groups()
        parts.append(bare if quoted is None else quoted.replace('""', '"'))
        at = match.end()
        if not dot:
            return tuple(parts)
    raise ValueError(f"{text!r} is not a name: write a part that has dots or quotes in double quotes")


def join_name(*parts: str) -> str:
    """Return the name that `split_name` divides into these parts; all that it divides alike have one form."""
    return ".".join(
        part if not {'"', "."} & set(part) and part == part.strip() else '"' + part.replace('"', '""') + '"'
        for part in parts
    )


def postgres_table(name: str) -> str:
    """Return a name such as `schema.table`, as an operator writes it, for Postgres."""
    return ".".join(map(postgres_identifier, split_name(name)))


def bindable(sql: str) -> str:
    """Return a part of a statement for psycopg, which looks for placeholders if the statement has values."""
    return sql.replace("%", "%%")


def postgres_literal(text: str) -> str:
    """Return a text as a literal of Postgres, which has standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"


def clickhouse_identifier(name: str) -> str:
    """Return a name for ClickHouse, always in quotes: which words need them depends on the place."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def clickhouse_literal(text: str) -> str:
    """Return a text as a literal of ClickHouse."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
