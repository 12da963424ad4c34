"""Payload with a column `traceparent` -> the traces of the apps that wrote its events, at most `MOST`.

Pure. An app writes the W3C header of its own trace beside the event. Only traces that the app has sampled get a link.
Malformed headers are ignored.

Source: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

COLUMN = "traceparent"
MOST = 10

# Version 00 with the sampled flag. `producers_of` also drops ids that consist of zeros only: they are invalid.
_SAMPLED = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]$"
_MAX_CHECKED = 1000


@dataclass(frozen=True, slots=True)
class Producer:
    """Ids of an app's trace, and of the span in it that wrote the event; both in hex."""

    trace_id: str
    span_id: str


def producers_of(payload: bytes) -> list[Producer]:
    """Return the sampled traces that a payload names, each once, at most `MOST`; only one column is unpacked.

    Raises:
        pyarrow.ArrowException: the payload is not an Arrow stream.
    """
    schema = pa.ipc.open_stream(payload).schema
    index = schema.get_field_index(COLUMN)
    if index < 0 or not _is_text(schema.field(index).type):
        return []
    options = pa.ipc.IpcReadOptions(included_fields=[index])
    column = pa.ipc.open_stream(payload, options=options).read_all().column(COLUMN).cast(pa.binary())
    sampled = pc.unique(column.filter(pc.match_substring_regex(column, _SAMPLED)))[:_MAX_CHECKED]
    found: dict[str, Producer] = {}
    for text in sampled.to_pylist():
        _, trace_id, span_id, _ = text.decode().split("-")
        if int(trace_id, 16) and int(span_id, 16):
            found.setdefault(trace_id, Producer(trace_id, span_id))
        if len(found) == MOST:
            break
    return list(found.values())


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_string, pa.types.is_string_view))
