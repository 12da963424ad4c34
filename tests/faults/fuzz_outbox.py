"""Seed -> an outbox that an app might have, and transactions on it.

Pure. A plan is SQL: what creates the table, and steps. `fuzz_tables.py` carries it out. Any statement may fail in
Postgres, where a value does not fit a column; its transaction is then rolled back, as an app's would be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.integration.test_decode_values import SPECIAL, SQL_TYPES

MOVES = "SET LOCAL fuzz.moves = 'on'"
"""Before a statement that moves rows: what it inserts is no new event."""

_LONGEST = 2000
_ENVIRONMENTS = ("live", "test", "", "ä b")
# Types that outhaul reads as text, with what creates them, and values.
_MADE = {
    "mood": "CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy')",
    "word": "CREATE DOMAIN word AS text CHECK (VALUE <> 'never')",
    "pair": "CREATE TYPE pair AS (a integer, b text)",
}
_AS_TEXT = {
    "mood": ["sad", "so so"],
    "word": ["w", ""],
    "pair": ['(1,"a b")', "(,)"],
    "mood[]": ["{sad,NULL}"],
    "money": ["2.50", "-1"],
    "int4range": ["[1,3)", "empty"],
    "tstzrange": ["[2024-01-01 00:00+02,)"],
    "nummultirange": ["{[1,2),(3,4.5]}"],
    "point": ["(1,2.5)"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "interval[]": ["{1 day}"],
    "tsvector": ["a b"],
    "tsquery": ["a & b"],
    "pg_lsn": ["16/B374D848"],
    "regclass": ["pg_class"],
    "jsonpath": ["$.a"],
    "hstore": ['"a"=>"1"'],
    "citext": ["AbC"],
    "ltree": ["a.b"],
    "aclitem": ["outhaul=r/outhaul"],
    "txid_snapshot": ["10:20:10,14,15"],
    "numeric(12,2)": ["1.25", "-9999999999.99", "NaN"],
    "numeric(4,-2)": ["12345"],
    "numeric(3,5)": ["0.00123"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789"],
    "time(0)": ["12:00:00"],
    "timestamptz(3)": ["2024-01-01 00:00:00.123456+00"],
    "varchar(3)": ["abc"],
    "char(3)": ["a"],
}
_NAMES = (
    "note",
    "Note",
    "user id",
    'quo"te',
    "per%cent",
    "select",
    "ümlaut",
    "a.b",
    "7th",
    "cdc",
    "x" * 63,
    "back\\slash",
    "`tick`",
)
_SETTINGS = {
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-3",
    "bytea_output": "escape",
    "search_path": "pg_catalog",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "row_security": "off",
    "xmloption": "document",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "on",
}
_OF_APP = (
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "extra_float_digits",
    "bytea_output",
    "default_transaction_isolation",
)


@dataclass(frozen=True)
class Op:
    """A statement; with `rows`, COPY FROM STDIN and its rows. `%s` stand for `values`."""

    sql: str
    values: tuple[Any, ...] = ()
    rows: tuple[tuple[Any, ...], ...] | None = None


@dataclass(frozen=True)
class Step:
    """One transaction and its end: `commit`, `rollback`, or `prepare` and later a name; or `restart`, of the reader."""

    end: str
    ops: tuple[Op, ...] = ()
    name: str = ""


@dataclass
class Plan:
    """One table: `create` is run before `outhaul setup`, `more` after it and before the reader starts."""

    table: str
    create: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    role_settings: dict[str, str] = field(default_factory=dict)
    app_settings: dict[str, str] = field(default_factory=dict)
    virtual: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    traits: set[str] = field(default_factory=set)


@dataclass
class _Table:
    """What the generator knows of the table while it writes steps."""

    random: Random
    plan: Plan
    sql: str
    columns: dict[str, str]  # those that an insert may name, and their types
    id_kind: str
    next_id: int = 1


def plan(seed: int, number: int, *, without: frozenset[str] = frozenset()) -> Plan:
    """Return a plan; the same seed and number give the same one. `without` names traits that it must not have."""
    while True:
        made = _plan(Random(f"{seed} {number}"))
        if not made.traits & without:
            return made
        number += 1_000_000


def _plan(random: Random) -> Plan:
    schema, name = random.choice(
        [("public", "outbox"), ("app", "outbox"), ("Billing", "OutboxEvent"), ("order", "user")]
    )
    made = Plan(f"{schema}.{name}")
    sql = f'"{schema}"."{name}"'
    made.create += [f'CREATE SCHEMA IF NOT EXISTS "{schema}"', *_MADE.values()]
    table = _Table(random, made, sql, {}, _id_kind(random))
    made.create += _create(table)
    made.role_settings = {one: _SETTINGS[one] for one in _SETTINGS if random.random() < 0.12}
    made.app_settings = {one: _SETTINGS[one] for one in _OF_APP if random.random() < 0.12}
    _write_steps(table)
    return made


def _id_kind(random: Random) -> str:
    kinds = (
        "bigserial",
        "bigint GENERATED ALWAYS AS IDENTITY",
        "integer GENERATED BY DEFAULT AS IDENTITY",
        "bigint",
        "smallint",
    )
    return random.choices([*kinds, "uuid", "numeric"], [8, 4, 4, 4, 2, 0.3, 0.3])[0]


def _create(table: _Table) -> list[str]:
    random, made = table.random, table.plan
    ids = f"id {table.id_kind}" + (" DEFAULT gen_random_uuid()" if table.id_kind == "uuid" else "")
    partition = random.choices(["", "list", "range", "hash"], [12, 2, 2, 1])[0]
    parents = not partition and random.random() < 0.08
    kinds = {
        "event_type": random.choice(["varchar(255)", "text", "varchar(255)", "citext", "word"]),
        "event_date_time": random.choice(
            ["timestamptz DEFAULT now()", "timestamptz", "timestamp", "timestamptz DEFAULT now()"]
        ),
        "environment": random.choice(["varchar(255)", "text"]),
        "event_context": random.choice(["jsonb", "jsonb", "json", "text"]),
    }
    nulls = {"event_date_time"}
    columns = [ids + " NOT NULL" * (table.id_kind in {"bigint", "smallint", "numeric"})]
    columns += [f"{name} {kind}" + " NOT NULL" * (name not in nulls) for name, kind in kinds.items()]
    table.columns = {name: kind.removesuffix(" DEFAULT now()") for name, kind in kinds.items()}
    if random.random() < 0.3:
        columns.append("processed boolean NOT NULL DEFAULT false")
    for name in random.sample(_NAMES, random.randint(0, 4)):
        kind = _kind(random)
        default = f" DEFAULT {_literal(random, kind)}" if random.random() < 0.25 else ""
        columns.append(f"{_quoted(name)} {kind}{default}")
        table.columns[name] = kind
    if random.random() < 0.2:
        stored = random.random() < 0.6
        columns.append(
            f"made integer GENERATED ALWAYS AS (length(environment::text) * 2) {'STORED' if stored else 'VIRTUAL'}"
        )
        made.virtual.add("made")
        made.traits.add("generated")
    if random.random() < 0.15:
        columns.append("gone text")
    random.shuffle(columns)
    constraint = random.choices(["PRIMARY KEY (id)", "UNIQUE (id)", ""], [6, 1, 2])[0]
    if partition in {"list", "hash"} and constraint:
        constraint = "PRIMARY KEY (id, environment)" if partition == "list" else "PRIMARY KEY (id)"
    if constraint:
        columns.append(constraint)
    by = {"list": "environment", "range": "id", "hash": "id"}.get(partition)
    unlogged = "UNLOGGED " if not partition and random.random() < 0.02 else ""
    found = [
        f"CREATE {unlogged}TABLE {table.sql} ({', '.join(columns)})"
        + (f" PARTITION BY {partition} ({by})" if by else "")
    ]
    if unlogged:
        made.traits.add("unlogged")
    found += _partitions(table, partition)
    if any(column == "gone text" for column in columns):
        found.append(f"ALTER TABLE {table.sql} DROP COLUMN gone")
    if parents:
        made.traits.add("inherits")
        schema = table.sql.partition(".")[0]
        made.children.append(f"{schema}.child")
        found.append(f"CREATE TABLE {schema}.child (only_here text) INHERITS ({table.sql})")
    if random.random() < 0.12:
        made.traits.add("rls")
        found += [
            f"ALTER TABLE {table.sql} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY few ON {table.sql} USING (environment <> 'test') WITH CHECK (true)",
        ]
    if random.random() < 0.2:
        found.append(f"ALTER TABLE {table.sql} REPLICA IDENTITY {random.choice(['FULL', 'NOTHING'])}")
    if random.random() < 0.15:
        found.append(
            "CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.environment := NEW.environment || '!'; RETURN NEW; END $$"
        )
        if not partition:
            found.append(f"CREATE TRIGGER changed BEFORE INSERT ON {table.sql} FOR EACH ROW EXECUTE FUNCTION changed()")
    return found


def _partitions(table: _Table, partition: str) -> list[str]:
    schema = table.sql.partition(".")[0]
    part = f"CREATE TABLE {schema}.{{}} PARTITION OF {table.sql} {{}}".format
    if partition:
        table.plan.traits.add(f"partitioned by {partition}")
    match partition:
        case "list":
            return [part("one", "FOR VALUES IN ('live', 'live!')"), part("rest", "DEFAULT")]
        case "range":
            return [
                part("one", "FOR VALUES FROM (MINVALUE) TO (5)"),
                part("two", "FOR VALUES FROM (5) TO (20)"),
                part("rest", "DEFAULT"),
            ]
        case "hash":
            return [part(f"h{one}", f"FOR VALUES WITH (MODULUS 2, REMAINDER {one})") for one in range(2)]
    return []


def _kind(random: Random) -> str:
    return random.choice([*SQL_TYPES.values()] if random.random() < 0.6 else [*_AS_TEXT])


def _text(random: Random, kind: str) -> str | bytes | None:
    """Return a value of a type as an app would spell it."""
    if random.random() < 0.2:
        return None
    if kind in _AS_TEXT:
        return random.choice(_AS_TEXT[kind])
    for oid, name in SQL_TYPES.items():
        if name == kind:
            return _spelled(random.choice([one for one in SPECIAL[oid] if len(str(one)) < _LONGEST]))
    return f"v{random.randint(0, 99)}"


def _spelled(value: object) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


def _literal(random: Random, kind: str) -> str:
    value = _text(random, kind)
    return "NULL" if value is None else f"'{str(value).replace(chr(39), chr(39) * 2)}'::{kind}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write_steps(table: _Table) -> None:
    random, steps = table.random, table.plan.steps
    prepared: list[str] = []
    for number in range(random.randint(3, 7)):
        ops = [op for _ in range(random.randint(1, 4)) for op in _ops(table)]
        end = random.choices(["commit", "rollback", "prepare"], [10, 1, 1.5])[0]
        if end == "prepare":
            name = f"p{number}"
            prepared.append(name)
            table.plan.traits.add("prepared")
            steps.append(Step("prepare", tuple(ops), name))
        else:
            steps.append(Step(end, tuple(ops)))
        if prepared and random.random() < 0.5:
            steps.append(Step(random.choice(["COMMIT PREPARED", "ROLLBACK PREPARED"]), name=prepared.pop()))
        if random.random() < 0.1:
            steps.append(Step("restart"))
    steps += [Step("COMMIT PREPARED", name=name) for name in prepared]


def _ops(table: _Table) -> list[Op]:
    random = table.random
    inserts = [_insert, _insert, _insert, _many, _copy]
    others = [
        _update,
        _move,
        _delete,
        _truncate,
        _add_column,
        _drop_column,
        _rename_column,
        _savepoint,
        _savepoint,
        _child,
    ]
    return random.choice(inserts if random.random() < 0.6 else others)(table)


def _values(table: _Table) -> dict[str, Any]:
    random = table.random
    values: dict[str, Any] = {}
    if table.id_kind in {"bigint", "smallint", "numeric"}:
        step = (
            random.choice([1, 1, 1, 7, 1000])
            if table.id_kind == "smallint"
            else random.choice([1, 1, 2, 5_135_169_186_007_355, -(10**15)])
        )
        table.next_id += step
        values["id"] = table.next_id
    for name, kind in table.columns.items():
        match name:
            case "event_context":
                values[name] = random.choice(["{}", '{"n": 1.10, "é": null}', '"text"', "[1, 2]"])
            case "environment":
                values[name] = random.choice(_ENVIRONMENTS)
            case "event_type":
                values[name] = random.choice(["user_created", "", "ü", "x" * 200])
            case "event_date_time":
                if random.random() < 0.5:
                    values[name] = _text(random, kind)
            case _ if random.random() < 0.8:
                values[name] = _text(random, kind)
    return values


def _insert_into(table: _Table, sql: str) -> Op:
    values = _values(table)
    names = ", ".join(map(_quoted, values))
    casts = ", ".join(f"%s::{table.columns.get(name, 'bigint')}" for name in values)
    # psycopg reads a per cent sign in a name as one of its own.
    return Op(f"INSERT INTO {sql} ({names.replace('%', '%%')}) VALUES ({casts})", tuple(values.values()))


def _insert(table: _Table) -> list[Op]:
    return [_insert_into(table, table.sql) for _ in range(table.random.randint(1, 3))]


def _child(table: _Table) -> list[Op]:
    return [_insert_into(table, one) for one in table.plan.children] or _insert(table)


def _many(table: _Table) -> list[Op]:
    count = table.random.choice([2, 30, 300])
    ids, first = ("", "")
    if table.id_kind in {"bigint", "smallint", "numeric"}:
        ids, first = "id, ", f"{table.next_id} + n, "
        table.next_id += count
    return [
        Op(
            f"INSERT INTO {table.sql} ({ids}event_type, environment, event_context) "
            f"SELECT {first}'many', 'test', '{{}}' FROM generate_series(1, {count}) AS n"
        )
    ]


def _copy(table: _Table) -> list[Op]:
    rows = [_values(table) for _ in range(table.random.randint(1, 5))]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return [
        Op(
            f"COPY {table.sql} ({', '.join(map(_quoted, names))}) FROM STDIN",
            rows=tuple(tuple(row[name] for name in names) for row in rows),
        )
    ]


def _update(table: _Table) -> list[Op]:
    # A row without a time is identified by its contents: after an update it is another event.
    few = f"SELECT id FROM {table.sql} WHERE event_date_time IS NOT NULL LIMIT 2"
    return [Op(f"UPDATE {table.sql} SET event_context = '{{\"n\": 1}}' WHERE id IN ({few})")]


def _move(table: _Table) -> list[Op]:
    """Move rows between partitions, where the table has them: a DELETE and an INSERT in the log."""
    if "partitioned by list" not in table.plan.traits:
        return _update(table)
    table.plan.traits.add("moves rows")
    return [
        Op(MOVES),
        Op(f"UPDATE {table.sql} SET environment = 'moved' WHERE environment LIKE 'live%%'"),
        Op("SET LOCAL fuzz.moves = 'off'"),
    ]


def _delete(table: _Table) -> list[Op]:
    return [Op(f"DELETE FROM {table.sql} WHERE id IN (SELECT id FROM {table.sql} ORDER BY id DESC LIMIT 2)")]


def _truncate(table: _Table) -> list[Op]:
    again = table.random.random() < 0.5
    if again:
        table.plan.traits.add("ids again")
    return [Op(f"TRUNCATE {table.sql}{' RESTART IDENTITY' if again else ''}")]


def _add_column(table: _Table) -> list[Op]:
    free = [name for name in _NAMES if name not in table.columns]
    name, kind = table.random.choice(free), _kind(table.random)
    default = f" DEFAULT {_literal(table.random, kind)}" if table.random.random() < 0.4 else ""
    table.columns[name] = kind
    return [
        Op(f"ALTER TABLE {table.sql} ADD COLUMN {_quoted(name)} {kind}{default}".replace("%", "%%")),
        _insert_into(table, table.sql),
    ]


def _extra(table: _Table) -> str | None:
    found = [name for name in table.columns if name in _NAMES]
    return table.random.choice(found) if found else None


def _drop_column(table: _Table) -> list[Op]:
    name = _extra(table)
    if name is None:
        return _insert(table)
    del table.columns[name]
    return [Op(f"ALTER TABLE {table.sql} DROP COLUMN {_quoted(name)}".replace("%", "%%")), *_many(table)]


def _rename_column(table: _Table) -> list[Op]:
    name = _extra(table)
    if name is None:
        return _insert(table)
    new = f"renamed_{table.random.randint(0, 9)}"
    table.columns[new] = table.columns.pop(name)
    return [Op(f"ALTER TABLE {table.sql} RENAME COLUMN {_quoted(name)} TO {new}".replace("%", "%%")), *_insert(table)]


def _savepoint(table: _Table) -> list[Op]:
    end = table.random.choice(["ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s"])
    return [Op("SAVEPOINT s"), *_insert(table), Op(end), *_insert(table)]
