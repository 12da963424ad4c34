"""Settings -> the state of a standby that has the slot, and of its primary, and the findings about them.

Edge: one ordinary connection to each. It changes nothing.

Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.operate.doctor import postgres_settings
from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, tried, warn
from outhaul.cdc_reader.postgres.connect import (
    END_OF_LOG,
    check_same_cluster,
    check_standby_version,
    connect_primary,
    connect_stream,
)
from outhaul.cdc_reader.postgres.provider import SELF_RUN, provider_of
from outhaul.sink.position import Lsn
from outhaul.sink.quantities import size_text
from outhaul.sink.quoting import postgres_identifier, postgres_literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.provider import Provider
    from outhaul.sink.settings import Settings

_CONNECT_S = "5"
# A standby that is this far behind has more than a burst to replay, in bytes.
_MUCH_BYTES = 256 << 20

_STANDBY: LiteralString = """
    SELECT pg_is_in_recovery() AS is_standby, (SELECT system_identifier::text FROM pg_control_system()) AS system,
           current_setting('hot_standby_feedback') = 'on' AS feedback,
           current_setting('primary_slot_name') AS primary_slot,
           EXISTS (SELECT FROM pg_stat_wal_receiver) AS receives,
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS is_paused,
           ({end_of_log})::text AS end,
           EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = ANY(%(slots)s)) AS has_slot"""

# The function exists since Postgres 16; before, the column is NULL.
_PRIMARY: LiteralString = """
    SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system, pg_current_wal_lsn()::text AS end,
           current_user AS role,
           has_function_privilege(to_regprocedure('pg_log_standby_snapshot()'), 'EXECUTE') AS may_log,
           (SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots
            WHERE slot_type = 'physical' AND slot_name = %(primary_slot)s) AS is_fed_back,
           ARRAY(SELECT slot_name::text FROM pg_replication_slots
                 WHERE slot_type = 'logical' AND slot_name = ANY(%(slots)s) ORDER BY slot_name) AS left_over"""


@dataclass(frozen=True, slots=True)
class Standby:
    """The server that has the slot; `end` is the position up to which it has replayed."""

    is_standby: bool
    system: str
    feedback: bool
    primary_slot: str
    receives: bool
    is_paused: bool
    end: str
    has_slot: bool


@dataclass(frozen=True, slots=True)
class Primary:
    """The primary; `is_fed_back` is None if it does not have the standby's physical slot."""

    system: str
    end: str
    role: str
    may_log: bool | None
    is_fed_back: bool | None
    left_over: list[str]


@dataclass(frozen=True, slots=True)
class StandbyFacts:
    """Both servers, and the settings of the standby."""

    standby: Standby
    primary: Primary
    server: postgres_settings.ServerSettings
    provider: Provider = SELF_RUN


