"""Errors, formats and counters of the engine -> the status, error text, content type and summary of a server's answer.

Pure.

Source: https://clickhouse.com/docs/interfaces/http and ClickHouse's table from exception code to HTTP status
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS: dict[int, int] = {
    **dict.fromkeys(
        (192, 193, 497, 512, 516), 403
    ),  # UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED, roles, AUTHENTICATION_FAILED
    **dict.fromkeys((6, 7, 8, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 168, 321, 376, 427, 467, 675, 676), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 155, 336, 511), 404),  # UNKNOWN_<table, function, ...>
    48: 501,  # NOT_IMPLEMENTED
    76: 503,  # CANNOT_OPEN_FILE
    159: 408,  # TIMEOUT_EXCEEDED
    194: 401,  # REQUIRED_PASSWORD
    209: 503,  # SOCKET_TIMEOUT
    229: 413,  # QUERY_IS_TOO_LARGE
    381: 411,  # HTTP_LENGTH_REQUIRED
    439: 503,  # CANNOT_SCHEDULE_TASK
}

_CONTENT_TYPES = {
    "json": "application/json; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "jsoncompacteachrow": "application/x-ndjson; charset=UTF-8",
}
_BINARY = (
    "native",
    "rowbinary",
    "arrow",
    "parquet",
    "orc",
    "avro",
    "protobuf",
    "msgpack",
    "npy",
    "rawblob",
    "bson",
    "capnproto",
)

# Formats without a header or footer. Only these can be sent piece by piece, since each piece is a complete result.
_STREAMABLE = {
    "native",
    "tabseparated",
    "tsv",
    "csv",
    "jsoneachrow",
    "jsoncompacteachrow",
    "rowbinary",
    "values",
    "tskv",
    "lineasstring",
}

_CODE = re.compile(r"\ACode: (\d+)\. DB::Exception: ")
_VERSION = re.compile(r" \(version [0-9.]+(?: \(official build\))?\)\.?")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a query read and wrote, as the engine counted it."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    total_rows_to_read: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0

    @classmethod
    def of(cls, progress: Mapping[str, int]) -> Summary:
        """Make a summary of the counters that the engine reported last."""
        return cls(**{field.name: progress.get(field.name, 0) for field in fields(cls)})

    def header(self) -> str:
        """Return the value of X-ClickHouse-Summary: JSON, with its numbers as strings."""
        return json.dumps({field.name: str(getattr(self, field.name)) for field in fields(self)}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception's code, and its text in a server's answer."""

    code: int
    text: str

    @property
    def status(self) -> int:
        """The HTTP status for the code."""
        return _STATUS.get(self.code, 500)


def failure(message: str, version: str) -> Failure:
    """Parse the engine's message. The engine may wrap an error into a copy of itself; this unwraps it."""
    message = message.strip()
    found = _CODE.match(message)
    code = int(found.group(1)) if found else 1000
    if found is None:
        return Failure(code, f"Code: {code}. DB::Exception: {message} (version {version} (official build))")
    while (inner := _CODE.match(message[found.end() :])) and inner.group(1) == found.group(1):
        # `Code: 73. DB::Exception: Code: 73. DB::Exception: text (NAME) (version x). (NAME)`
        message = message[found.end() :]
        message = message[: message.rfind(" (")].strip()
        message = _VERSION.sub("", message)
    return Failure(code, f"{message.removesuffix('.')} (version {version} (official build))")


def content_type(name: str) -> str:
    """Return the media type of an output format."""
    key = name.lower()
    if key.startswith(_BINARY):
        return "application/octet-stream"
    if key.startswith("json") and key not in _CONTENT_TYPES:
        return _CONTENT_TYPES["json"]
    return _CONTENT_TYPES.get(key, "text/plain; charset=UTF-8")


def is_streamable(name: str) -> bool:
    """Return whether a result in this format can be sent in the engine's pieces."""
    return name.lower() in _STREAMABLE
