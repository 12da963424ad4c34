"""Columns of a batch -> columns of its ClickHouse table; settings -> outhaul's tables in ClickHouse.

Edge: ClickHouse. All changes are additive and have `IF NOT EXISTS`. So they may be repeated, and two readers may apply
them at the same time. A column that is dropped in Postgres stays in ClickHouse.

Source: https://clickhouse.com/docs/sql-reference/statements/alter/column
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.sink.batch import BYTEA
from outhaul.sink.errors import Exit, FatalError, PoisonError
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.settings import DEDUPLICATION_WINDOW, Outbox, Settings
from outhaul.sink.sql import names, number_in, query, schema_number, statement
from outhaul.sink.timestamps import bare, microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox, Settings

log = structlog.get_logger("outhaul.sink")

_OF_ALL = ("_epochs", "_pauses", "_owners", "_in_memory", "_trial", "_trial_copies", "_trial_view")
# Setting of a table for the number of tokens that it remembers, by whether the table is replicated.
_WINDOWS = {True: "replicated_deduplication_window", False: "non_replicated_deduplication_window"}
# How many tokens a Replicated table remembers by default; newer servers remember more.
_REPLICATED_WINDOW = 1000
# How long a Replicated table remembers a token after its insert, counted until the newest insert: by default, and as
# `ddl` sets it. A reader that was stopped sends its last batches again, and others may have written meanwhile.
_REPLICATED_WINDOW_S = 3600
WINDOW_S = 604_800
# An insert may reach another replica, which must know a new column, too. The second name is that of old servers.
_ON_ALL_REPLICAS = {"alter_sync": 2, "replication_alter_partitions_sync": 2}
# What tells two events of a source apart, whatever their outbox is like.
_POSITION = frozenset({"cdc_lsn", "cdc_ordinal"})
# The engine in a table's definition, with its arguments: a version, or a path in Keeper that is the old table's own.
_ENGINE = re.compile(r"^\w+(\((?:[^()']|'[^']*')*\))?")

MIGRATE = "`outhaul setup` prints the statements that make a MergeTree of it; no data is copied"
"""What to do about a table whose merges remove events."""


def ddl(settings: Settings, cluster: str = "") -> Iterator[tuple[str, str]]:
    """Yield (file name, statement) for all objects that ClickHouse needs, in order, for each captured table.

    Args:
        settings: names of tables, and the type of the context.
        cluster: name of the cluster on which the tables are replicated; empty for a single server.
    """
    values = {
        "epochs": clickhouse_identifier(settings.epochs_table),
        "owners": clickhouse_identifier(settings.owners_table),
        "pauses": clickhouse_identifier(settings.pauses_table),
        "trial": clickhouse_identifier(settings.trial_table),
        "trial_copies": clickhouse_identifier(settings.trial_copies),
        "trial_view": clickhouse_identifier(settings.trial_view),
        "context_type": settings.context_type,
        "deduplication_window": DEDUPLICATION_WINDOW,
        "deduplication_window_s": WINDOW_S,
        "cluster": clickhouse_literal(cluster),
        "on_cluster": f" ON CLUSTER {clickhouse_literal(cluster)}" if cluster else "",
        "replicated": "Replicated" if cluster else "",
    }
    *files, mark = names("clickhouse")
    files += names("clickhouse/cluster") if cluster else ()
    for number, outbox in enumerate(settings.outboxes()):
        for name in files:
            if not (number and name.removesuffix(".sql").endswith(_OF_ALL)):
                yield (
                    name,
                    statement(
                        name,
                        table=clickhouse_identifier(outbox.clickhouse_table),
                        table_all=clickhouse_identifier(f"{outbox.clickhouse_table}_all"),
                        dead_letters=clickhouse_identifier(outbox.dead_letters_table),
                        view_gaps=clickhouse_identifier(outbox.view_gaps_table),
                        **values,
                    ),
                )
    yield mark, statement(mark, schema_number=schema_number("clickhouse"), **values)


def applied(clickhouse: ClickHouse, settings: Settings) -> int:
    """Return the number of the newest applied file; 0 if none was applied, or by a release without schema numbers.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    rows = clickhouse.rows(
        "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": settings.epochs_table},
    )
    return number_in(str(rows[0][0])) if rows else 0


