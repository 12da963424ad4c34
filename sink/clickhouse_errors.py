"""ClickHouse error code, or HTTP status of a proxy -> the kind of error, and what the operator can do.

Pure. A code is transient, poison or fatal, for the reason that stands above it. A code in no table is fatal: a batch
with an unknown error must not be skipped. Every code of ClickHouse 26.5 was considered.

Source: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
"""

from __future__ import annotations

import re
from http import HTTPStatus

from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TooLargeError, TransientError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.settings_clause import without_clauses

# FUNCTION_THROW_IF_VALUE_IS_NON_ZERO. Only outhaul's own statements use throwIf; their texts are in sql/clickhouse.
THROW_IF = 395
ACCESS_DENIED = 497
UNKNOWN_TABLE = 60
UNKNOWN_SETTING = 115

TRANSIENT = {
    # The request or the answer did not arrive whole, or a server behind this one did not answer.
    3: "UNEXPECTED_END_OF_FILE",
    23: "CANNOT_READ_FROM_ISTREAM",
    32: "ATTEMPT_TO_READ_AFTER_EOF",
    33: "CANNOT_READ_ALL_DATA",
    86: "RECEIVED_ERROR_FROM_REMOTE_IO_SERVER",
    95: "CANNOT_READ_FROM_SOCKET",
    96: "CANNOT_WRITE_TO_SOCKET",
    100: "UNKNOWN_PACKET_FROM_SERVER",
    102: "UNEXPECTED_PACKET_FROM_SERVER",
    198: "DNS_ERROR",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    279: "ALL_CONNECTION_TRIES_FAILED",
    410: "EXTERNAL_SERVER_IS_NOT_RESPONDING",
    734: "CANNOT_WRITE_AFTER_BUFFER_CANCELED",
    # The disk is full, or fails for a while. The server keeps what it has acknowledged.
    24: "CANNOT_WRITE_TO_OSTREAM",
    74: "CANNOT_READ_FROM_FILE_DESCRIPTOR",
    75: "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
    76: "CANNOT_OPEN_FILE",
    77: "CANNOT_CLOSE_FILE",
    87: "CANNOT_SEEK_THROUGH_FILE",
    88: "CANNOT_TRUNCATE_FILE",
    172: "CANNOT_CREATE_DIRECTORY",
    204: "CANNOT_FSYNC",
    214: "CANNOT_STATVFS",
    243: "NOT_ENOUGH_SPACE",
    274: "AIO_READ_ERROR",
    275: "AIO_WRITE_ERROR",
    294: "CANNOT_WRITE_TO_FILE",
    400: "CANNOT_STAT",
    424: "CANNOT_LINK",
    458: "CANNOT_UNLINK",
    521: "ATOMIC_RENAME_FAIL",
    531: "CANNOT_FSTAT",
    566: "CANNOT_RMDIR",
    586: "CANNOT_CREATE_FILE",
    641: "CANNOT_APPEND_TO_FILE",
    662: "FS_METADATA_ERROR",
    771: "CACHE_CANNOT_WRITE_TO_CACHE_DISK",
    # Object storage, and the cache before it.
    499: "S3_ERROR",
    500: "AZURE_BLOB_STORAGE_ERROR",
    660: "HDFS_ERROR",
    693: "AWS_ERROR",
    707: "GCP_ERROR",
    737: "GOOGLE_CLOUD_ERROR",
    900: "DISTRIBUTED_CACHE_ERROR",
    901: "CANNOT_USE_DISTRIBUTED_CACHE",
    903: "DISTRIBUTED_CACHE_REGISTRY_SHUTDOWN",
    # The server has too much to do, or an operator has ended the query.
    159: "TIMEOUT_EXCEEDED",
    160: "TOO_SLOW",
    173: "CANNOT_ALLOCATE_MEMORY",
    201: "QUOTA_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    216: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    241: "MEMORY_LIMIT_EXCEEDED",
    252: "TOO_MANY_PARTS",
    290: "LIMIT_EXCEEDED",
    364: "RECEIVED_ERROR_TOO_MANY_REQUESTS",
    373: "SESSION_IS_LOCKED",
    394: "QUERY_WAS_CANCELLED",
    411: "PTHREAD_ERROR",
    425: "SYSTEM_ERROR",
    439: "CANNOT_SCHEDULE_TASK",
    473: "DEADLOCK_AVOIDED",
    573: "EPOLL_ERROR",
    574: "DISTRIBUTED_TOO_MANY_PENDING_BYTES",
    635: "CANNOT_POLL",
    650: "SERIALIZATION_ERROR",
    677: "THREAD_WAS_CANCELED",
    692: "TOO_MANY_MUTATIONS",
    700: "USER_SESSION_LIMIT_EXCEEDED",
    735: "QUERY_WAS_CANCELLED_BY_CLIENT",
    745: "SERVER_OVERLOADED",
    749: "TCP_CONNECTION_LIMIT_REACHED",
    762: "HTTP_CONNECTION_LIMIT_REACHED",
    763: "SESSION_REFUSED",
    # The server starts or stops, or loads a table.
    236: "ABORTED",
    667: "NOT_INITIALIZED",
    695: "ASYNC_LOAD_FAILED",
    696: "ASYNC_LOAD_CANCELED",
    722: "ASYNC_LOAD_WAIT_FAILED",
    733: "TABLE_IS_BEING_RESTARTED",
    # Keeper or the other replicas do not answer, or have not caught up.
    225: "NO_ZOOKEEPER",
    234: "NO_REPLICA_HAS_PART",
    242: "TABLE_IS_READ_ONLY",
    244: "UNEXPECTED_ZOOKEEPER_ERROR",
    254: "NO_ACTIVE_REPLICAS",
    255: "TOO_MANY_RETRIES_TO_FETCH_PARTS",
    265: "NO_AVAILABLE_REPLICA",
    285: "TOO_FEW_LIVE_REPLICAS",
    286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    289: "REPLICA_IS_NOT_IN_QUORUM",
    297: "SHARD_HAS_NO_CONNECTIONS",
    308: "UNEXPECTED_NODE_IN_ZOOKEEPER",
    319: "UNKNOWN_STATUS_OF_INSERT",
    369: "ALL_REPLICAS_ARE_STALE",
    415: "ALL_REPLICAS_LOST",
    416: "REPLICA_STATUS_CHANGED",
    519: "NO_REMOTE_SHARD_AVAILABLE",
    529: "NOT_A_LEADER",
    568: "RAFT_ERROR",
    571: "DATABASE_REPLICATION_FAILED",
    659: "UNKNOWN_STATUS_OF_TRANSACTION",
    709: "CANNOT_GET_REPLICATED_DATABASE_SNAPSHOT",
    904: "TOO_MANY_UNAVAILABLE_SHARDS",
    999: "KEEPER_EXCEPTION",
    1005: "STALE_VERSION",
    # An ALTER, a merge or a mutation holds what the statement needs.
    341: "UNFINISHED",
    384: "PART_IS_TEMPORARILY_LOCKED",
    517: "CANNOT_ASSIGN_ALTER",
    738: "PART_IS_LOCKED",
    740: "POTENTIALLY_BROKEN_DATA_PART",
    # A dictionary that a view uses is not loaded, or its source does not answer.
    156: "DICTIONARIES_WAS_NOT_LOADED",
    510: "CACHE_DICTIONARY_UPDATE_FAIL",
    614: "POSTGRESQL_CONNECTION_FAILURE",
    # An exception without a code of ClickHouse's own: of the system, of the network, or of memory.
    710: "FAULT_INJECTED",
    1000: "POCO_EXCEPTION",
    1001: "STD_EXCEPTION",
    1002: "UNKNOWN_EXCEPTION",
}

