"""Settings -> the server that has the slot: the primary, or a standby that decodes in its place.

Edge: Postgres. A standby writes nothing, so marks in the log, the locks of copies and DDL stay with the primary, and
what is about the slot comes here. LSNs mean the same on both.

Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.login import parameters
from outhaul.cdc_reader.postgres.preflight import Server, check_decodes, check_primary, is_standby
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot import Link, open_link
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

# What a standby has replayed is what it decodes; pg_current_wal_lsn() is an error there.
END_OF_LOG: LiteralString = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"

_DECODES_SINCE = 160000
_PRIMARYS, _STREAMS = "OUTHAUL_POSTGRES_DSN", "OUTHAUL_STREAM_DSN"
_SYSTEM: LiteralString = "SELECT system_identifier::text FROM pg_control_system()"


def is_elsewhere(settings: Settings) -> bool:
    """Tell whether the slot has an address of its own; it may lead to the primary all the same."""
    return bool(settings.stream_dsn.get_secret_value())


def connect_primary(settings: Settings, **extra: str) -> Connection:
    """Open an ordinary connection to the primary; `extra` as of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    return connect(settings.postgres_dsn.get_secret_value(), **extra)


def connect_stream(settings: Settings, **extra: str) -> Connection:
    """Open an ordinary connection to the server that has the slot; `extra` as of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused; it names the setting that leads there.
    """
    try:
        return connect(settings.slot_dsn, **extra)
    except PipelineError as error:
        raise renamed(error, settings) from None


def open_stream(stream: Stream, **extra: str) -> Link:
    """Open a connection for replication to it; `extra` as of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    try:
        return open_link(stream.settings.slot_dsn, stream.slot, stream.publication, **extra)
    except PipelineError as error:
        raise renamed(error, stream.settings) from None


def check_stream(settings: Settings, primary: Server) -> Server:
    """Check the server that has the slot; return what later stages need to know of it, `primary` where it is that one.

    Raises:
        FatalError: it cannot decode, or is of another cluster than the primary.
        PipelineError: a server refuses or does not answer.
    """
    if not is_elsewhere(settings):
        return primary
    check_one_host(settings)
    with connect_primary(settings) as ours, connect_stream(settings) as conn:
        check_may_stream(conn, settings)
        found = check_decodes(conn)
        check_same_cluster(ours.fetch_value(_SYSTEM), conn.fetch_value(_SYSTEM))
    return Server(found["wal_sender_timeout_ms"] / 1000)


def check_one_host(settings: Settings) -> None:
    """Check that the address is one server's: each has a slot of its own, with a position of its own.

    Raises:
        FatalError: it names several, or is malformed.
    """
    try:
        host = parameters(settings.slot_dsn).get("host", "")
    except PipelineError as error:
        raise renamed(error, settings) from None
    if is_elsewhere(settings) and "," in host:
        raise FatalError(
            f"{_STREAMS} names several servers ({host}), and each has slots of its own",
            todo=f"Name the one that has the slot; {_PRIMARYS} may name all of them",
            exit_code=Exit.SETTINGS,
        )


def check_may_stream(conn: Connection, settings: Settings) -> None:
    """Check that a slot may be had there: on the primary, or on a standby that was named on purpose and can decode.

    Raises:
        TransientError: it is a standby, and nobody named one to stream from; it may be promoted soon.
        FatalError: it is too old to decode.
        PipelineError: Postgres refuses or does not answer.
    """
    if not is_elsewhere(settings):
        check_primary(conn)
        return
    check_standby_version(conn.version, is_standby=is_standby(conn))


def check_standby_version(number: int, *, is_standby: bool) -> None:
    """Check `server_version_num` of a server that may be a standby.

    Raises:
        FatalError: it is one that cannot decode.
    """
    if is_standby and number < _DECODES_SINCE:
        raise FatalError(
            f"a standby of Postgres {number // 10000} cannot decode",
            todo=f"Use Postgres 16 or later, or unset {_STREAMS} to stream from the primary",
            exit_code=Exit.WAL_LEVEL,
        )


def check_same_cluster(primary: str | None, stream: str | None) -> None:
    """Compare system identifiers.

    Raises:
        FatalError: the two settings lead to different clusters.
    """
    if primary != stream:
        raise FatalError(
            f"{_STREAMS} leads to another cluster (system {stream}) than {_PRIMARYS} (system {primary}): its log "
            "does not have the events of this outbox",
            todo=f"Let {_STREAMS} lead to a standby of that primary, or to the primary itself",
            exit_code=Exit.SETTINGS,
        )


def end_of_log(conn: Connection) -> Lsn:
    """Return where the log of a server ends; that of a standby, where what it has replayed does.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return Lsn.parse(conn.fetch_value(f"SELECT ({END_OF_LOG})::text"))


def end_of_primary(settings: Settings, **extra: str) -> Lsn | None:
    """Return where the primary's log ends, which a standby may not have yet; None where it has the slot itself.

    `extra` are parameters of `connect`.

    Raises:
        PipelineError: the primary refuses or does not answer.
    """
    if not is_elsewhere(settings):
        return None
    with connect_primary(settings, **extra) as conn:
        return end_of_log(conn)


def renamed(error: PipelineError, settings: Settings) -> PipelineError:
    """Return an error with the setting that leads to the slot, where it names the primary's."""
    if not is_elsewhere(settings) or _PRIMARYS not in str(error):
        return error
    message, todo = (text.replace(_PRIMARYS, _STREAMS) for text in (error.message, error.todo))
    return type(error)(message, code=error.code, todo=todo, exit_code=error.exit_code)
