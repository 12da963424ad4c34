"""A partitioned outbox -> old partitions dropped, if all of their rows are proven; future partitions created.

Edge: Postgres. The transaction that drops a partition first locks out writers of this one partition, then checks that
it still has exactly the rows that were proven. The outbox itself is locked only during the drop.

Source: https://www.postgresql.org/docs/current/ddl-partitioning.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.pruning import partition_bounds
from outhaul.cdc_reader.postgres.errors import LockedError
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.failpoint import reach
from outhaul.sink.quoting import postgres_identifier, postgres_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
    from outhaul.cdc_reader.operate.pruning.partition_bounds import Range
    from outhaul.cdc_reader.operate.pruning.stored_rows import OutboxRow

    Prove = Callable[[Sequence[OutboxRow]], set[OutboxRow]]

_PAGE = 20_000

_ROOT = """
    SELECT n.nspname AS schema, c.relname AS name, pg_has_role(c.relowner, 'USAGE') AS is_ours,
           (SELECT attname FROM pg_attribute
            WHERE attrelid = p.partrelid AND attnum = p.partattrs[0] AND p.partnatts = 1 AND p.partstrat = 'r') AS key
    FROM pg_partitioned_table AS p JOIN pg_class AS c ON c.oid = p.partrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE p.partrelid = to_regclass(%s)"""

_PARTS = """
    SELECT c.oid::regclass::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound,
           c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE') AS may_drop
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(%s) ORDER BY c.oid"""

_FINGERPRINT = """
    SELECT count(*) AS count, sum(id) AS total, max(id) AS last,
           sum(extract(epoch FROM event_date_time) * 1000000) FILTER (WHERE isfinite(event_date_time)) AS times
    FROM {table}"""


@dataclass(frozen=True, slots=True)
class Part:
    """One range partition: its name, quoted as SQL wants it, its bounds, and whether the role may drop it."""

    name: str
    range: Range
    may_drop: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """A partitioned outbox, and its partitions; `key` is the column of the bounds, None unless ranges of one column."""

    schema: str
    name: str
    is_ours: bool
    key: str | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class PartitionRows:
    """Count, sum of ids, last id and sum of times of a partition's rows when they were proven."""

    count: int = 0
    total: int = 0
    last: int | None = None
    times: int = 0


def look(outbox: OutboxTable) -> Tree | None:
    """Return how the outbox is partitioned; None if it is not.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    root = outbox.conn.fetch_one(_ROOT, [outbox.name])
    if root is None:
        return None
    rows = outbox.conn.fetch(_PARTS, [outbox.name])
    found = ((row, partition_bounds.parse(row["bound"])) for row in rows)
    parts = tuple(Part(row["name"], one, bool(row["may_drop"])) for row, one in found if one is not None)
    return Tree(root["schema"], root["name"], bool(root["is_ours"]), root["key"], parts)


def whole(
    outbox: OutboxTable, tree: Tree, cutoff: datetime, prove: Prove, stop: Callable[[], bool]
) -> Iterator[tuple[Part, PartitionRows]]:
    """Yield the partitions whose rows are all old and proven, with the rows that they must still have when dropped.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    for part in tree.parts:
        if not part.may_drop or not _is_past(tree, part, cutoff):
            continue
        rows = _proven_rows(outbox, part, cutoff, prove, stop)
        reach("prune.proven")
        # An empty partition by id may be a future one.
        if rows is not None and (rows.count or tree.key == "event_date_time"):
            yield part, rows