POISON = {
    # A value does not have the form of its column's type.
    6: "CANNOT_PARSE_TEXT",
    25: "CANNOT_PARSE_ESCAPE_SEQUENCE",
    26: "CANNOT_PARSE_QUOTED_STRING",
    27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
    38: "CANNOT_PARSE_DATE",
    41: "CANNOT_PARSE_DATETIME",
    70: "CANNOT_CONVERT_TYPE",
    72: "CANNOT_PARSE_NUMBER",
    117: "INCORRECT_DATA",
    130: "CANNOT_READ_ARRAY_FROM_TEXT",
    376: "CANNOT_PARSE_UUID",
    441: "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING",
    467: "CANNOT_PARSE_BOOL",
    563: "CANNOT_READ_MAP_FROM_TEXT",
    632: "UNEXPECTED_DATA_AFTER_PARSED_VALUE",
    675: "CANNOT_PARSE_IPV4",
    676: "CANNOT_PARSE_IPV6",
    691: "UNKNOWN_ELEMENT_OF_ENUM",
    # A value is too large or too deep for its column's type.
    69: "ARGUMENT_OUT_OF_BOUND",
    128: "TOO_LARGE_ARRAY_SIZE",
    131: "TOO_LARGE_STRING_SIZE",
    306: "TOO_DEEP_RECURSION",
    321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    407: "DECIMAL_OVERFLOW",
    # A value breaks a rule of the table.
    190: "SIZES_OF_ARRAYS_DONT_MATCH",
    248: "INVALID_PARTITION_VALUE",
    349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    469: "VIOLATED_CONSTRAINT",
}

