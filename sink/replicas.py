"""outhaul's tables in ClickHouse -> the servers on which an insert of the pipeline may run.

Edge: ClickHouse. A table of one server is on that server alone. A replicated table is on several servers, and none of
them lists the queries of another. So the fence is looked up, and running inserts are listed, on all of them, through a
cluster: in ClickHouse Cloud `default`, elsewhere the one that OUTHAUL_CLICKHOUSE_CLUSTER names, or the first of
system.clusters that reaches every replica. A cluster that reaches fewer servers than there are replicas is refused,
because an insert could run unseen on the others.

Source: https://clickhouse.com/docs/sql-reference/table-functions/cluster
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.clickhouse_errors import ACCESS_DENIED
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.quoting import clickhouse_literal
from outhaul.sink.schema import tables
from outhaul.sink.sql import TableExpression, query

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Settings

# The cluster of a service in ClickHouse Cloud.
_CLOUD = "default"

# For each query that decides something. Tables of one server ignore them.
IN_SEQUENCE = {
    # A replica that has not received everything fetches what it lacks (Shared tables), or refuses (Replicated ones, if
    # inserts have a quorum).
    "select_sequential_consistency": 1,
    # A server that does not answer is an error, and all of them together give one answer.
    "skip_unavailable_shards": 0,
    "distributed_group_by_no_merge": 0,
    # Each server is asked about all that it has, not about a share.
    "max_parallel_replicas": 1,
}


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that have outhaul's tables, `count` of them; `cluster` reaches them and is empty for one server."""

    cluster: str = ""
    database: str = ""
    count: int = 1

    @property
    def are_replicas(self) -> bool:
        """Whether there may be more than one server, each with a replica of the tables."""
        return bool(self.cluster)

    def everywhere(self, table: str) -> str | TableExpression:
        """Return a table of the pipeline as the servers have it: a row that two of them have occurs twice."""
        if not self.are_replicas:
            return table
        return _all_replicas(self.cluster, f"{clickhouse_literal(self.database)}, {clickhouse_literal(table)}")

    def of_system(self, table: str) -> TableExpression:
        """Return a table of the database `system` of all the servers."""
        return (
            _all_replicas(self.cluster, f"system.{table}") if self.are_replicas else TableExpression(f"system.{table}")
        )


ONE_SERVER = Servers()


def find_servers(clickhouse: ClickHouse, settings: Settings, table: str = "") -> Servers:
    """Return the servers on which an insert of the pipeline may run: those that have a table, by default its epochs.

    Raises:
        FatalError: no cluster reaches every replica, or the user may not ask all of them.
        TransientError: one of the servers does not answer. It may still be storing an insert.
        PipelineError: ClickHouse refuses or does not answer.
    """
    name = table or settings.epochs_table
    found = tables(clickhouse, [name]).get(name)
    if found is None or not found.is_replicated:
        return ONE_SERVER
    try:
        if found.is_shared:
            return _in_cloud(clickhouse, settings)
        return _replicas(clickhouse, settings, name)
    except FatalError as error:
        if error.code == ACCESS_DENIED:
            raise not_allowed(error) from error
        raise


def not_allowed(error: PipelineError) -> FatalError:
    """Return the error for a user who may not ask all replicas about running inserts."""
    return FatalError(
        f"the tables are replicated, and running inserts cannot be listed on all replicas: {error.message}",
        code=error.code,
        todo="As an administrator, run the statements for replicas in sql/clickhouse/users/pipeline.sql (GRANT REMOTE, "
        "CREATE TEMPORARY TABLE ON *.* ...); if the cluster's definition names a user, that user needs them, too",
        exit_code=Exit.CLICKHOUSE_REFUSED,
    )


def _in_cloud(clickhouse: ClickHouse, settings: Settings) -> Servers:
    cluster = settings.clickhouse_cluster or _CLOUD
    ((database, count),) = clickhouse.rows(
        "SELECT currentDatabase(), count() FROM system.clusters WHERE cluster = {cluster:String}",
        parameters={"cluster": cluster},
    )
    if not count:
        raise _refusal(f"system.clusters has no cluster {cluster!r}")
    return Servers(cluster, database, int(count))


def _replicas(clickhouse: ClickHouse, settings: Settings, table: str) -> Servers:
    """Return the servers of a Replicated table, through the smallest cluster that reaches them all."""
    here = clickhouse.rows(query("replica"), parameters={"table": table})
    if not here:
        raise _refusal(f"system.replicas does not list the replicated table {table!r}")
    database, path, total = here[0]
    named = settings.clickhouse_cluster
    clusters = [named] if named else [row[0] for row in clickhouse.rows(query("clusters"), parameters={"least": total})]
    refused: PipelineError | None = None
    reached: dict[str, int] = {}
    for cluster in clusters:
        servers = Servers(cluster, str(database), int(total))
        try:
            asked = query("replicas", replicas=servers.of_system("replicas"))
            rows = clickhouse.rows(asked, parameters={"path": path}, settings=IN_SEQUENCE)
        except PipelineError as error:
            refused = refused or error
            continue
        reached[cluster] = len(rows)
        if len(rows) >= servers.count:
            return servers
    if refused is not None:
        # The cluster of a replica that does not answer may be the one; then the reader waits for that replica.
        raise refused
    raise _refusal(_why_not(table, int(total), reached))


def _why_not(table: str, total: int, reached: dict[str, int]) -> str:
    if not reached:
        return f"{table!r} has {total} replicas, and no cluster in system.clusters has {total} servers"
    found = ", ".join(f"{cluster!r} reaches {count}" for cluster, count in reached.items())
    return f"{table!r} has {total} replicas; of the clusters in system.clusters, {found}"


def _refusal(why: str) -> FatalError:
    return FatalError(
        f"inserts may run on replicas that outhaul cannot ask: {why}",
        todo="Set OUTHAUL_CLICKHOUSE_CLUSTER to a cluster that has all replicas; if a replica is gone for good, run "
        "SYSTEM DROP REPLICA",
        exit_code=Exit.CLICKHOUSE_TABLE,
    )


def _all_replicas(cluster: str, table: str) -> TableExpression:
    return TableExpression(f"clusterAllReplicas({clickhouse_literal(cluster)}, {table})")


def servers_in(rows: Sequence[Sequence[Any]]) -> set[Any]:
    """Return the servers that have answered; each row begins with the two columns that identify one."""
    return {tuple(row[:2]) for row in rows}