def apply(clickhouse: ClickHouse, settings: Settings) -> None:
    """Create the missing tables.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for _, text in ddl(settings):
        clickhouse.command(text)


def check(clickhouse: ClickHouse, settings: Settings) -> dict[str, Table]:
    """Check that the tables exist, and that those of events and dead letters remember tokens and keep each row.

    Returns:
        The tables by name.

    Raises:
        FatalError: a table is missing, remembers no tokens, or loses rows when it merges.
        PipelineError: ClickHouse does not answer.
    """
    names = table_names(settings, settings.outboxes())
    found = tables(clickhouse, names)
    for name in names:
        if name not in found:
            raise missing(name, clickhouse)
    _check_alike([table for name, table in found.items() if name != settings.owners_table])
    for outbox in settings.outboxes():
        for name in batch_tables(outbox):
            _check_keeps(found[name], other_source(clickhouse, outbox, found[name]))
    return found


def _check_keeps(table: Table, other: str) -> None:
    if not table.token_window:
        raise FatalError(
            f"ClickHouse table {table.name!r} does not remember insert tokens, so a retry would repeat rows",
            todo=window_statement(table),
            exit_code=Exit.CLICKHOUSE_TABLE,
        )
    if why := table.why_merges_lose(other):
        raise FatalError(
            f"ClickHouse table {table.name!r} loses events: {why}", todo=MIGRATE, exit_code=Exit.CLICKHOUSE_TABLE
        )


def other_source(clickhouse: ClickHouse, outbox: Outbox, table: Table) -> str:
    """Return a source that shares a table with the outbox's source, if a merge could take their rows for copies.

    Empty if no other source has rows in the table, or if its merges do not replace rows across sources.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    if not table.replaces or "cdc_source" in table.key_columns:
        return ""
    settings = outbox.settings
    rows = clickhouse.rows(
        query("other_source", epochs=settings.epochs_table, table=table.name),
        # Sources that share this table as their first one have epochs in one table, maybe before they have rows.
        parameters={"source": settings.source, "is_first": table.name in batch_tables(settings.outboxes()[0])},
    )
    return str(rows[0][0]) if rows else ""