_REFUSED = Exit.CLICKHOUSE_REFUSED
_LOGIN = (Exit.CLICKHOUSE_LOGIN, "Check user and password in OUTHAUL_CLICKHOUSE_URL")
_TABLE = (Exit.CLICKHOUSE_TABLE, "Create or repair the tables with `outhaul setup`, then start the reader again")
_GRANT = (_REFUSED, "Grant this ClickHouse user what the message names, then start the reader again")
_LIMIT = (_REFUSED, "Raise the limit that the message names in the settings profile of this ClickHouse user")
_VALUE = (_REFUSED, "Remove the setting that the message names from the profile of this ClickHouse user")
_DAMAGED = (_REFUSED, "Data of this ClickHouse server is damaged; its log names the part")
# {user} and {setting} are filled in by `error_of`.
_READ_ONLY = (
    _REFUSED,
    "Let the user change {setting}, which outhaul sets for its own statement: ALTER USER {user} SETTINGS readonly = 0",
)
_CONSTRAINT = (
    _REFUSED,
    (
        "Let the user change {setting}, which outhaul sets for its own statement: take its constraint out of the "
        "profile of {user}; SELECT * FROM system.settings_profile_elements WHERE setting_name = '{setting}' finds it"
    ),
)
_PARAMETER = (
    _REFUSED,
    "A value did not arrive with its statement: let the proxy before ClickHouse pass the parameters param_* of the URL",
)

_FATAL = {
    # The tables are not as outhaul needs them.
    8: _TABLE,
    10: _TABLE,
    16: _TABLE,
    47: _TABLE,
    60: _TABLE,
    218: _TABLE,
    81: (Exit.CLICKHOUSE_TABLE, "Create the database that OUTHAUL_CLICKHOUSE_URL names, then run `outhaul setup`"),
    764: (
        Exit.CLICKHOUSE_TABLE,
        (
            "ClickHouse would not deduplicate this insert, so a batch that is sent again would be stored twice; "
            "report this with ClickHouse's version"
        ),
    ),
    # The user may not do it.
    291: _GRANT,
    392: (_REFUSED, "Set allow_ddl = 1 in the settings profile of this ClickHouse user"),
    497: _GRANT,
    164: _READ_ONLY,
    452: _CONSTRAINT,
    472: _CONSTRAINT,
    # The login is refused.
    192: _LOGIN,
    193: _LOGIN,
    194: _LOGIN,
    195: _LOGIN,
    516: _LOGIN,
    702: _LOGIN,
    720: _LOGIN,
    767: _LOGIN,
    # The profile limits statements to less than outhaul needs; the same statement would be refused again.
    62: (_REFUSED, "If the message says 'Max query size exceeded', raise max_query_size in the user's profile"),
    158: _LIMIT,
    161: _LIMIT,
    162: _LIMIT,
    165: _LIMIT,
    166: _LIMIT,
    167: _LIMIT,
    168: _LIMIT,
    191: _LIMIT,
    229: _LIMIT,
    277: _VALUE,
    307: _LIMIT,
    396: _LIMIT,
    471: _VALUE,
    584: _VALUE,
    704: _VALUE,
    719: _VALUE,
    731: _VALUE,
    # What the statement needs has not arrived, or the server does not know it.
    456: _PARAMETER,
    457: _PARAMETER,
    UNKNOWN_SETTING: (_REFUSED, "Report this with ClickHouse's version"),
    # Stored data cannot be read.
    40: _DAMAGED,
    226: _DAMAGED,
    227: _DAMAGED,
    228: _DAMAGED,
    246: _DAMAGED,
    701: (Exit.CLICKHOUSE_TABLE, "Set OUTHAUL_CLICKHOUSE_CLUSTER to a cluster of system.clusters, or remove it"),
}