def drop(outbox: OutboxTable, part: Part, rows: PartitionRows) -> bool:
    """Drop a partition if it has exactly the rows that were proven; return whether it was dropped.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    try:
        with outbox.short():
            outbox.conn.execute(f"LOCK TABLE {part.name} IN SHARE ROW EXCLUSIVE MODE")
            now = outbox.conn.fetch_one(_FINGERPRINT.format(table=part.name)) or {}
            if PartitionRows(now["count"], int(now["total"] or 0), now["last"], int(now["times"] or 0)) != rows:
                return False
            reach("prune.dropping")
            outbox.conn.execute(f"DROP TABLE {part.name}")
    except LockedError:
        return False
    return True


def create(outbox: OutboxTable, tree: Tree, ahead: int, *, dry_run: bool) -> list[str]:
    """Create partitions until `ahead` of them lie wholly in the future; return their names.

    Raises:
        FatalError: the bounds have no common step, or the outbox belongs to another role.
        PipelineError: Postgres refuses or does not answer.
    """
    if not ahead:
        return []
    coming = _coming(outbox, tree, ahead)
    if coming and not tree.is_ours and not dry_run:
        raise FatalError(
            f"only the owner of {outbox.name} can create partitions of it",
            todo="Run the command as that role, or leave out --partitions-ahead",
            exit_code=Exit.ROLE,
        )
    made = []
    for one in coming:
        if one.lower is None:
            continue
        name = f"{postgres_identifier(tree.schema)}.{postgres_identifier(partition_bounds.name(tree.name, one.lower))}"
        lower, upper = postgres_literal(str(one.lower)), postgres_literal(str(one.upper))
        text = f"CREATE TABLE {name} PARTITION OF {outbox.name} FOR VALUES FROM ({lower}) TO ({upper})"
        if not dry_run:
            with outbox.short():
                outbox.conn.execute(text)
        made.append(name)
    return made


def refuse(outbox: OutboxTable) -> None:
    """Refuse to create partitions of a table that is not partitioned.

    Raises:
        FatalError: always.
    """
    raise FatalError(f"{outbox.name} is not partitioned", todo="Leave out --partitions-ahead", exit_code=Exit.USAGE)


def _is_past(tree: Tree, part: Part, cutoff: datetime) -> bool:
    if tree.key == "event_date_time":
        return isinstance(part.range.upper, datetime) and part.range.upper <= cutoff
    # A partition by id may have rows of any age, so each row is checked.
    return tree.key == "id"


def _proven_rows(
    outbox: OutboxTable, part: Part, cutoff: datetime, prove: Prove, stop: Callable[[], bool]
) -> PartitionRows | None:
    """Return the partition's rows if all are old and proven, otherwise None."""
    last: int | None = None
    count = total = times = 0
    while not stop():
        page = outbox.page(last, _PAGE, cutoff, part.name)
        if not all(row.is_old for row in page) or len(prove(page)) < len(set(page)):
            return None
        count, total = count + len(page), total + sum(row.id for row in page)
        last = page[-1].id if page else last
        times += sum(row.at_us or 0 for row in page)
        if len(page) < _PAGE:
            return PartitionRows(count, total, last, times)
    return None


def _coming(outbox: OutboxTable, tree: Tree, ahead: int) -> list[Range]:
    ranges = [part.range for part in tree.parts]
    step = partition_bounds.step_of(ranges)
    uppers: list[Any] = [one.upper for one in ranges if one.upper is not None]
    if tree.key is None or step is None:
        raise FatalError(
            f"the last partitions of {outbox.name} are not adjacent ranges of equal length",
            todo="Create two such partitions by hand, or leave out --partitions-ahead",
            exit_code=Exit.USAGE,
        )
    front: Any = _front(outbox, tree)
    there = sum(one.lower is not None and one.lower > front for one in ranges)
    later = partition_bounds.following(max(uppers), step)
    coming: list[Range] = []
    for one in later:
        if there >= ahead:
            break
        coming.append(one)
        there += one.lower is not None and one.lower > front
    return coming


def _front(outbox: OutboxTable, tree: Tree) -> int | datetime:
    """Return where apps write now: the current time, or the greatest id."""
    if tree.key != "id":
        return datetime.now(UTC)
    with outbox.short():
        return int(outbox.conn.fetch_value(f"SELECT max(id) FROM {outbox.name}") or 0)  # noqa: S608
