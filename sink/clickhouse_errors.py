"""ClickHouse error code -> the kind of error, and what the operator can do.

Pure. Three tables classify the codes. A code in no table is fatal: a batch with an unknown error must not be skipped.

Source: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
"""

from __future__ import annotations

from outhaul.sink.errors import Exit, FatalError, PipelineError, PoisonError, TransientError

# FUNCTION_THROW_IF_VALUE_IS_NON_ZERO. Only outhaul's own statements use throwIf; their texts are in sql/clickhouse.
THROW_IF = 395
ACCESS_DENIED = 497
UNKNOWN_TABLE = 60

TRANSIENT = {
    3: "UNEXPECTED_END_OF_FILE",
    23: "CANNOT_READ_FROM_ISTREAM",
    32: "ATTEMPT_TO_READ_AFTER_EOF",
    95: "CANNOT_READ_FROM_SOCKET",
    96: "CANNOT_WRITE_TO_SOCKET",
    159: "TIMEOUT_EXCEEDED",
    160: "TOO_SLOW",
    173: "CANNOT_ALLOCATE_MEMORY",
    198: "DNS_ERROR",
    201: "QUOTA_EXCEEDED",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    203: "NO_FREE_CONNECTION",
    204: "CANNOT_FSYNC",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    216: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    225: "NO_ZOOKEEPER",
    236: "ABORTED",
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    243: "NOT_ENOUGH_SPACE",
    244: "UNEXPECTED_ZOOKEEPER_ERROR",
    252: "TOO_MANY_PARTS",
    254: "NO_ACTIVE_REPLICAS",
    265: "NO_AVAILABLE_REPLICA",
    279: "ALL_CONNECTION_TRIES_FAILED",
    285: "TOO_FEW_LIVE_REPLICAS",
    286: "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    289: "REPLICA_IS_NOT_IN_QUORUM",
    290: "LIMIT_EXCEEDED",
    319: "UNKNOWN_STATUS_OF_INSERT",
    364: "RECEIVED_ERROR_TOO_MANY_REQUESTS",
    394: "QUERY_WAS_CANCELLED",
    415: "ALL_REPLICAS_LOST",
    416: "REPLICA_STATUS_CHANGED",
    425: "SYSTEM_ERROR",
    439: "CANNOT_SCHEDULE_TASK",
    473: "DEADLOCK_AVOIDED",
    499: "S3_ERROR",
    500: "AZURE_BLOB_STORAGE_ERROR",
    571: "DATABASE_REPLICATION_FAILED",
    574: "DISTRIBUTED_TOO_MANY_PENDING_BYTES",
    659: "UNKNOWN_STATUS_OF_TRANSACTION",
    677: "THREAD_WAS_CANCELED",
    692: "TOO_MANY_MUTATIONS",
    693: "AWS_ERROR",
    695: "ASYNC_LOAD_FAILED",
    696: "ASYNC_LOAD_CANCELED",
    722: "ASYNC_LOAD_WAIT_FAILED",
    733: "TABLE_IS_BEING_RESTARTED",
    735: "QUERY_WAS_CANCELLED_BY_CLIENT",
    745: "SERVER_OVERLOADED",
    749: "TCP_CONNECTION_LIMIT_REACHED",
    762: "HTTP_CONNECTION_LIMIT_REACHED",
    999: "KEEPER_EXCEPTION",
}

POISON = {
    6: "CANNOT_PARSE_TEXT",
    25: "CANNOT_PARSE_ESCAPE_SEQUENCE",
    26: "CANNOT_PARSE_QUOTED_STRING",
    27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
    38: "CANNOT_PARSE_DATE",
    41: "CANNOT_PARSE_DATETIME",
    69: "ARGUMENT_OUT_OF_BOUND",
    70: "CANNOT_CONVERT_TYPE",
    72: "CANNOT_PARSE_NUMBER",
    117: "INCORRECT_DATA",
    130: "CANNOT_READ_ARRAY_FROM_TEXT",
    131: "TOO_LARGE_STRING_SIZE",
    321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    376: "CANNOT_PARSE_UUID",
    407: "DECIMAL_OVERFLOW",
    441: "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING",
    467: "CANNOT_PARSE_BOOL",
    469: "VIOLATED_CONSTRAINT",
    632: "UNEXPECTED_DATA_AFTER_PARSED_VALUE",
    675: "CANNOT_PARSE_IPV4",
    676: "CANNOT_PARSE_IPV6",
    691: "UNKNOWN_ELEMENT_OF_ENUM",
}

_LOGIN = (Exit.CLICKHOUSE_LOGIN, "Check user and password in OUTHAUL_CLICKHOUSE_URL")
_TABLE = (Exit.CLICKHOUSE_TABLE, "Create or repair the tables with `outhaul setup`, then start the reader again")
_GRANT = (Exit.CLICKHOUSE_REFUSED, "Grant this ClickHouse user what the message names, then start the reader again")

_FATAL = {
    16: _TABLE,
    47: _TABLE,
    60: _TABLE,
    81: (Exit.CLICKHOUSE_TABLE, "Create the database that OUTHAUL_CLICKHOUSE_URL names, then run `outhaul setup`"),
    164: _GRANT,
    192: _LOGIN,
    193: _LOGIN,
    194: _LOGIN,
    497: _GRANT,
    516: _LOGIN,
}
# The text is stored with each dead letter, logged, and sent to the reader.
_MAX_CHARACTERS = 2000
_UNKNOWN = (Exit.CLICKHOUSE_REFUSED, "The slot is kept; fix what the message names, then start the reader again")


def is_thrown(error: PipelineError, text: str = "outhaul: ") -> bool:
    """Tell whether a statement of outhaul has raised this text itself; a view on the table may use throwIf, too."""
    return error.code == THROW_IF and text in error.message


def error_of(code: int | None, message: str) -> PipelineError:
    """Return the error for a ClickHouse exception; its kind depends on the code.

    Args:
        code: ClickHouse's error code; None if ClickHouse did not answer, which is transient.
        message: ClickHouse's text; only its first line is kept, and only both ends of a long line, which may quote a
            value of megabytes.
    """
    text = message.strip().split("\n", 1)[0].rstrip() or "no answer"
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[: _MAX_CHARACTERS // 2]} … {text[-_MAX_CHARACTERS // 2 :]}"
    if code is None or code in TRANSIENT:
        return TransientError(f"ClickHouse: {text}", code=code, exit_code=Exit.CLICKHOUSE_UNREACHABLE)
    if code in POISON:
        return PoisonError(f"ClickHouse: {text}", code=code)
    exit_code, todo = _FATAL.get(code, _UNKNOWN)
    return FatalError(f"ClickHouse: {text}", code=code, todo=todo, exit_code=exit_code)