# Names of settings in ClickHouse's messages.
_SETTING = re.compile(r"[Ss]etting '?`?([a-z]\w+)|'(\w+)' setting")

# Statuses of a proxy or load balancer that ends by itself, as a rule.
_WAITED_FOR = {
    408: "took too long to read the request",
    425: "does not take the request yet",
    429: "has too many requests",
    500: "failed",
    502: "does not reach ClickHouse",
    503: "has no server to send the request to",
    504: "waited too long for ClickHouse: its time limit must be longer than OUTHAUL_INSERT_TIMEOUT",
}
_REFUSED_STATUSES = {
    414: ("the URL is too long for it", "Raise its limit for URLs (nginx: large_client_header_buffers 4 64k)"),
    431: ("the headers are too long for it", "Raise its limit for headers (nginx: large_client_header_buffers 4 64k)"),
}
_BODY_LIMIT = "Raise its limit for bodies (nginx: client_max_body_size 128m)"
# The text is stored with each dead letter, logged, and sent to the reader.
_MAX_CHARACTERS = 2000
_UNKNOWN = (_REFUSED, "The slot is kept; fix what the message names, then start the reader again")


def is_thrown(error: PipelineError, text: str = "outhaul: ") -> bool:
    """Tell whether a statement of outhaul has raised this text itself; a view on the table may use throwIf, too.

    ClickHouse adds the expression that it evaluated, and this quotes the texts of all conditions of the statement.
    """
    return error.code == THROW_IF and f"DB::Exception: {text}" in error.message


def error_of(code: int | None, message: str, *, user: str = "") -> PipelineError:
    """Return the error for a ClickHouse exception; its kind depends on the code.

    Args:
        code: ClickHouse's error code; None if ClickHouse did not answer, which is transient.
        message: ClickHouse's text; only its first line is kept, without the settings of statements that it quotes,
            and only both ends of a long line, which may quote a value of megabytes.
        user: name of the ClickHouse user, for statements that help.
    """
    text = without_clauses(message).strip().split("\n", 1)[0].rstrip() or "no answer"
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[: _MAX_CHARACTERS // 2]} … {text[-_MAX_CHARACTERS // 2 :]}"
    if code is None or code in TRANSIENT:
        return TransientError(f"ClickHouse: {text}", code=code, exit_code=Exit.CLICKHOUSE_UNREACHABLE)
    if code in POISON:
        return PoisonError(f"ClickHouse: {text}", code=code)
    exit_code, todo = _FATAL.get(code, _UNKNOWN)
    if "{setting}" in todo:
        found = _SETTING.search(text)
        name = (found[1] or found[2]) if found else "the setting"
        todo = todo.format(setting=name, user=clickhouse_identifier(user) if user else "...")
    return FatalError(f"ClickHouse: {text}", code=code, todo=todo, exit_code=exit_code)


def error_of_status(status: int, address: str, *, rows_bytes: int = 0) -> PipelineError:
    """Return the error for an HTTP answer without an error code of ClickHouse: a proxy before it has answered.

    Args:
        status: the HTTP status.
        address: host, port and database, for the message.
        rows_bytes: size of the rows that were sent; 0 for a statement without rows, which cannot be divided.
    """
    said = f"ClickHouse: a proxy at {address} answers HTTP {status}{_phrase(status)}"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        if rows_bytes:
            return TooLargeError(f"{said}: {rows_bytes:,} bytes of rows are too many for it", todo=_BODY_LIMIT)
        return FatalError(f"{said}: the statement is too long for it", todo=_BODY_LIMIT, exit_code=_REFUSED)
    if status in _REFUSED_STATUSES:
        why, todo = _REFUSED_STATUSES[status]
        return FatalError(f"{said}: {why}", todo=todo, exit_code=_REFUSED)
    if status in _WAITED_FOR or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        why = _WAITED_FOR.get(status, "failed")
        return TransientError(f"{said}: it {why}", exit_code=Exit.CLICKHOUSE_UNREACHABLE)
    return FatalError(said, todo="Check that OUTHAUL_CLICKHOUSE_URL leads to ClickHouse", exit_code=_REFUSED)


def _phrase(status: int) -> str:
    return f" ({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""
