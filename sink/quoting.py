"""A name or a text -> its form in a statement, for Postgres and for ClickHouse.

Pure. Every name that outhaul puts into a statement's text, or into a statement that it prints, is quoted here. Values
are bound by the driver, except where a server takes none: in DDL, and in ClickHouse's mutations.

Source: https://www.postgresql.org/docs/current/sql-keywords-appendix.html
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
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


def postgres_table(name: str) -> str:
    """Return `schema.table` for Postgres; neither part has a dot."""
    return ".".join(map(postgres_identifier, name.split(".")))


def postgres_literal(text: str) -> str:
    """Return a text as a literal of Postgres, which has standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"


def clickhouse_identifier(name: str) -> str:
    """Return a name for ClickHouse, always in quotes: which words need them depends on the place."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def clickhouse_table(name: str) -> str:
    """Return `table` or `database.table` for ClickHouse; neither part has a dot."""
    return ".".join(map(clickhouse_identifier, name.split(".")))


def clickhouse_literal(text: str) -> str:
    """Return a text as a literal of ClickHouse."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
