"""Settings -> a connection to the server that has the slot: the primary, or a standby that decodes in its place.

Edge: Postgres. A standby cannot write, so marks in the WAL, the locks of copies, and DDL go to the primary. Statements
about the slot go to the server of the slot. An LSN has the same meaning on both.

Source: https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.login import connect_replication, parameters
from outhaul.cdc_reader.postgres.preflight import Server, check_decodes, check_primary, is_standby
from outhaul.cdc_reader.postgres.provider import provider_of
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot import Link, open_link
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

# A standby decodes what it has replayed; pg_current_wal_lsn() raises an error there.
END_OF_LOG: LiteralString = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"

_DECODES_SINCE = 160000
_PRIMARYS, _STREAMS = "OUTHAUL_POSTGRES_DSN", "OUTHAUL_STREAM_DSN"
_SYSTEM: LiteralString = "SELECT system_identifier::text FROM pg_control_system()"


def has_stream_dsn(settings: Settings) -> bool:
    """Tell whether the slot's server has its own setting; that setting may still lead to the primary."""
    return bool(settings.stream_dsn.get_secret_value())


def connect_primary(settings: Settings, **extra: str) -> Connection:
    """Open an ordinary connection to the primary; `extra` are parameters of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    return connect(settings.postgres_dsn.get_secret_value(), **extra)


def connect_stream(settings: Settings, **extra: str) -> Connection:
    """Open an ordinary connection to the server that has the slot; `extra` are parameters of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused; the error names the setting of that server.
    """
    try:
        return connect(settings.slot_dsn, **extra)
    except PipelineError as error:
        raise name_stream_dsn(error, settings) from None


def open_stream(stream: Stream, **extra: str) -> Link:
    """Open a replication connection to the server that has the slot; `extra` are parameters of `connect`.

    Raises:
        PipelineError: no answer, or the login is refused.
    """
    try:
        return open_link(stream.settings.slot_dsn, stream.slot, stream.publication, **extra)
    except PipelineError as error:
        raise name_stream_dsn(error, stream.settings) from None


def check_stream(settings: Settings, primary: Server) -> Server:
    """Check the server that has the slot; return its facts, or `primary` if it is the primary.

    Raises:
        FatalError: it cannot decode, refuses a replication connection, or belongs to another cluster than the primary.
        PipelineError: a server refuses or does not answer.
    """
    if not has_stream_dsn(settings):
        check_replicates(settings)
        return primary
    check_one_host(settings)
    with connect_primary(settings) as primary_conn, connect_stream(settings) as conn:
        check_may_stream(conn, settings)
        found = check_decodes(conn)
        check_same_cluster(primary_conn.fetch_value(_SYSTEM), conn.fetch_value(_SYSTEM))
        provider = provider_of(conn)
    check_replicates(settings)
    return Server(found["wal_sender_timeout_ms"] / 1000, provider)


def check_replicates(settings: Settings) -> None:
    """Check that the server of the slot does not refuse a replication connection.

    A provider may give the right to replicate by a membership, so the attributes of the role do not tell. Sessions wait
    for a server that cannot accept another connection at present.

    Raises:
        FatalError: it refuses; the error says what to do on this server.
    """
    try:
        connect_replication(settings.slot_dsn).finish()
    except TransientError:
        return
    except FatalError as error:
        with connect_stream(settings) as conn:
            raise name_stream_dsn(explained(error, conn), settings) from None


def explained(error: FatalError, conn: Connection) -> FatalError:
    """Return the error of a refused replication connection, with what to do on this server.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return provider_of(conn).explain(error, conn.fetch_value("SELECT current_user::text"))


def check_one_host(settings: Settings) -> None:
    """Check that the setting names one server: each server has its own slot, with its own position.

    Raises:
        FatalError: it names several servers, or is malformed.
    """
    try:
        host = parameters(settings.slot_dsn).get("host", "")
    except PipelineError as error:
        raise name_stream_dsn(error, settings) from None
    if has_stream_dsn(settings) and "," in host:
        raise FatalError(
            f"{_STREAMS} names several servers ({host}), but each server has its own slots",
            todo=f"Name only the server that has the slot; {_PRIMARYS} may name all of them",
            exit_code=Exit.SETTINGS,
        )


def check_may_stream(conn: Connection, settings: Settings) -> None:
    """Check that the server may have the slot: it is the primary, or a standby that OUTHAUL_STREAM_DSN names.

    Raises:
        TransientError: it is a standby, and OUTHAUL_STREAM_DSN is not set; it may be promoted soon.
        FatalError: the standby is too old to decode.
        PipelineError: Postgres refuses or does not answer.
    """
    if not has_stream_dsn(settings):
        check_primary(conn)
        return
    check_standby_version(conn.version, is_standby=is_standby(conn))


def check_standby_version(number: int, *, is_standby: bool) -> None:
    """Check `server_version_num` of a server that may be a standby.

    Raises:
        FatalError: it is a standby that cannot decode.
    """
    if is_standby and number < _DECODES_SINCE:
        raise FatalError(
            f"a standby of Postgres {number // 10000} cannot decode",
            todo=f"Use Postgres 16 or later, or unset {_STREAMS} to stream from the primary",
            exit_code=Exit.WAL_LEVEL,
        )


def check_same_cluster(primary: str | None, stream: str | None) -> None:
    """Compare the system identifiers of both servers.

    Raises:
        FatalError: the two settings lead to different clusters.
    """
    if primary != stream:
        raise FatalError(
            f"{_STREAMS} leads to another cluster (system {stream}) than {_PRIMARYS} (system {primary}): its WAL "
            "does not have the events of this outbox",
            todo=f"Set {_STREAMS} to a standby of that primary, or to the primary itself",
            exit_code=Exit.SETTINGS,
        )


def end_of_log(conn: Connection) -> Lsn:
    """Return the end of a server's WAL; on a standby, the end of what it has replayed.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return Lsn.parse(conn.fetch_value(f"SELECT ({END_OF_LOG})::text"))


def end_of_either_log(settings: Settings, at_least: Lsn) -> Lsn:
    """Return the end of the WAL on the slot's server; if that is a standby before `at_least`, the end on the primary.

    After its restart, a standby has less replayed than before for a while.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    with connect_stream(settings) as conn:
        end, behind = end_of_log(conn), is_standby(conn)
    return end_of_primary(settings) or end if behind and end < at_least else end


def end_of_primary(settings: Settings, **extra: str) -> Lsn | None:
    """Return the end of the primary's WAL if another server may have the slot; None if the primary has it.

    `extra` are parameters of `connect`.

    Raises:
        PipelineError: the primary refuses or does not answer.
    """
    if not has_stream_dsn(settings):
        return None
    with connect_primary(settings, **extra) as conn:
        return end_of_log(conn)


def name_stream_dsn(error: PipelineError, settings: Settings) -> PipelineError:
    """Return the error with OUTHAUL_STREAM_DSN in place of the primary's setting, if that is the one in use."""
    if not has_stream_dsn(settings) or _PRIMARYS not in str(error):
        return error
    message, todo = (text.replace(_PRIMARYS, _STREAMS) for text in (error.message, error.todo))
    return type(error)(message, code=error.code, todo=todo, exit_code=error.exit_code)