def _check_alike(found: Sequence[Table]) -> None:
    """Check that the fence is on the same servers as the rows that it guards."""
    if len({table.is_replicated for table in found}) > 1:
        parts = {True: "replicated", False: "of one server"}
        described = ", ".join(f"{table.name} ({table.engine}) is {parts[table.is_replicated]}" for table in found)
        raise FatalError(
            f"some of outhaul's tables in ClickHouse are replicated and others are not: {described}",
            todo="Rename the table that differs, run `outhaul setup --cluster`, and copy its rows",
            exit_code=Exit.CLICKHOUSE_TABLE,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """One of outhaul's tables, as ClickHouse describes it."""

    name: str
    engine: str
    definition: str  # the engine with its arguments, keys and settings
    partition_key: str
    sorting_key: str

    @property
    def is_replicated(self) -> bool:
        """Whether other servers have replicas of the table."""
        return self.engine.startswith(("Replicated", "Shared"))

    @property
    def is_shared(self) -> bool:
        """Whether the table is one of ClickHouse Cloud."""
        return self.engine.startswith("Shared")

    @property
    def base_engine(self) -> str:
        """The engine's name without the prefix of replicated tables."""
        return re.sub("^(Replicated|Shared)", "", self.engine)

    @property
    def replaces(self) -> bool:
        """Whether merges keep only the newest of the rows with equal sorting keys."""
        return self.base_engine == "ReplacingMergeTree"

    @property
    def key_columns(self) -> frozenset[str]:
        """The columns of the sorting key that are in it as they are, not inside an expression."""
        return frozenset(part.strip().strip("`") for part in self.sorting_key.split(","))

    @property
    def relies_on_ids(self) -> bool:
        """Whether merges keep events apart only if their ids differ."""
        return self.replaces and not self.key_columns >= _POSITION

    def keeps_apart(self, unique_keys: Iterable[frozenset[str]]) -> bool:
        """Tell whether merges keep any two rows of an outbox with these unique keys."""
        return not self.relies_on_ids or any(key <= self.key_columns for key in unique_keys)

    def why_merges_lose(self, other: str = "") -> str:
        """Return why merges may remove events even though ids are unique within a source; empty if they do not.

        Args:
            other: a source that shares the table with ours; empty if no source does.
        """
        if not self.base_engine.endswith("MergeTree") or self.base_engine == "MergeTree":
            return ""
        if not self.replaces:
            return f"merges of a {self.engine} make one row of several events"
        if not (self.key_columns >= _POSITION or "id" in self.key_columns):
            return f"merges of a {self.engine} keep only one of the events with equal ({self.sorting_key})"
        if other and "cdc_source" not in self.key_columns:
            return (
                f"source {other!r} is in it, too, and merges of a {self.engine} keep only one of the events of both "
                f"sources with equal ({self.sorting_key})"
            )
        return ""

    @property
    def token_window(self) -> int:
        """How many tokens of past inserts the table remembers; 0 means no deduplication."""
        if self.token_window_s == 0:
            return 0
        return self.setting(_WINDOWS[self.is_replicated], _REPLICATED_WINDOW if self.is_replicated else 0)

    @property
    def token_window_s(self) -> int | None:
        """How long the table remembers a token, in seconds; None if it remembers it until others take its place."""
        return self.setting(f"{_WINDOWS[True]}_seconds", _REPLICATED_WINDOW_S) if self.is_replicated else None

    def setting(self, name: str, default: int) -> int:
        """Return the value of one of the table's settings, a whole number; `default` if the table does not set it."""
        found = re.search(rf"\b{name} = (\d+)", self.definition)
        return int(found[1]) if found else default


def table_names(settings: Settings, outboxes: Iterable[Outbox]) -> tuple[str, ...]:
    """Return the names of all tables: three of each of these outboxes, and those that the pipeline has once."""
    own = (name for outbox in outboxes for name in (*batch_tables(outbox), outbox.view_gaps_table))
    once = (settings.epochs_table, settings.owners_table, settings.pauses_table)
    return (*own, *once, settings.trial_table, settings.trial_copies)


def batch_tables(outbox: Outbox) -> tuple[str, str]:
    """Return the tables that receive batches of one outbox: events, dead letters."""
    return outbox.clickhouse_table, outbox.dead_letters_table


def tables(clickhouse: ClickHouse, names: Iterable[str]) -> dict[str, Table]:
    """Return the tables of these names that exist, by name.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    rows = clickhouse.rows(
        "SELECT name, engine, engine_full, partition_key, sorting_key FROM system.tables "
        "WHERE database = currentDatabase() AND name IN {names:Array(String)}",
        parameters={"names": list(names)},
    )
    return {row[0]: Table(*row) for row in rows}


def missing(table: str, clickhouse: ClickHouse) -> FatalError:
    """Return the error for a table that does not exist."""
    return FatalError(
        f"ClickHouse has no table {table!r} in {clickhouse.address}",
        todo="Create it with `outhaul setup`",
        exit_code=Exit.CLICKHOUSE_TABLE,
    )


def window_statement(table: Table, database: str = "", *, tokens: int = DEDUPLICATION_WINDOW) -> str:
    """Return the statement that makes a table remember as many tokens as outhaul needs."""
    settings = f"{_WINDOWS[table.is_replicated]} = {max(tokens, DEDUPLICATION_WINDOW)}"
    if table.is_replicated:
        settings += f", {_WINDOWS[True]}_seconds = {WINDOW_S}"
    # Replicas do not pass settings of tables on to each other.
    where = "  -- on each replica" if table.engine.startswith("Replicated") else ""
    name = ".".join(clickhouse_identifier(part) for part in (database, table.name) if part)
    return f"ALTER TABLE {name} MODIFY SETTING {settings}{where}"


def forget_batches(table: str) -> str:
    """Return the statement after which no row of a table is pushed to views again, since it has no token for them."""
    name = clickhouse_identifier(table)
    return f"ALTER TABLE {name} UPDATE cdc_batch = 0 WHERE cdc_batch != 0 SETTINGS mutations_sync = 2"


def migration(table: Table, *, has_batches: bool) -> tuple[str, ...]:
    """Return the statements that make a MergeTree of a table whose merges replace rows; no data is copied.

    Args:
        table: the table.
        has_batches: whether its rows have the number of their batch. The new table remembers no tokens, so a batch
            that is pushed to views again would be stored again; rows with number 0 are never pushed.
    """
    name, new = clickhouse_identifier(table.name), clickhouse_identifier(f"{table.name}_new")
    engine = "ReplicatedMergeTree" if table.is_replicated else "MergeTree"
    return (
        f"CREATE TABLE {new} AS {name} ENGINE = {_ENGINE.sub(engine, table.definition, count=1)}",
        f"ALTER TABLE {new} ATTACH PARTITION ALL FROM {name}",
        *((forget_batches(f"{table.name}_new"),) if has_batches else ()),
        f"EXCHANGE TABLES {name} AND {new}",
        f"DROP TABLE {new}",
    )


def column_type(field: pa.Field) -> str:
    """Return the ClickHouse type of a column, from the metadata that the reader has written."""
    kind: bytes = field.metadata[b"clickhouse"]
    return kind.decode()


def ensure_columns(
    clickhouse: ClickHouse,
    table: str,
    schema: pa.Schema,
    values_before: Callable[[list[str], list[str]], dict[str, str]] = lambda _new, _present: {},
    first_lsn: int = 0,
) -> dict[str, str]:
    """Add missing columns to the table, as Nullable, since rows that are already stored may have no value there.

    Args:
        clickhouse: has the table.
        table: its name.
        schema: the columns that it needs.
        values_before: called with the names of the new columns, and of those that are present and not computed; returns
            the values that older rows of the outbox have in the new ones, as Postgres prints them, by name.
        first_lsn: LSN of the first row that has the new columns. Later rows without them have no value there: the
            outbox has lost the column again.

    Returns:
        The types of the columns that the table had before.

    Raises:
        PipelineError: ClickHouse refuses or does not answer, or what `values_before` raises.
    """
    rows = clickhouse.rows(
        "SELECT name, type, default_kind FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String}",
        parameters={"table": table},
    )
    present: dict[str, str] = {str(name): str(kind) for name, kind, _ in rows}
    name = clickhouse_identifier(table)
    if "cdc_batch" not in present:
        added = f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS cdc_batch UInt64 CODEC(ZSTD(1))"
        clickhouse.command(added, settings=_ON_ALL_REPLICAS)
    new = [field for field in schema if field.name not in present]
    given = [str(name) for name, _, default in rows if default in {"", "DEFAULT"}]
    before = values_before([field.name for field in new], given) if new else {}
    for field in new:
        kind, column = column_type(field), clickhouse_identifier(field.name)
        value = _value(field, before[field.name]) if field.name in before else ""
        default = f" DEFAULT if(cdc_lsn < {first_lsn:d}, {value}, NULL)" if value else ""
        added = f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column} {kind}{default}"
        clickhouse.command(added, settings=_ON_ALL_REPLICAS)
        log.info("column_added", table=table, column=field.name, type=kind)
    return present


def _value(field: pa.Field, printed: str) -> str:
    """Return a value that Postgres has printed as an expression; empty if the column cannot hold it."""
    kind, value = bare(column_type(field)), clickhouse_literal(printed)
    if kind.startswith("DateTime64"):
        try:
            value = f"fromUnixTimestamp64Micro({microseconds(printed, kind)}, 'UTC')"
        except PoisonError:
            return ""
    elif BYTEA in field.metadata:
        value = f"unhex(substring({value}, 3))"
    elif kind != "String":
        value = f"accurateCastOrNull({value}, {clickhouse_literal(kind)})"
    return value