def ask(settings: Settings) -> StandbyFacts:
    """Ask both.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    slots = [stream.slot for stream in settings.streams()]
    with connect_stream(settings, connect_timeout=_CONNECT_S) as conn:
        conn.execute("SET statement_timeout = '5s'")
        standby = conn.fetch_as(Standby, _STANDBY.format(end_of_log=END_OF_LOG), {"slots": slots})[0]
        server = conn.fetch_as(postgres_settings.ServerSettings, postgres_settings.QUERY)[0]
        provider = provider_of(conn)
    names = {"slots": slots, "primary_slot": standby.primary_slot}
    with connect_primary(settings, connect_timeout=_CONNECT_S) as conn:
        conn.execute("SET statement_timeout = '5s'")
        return StandbyFacts(standby, conn.fetch_as(Primary, _PRIMARY, names)[0], server, provider)


def judge(facts: StandbyFacts, settings: Settings) -> Iterator[Finding]:
    """Judge all answers."""
    standby, primary = facts.standby, facts.primary
    yield tried("same cluster", f"system {standby.system}", lambda: check_same_cluster(primary.system, standby.system))
    yield from postgres_settings.judge_sender(facts.server, settings, facts.provider, has_slot=standby.has_slot)
    if not standby.is_standby:
        yield fine("role", "OUTHAUL_STREAM_DSN leads to the primary itself")
        return
    yield tried(
        "decodes",
        "logical decoding works on this standby",
        lambda: check_standby_version(facts.server.version, is_standby=True),
    )
    yield feedback(standby, facts.provider)
    yield physical_slot(standby, primary)
    yield replay(standby, primary)
    yield running_transactions(primary)
    yield left_over(primary)


def feedback(standby: Standby, provider: Provider = SELF_RUN) -> Finding:
    """Judge whether the standby tells the primary which rows it still needs."""
    check = "hot_standby_feedback"
    if standby.feedback:
        return fine(check, "on")
    return fail(
        check,
        "off: vacuum on the primary removes catalog rows that decoding needs, and Postgres invalidates the slot",
        f"{provider.change(check, 'on')}  -- on the standby",
    )


def physical_slot(standby: Standby, primary: Primary) -> Finding:
    """Judge whether the primary keeps those rows while the standby is disconnected."""
    check, name = "primary_slot_name", standby.primary_slot
    if not name:
        return warn(
            check,
            "not set: while the standby is disconnected, the primary removes rows that it needs, and the slot is lost",
            "On the primary: SELECT pg_create_physical_replication_slot('standby', true); on the standby: ALTER SYSTEM "
            f"SET {check} = 'standby'; SELECT pg_reload_conf();",
        )
    if primary.is_fed_back is None:
        # The slot of a cascading standby is on the standby that it follows.
        return warn(
            check,
            f"{name!r}, which the primary does not have",
            "Create it on the primary; for a cascading standby, check the standby that it follows",
        )
    if standby.has_slot and standby.feedback and not primary.is_fed_back:
        return warn(
            check,
            f"{name!r}, but the primary has received no feedback through it",
            "Check that the standby streams, and that its wal_receiver_status_interval is not 0",
        )
    return fine(check, f"{name}, and the primary has it")


def replay(standby: Standby, primary: Primary) -> Finding:
    """Judge whether the standby follows the primary."""
    check, behind = "replay", max(0, Lsn.parse(primary.end) - Lsn.parse(standby.end))
    found = f"{size_text(behind)} behind the primary"
    if standby.is_paused:
        return fail(check, f"paused, {found}: nothing is streamed", "SELECT pg_wal_replay_resume();  -- on the standby")
    if not standby.receives:
        return warn(
            check,
            f"{found}, and it does not stream from a primary",
            "Check its log and primary_conninfo; a standby that reads only archived WAL is always behind",
        )
    if behind > _MUCH_BYTES:
        return warn(check, found, "SELECT sent_lsn, replay_lsn FROM pg_stat_replication;  -- on the primary")
    return fine(check, found)


def running_transactions(primary: Primary) -> Finding:
    """Judge whether a slot can be created without waiting."""
    check = "pg_log_standby_snapshot"
    if primary.may_log:
        return fine(check, f"{primary.role} can call it")
    return warn(
        check,
        f"role {primary.role!r} cannot call it: a new slot waits until the primary logs its running transactions, up "
        "to 15 s under load and without limit on an idle primary",
        f"GRANT EXECUTE ON FUNCTION pg_log_standby_snapshot() TO {postgres_identifier(primary.role)};  "
        "-- on the primary",
    )


def left_over(primary: Primary) -> Finding:
    """Judge whether the primary still has a slot that no reader will use."""
    check = "no slot on the primary"
    if not primary.left_over:
        return fine(check, "the primary has no slot of this name")
    first, names = postgres_literal(primary.left_over[0]), ", ".join(primary.left_over)
    return fail(
        check,
        f"the primary also has {names}, which no reader uses and which keeps WAL",
        f"SELECT pg_drop_replication_slot({first});  -- on the primary, after the reader there has stopped",
    )
