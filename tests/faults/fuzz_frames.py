"""Valid streams -> damaged streams, by the million: the decoder raises a PipelineError, or decodes them.

    python -m tests.faults.fuzz_frames --cases 1000000 --seed 1

Seeded, so that a finding comes back: `--seed N --only I` runs case I alone and shows its traceback. A case that takes
longer than HANG_S ends the run, and so does any exception that is not a PipelineError.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import struct
import sys
import time
import traceback
from array import array
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.capture.assemble import Assembly
from outhaul.cdc_reader.capture.column_types import ELEMENTS, Oid
from outhaul.cdc_reader.capture.decode import Decoder
from outhaul.cdc_reader.capture.frame import Run, server_status
from outhaul.cdc_reader.capture.pg_text import printed
from outhaul.cdc_reader.capture.pgoutput_messages import Column
from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED
from outhaul.sink.errors import PipelineError
from tests.unit import pgoutput_frames as pg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from outhaul.cdc_reader.capture.pgoutput_messages import Relation

HANG_S = 30
# Packing a batch costs more than all before it, and there is less in it to go wrong.
_PACKED_EVERY = 16
# The reader looks at many frames at once, and so does the fuzzer: what is damaged has sound neighbours.
_A_READ = 5
_INTERESTING = (0, 1, 2, 7, 8, 16, 18, 24, 25, 26, 32, 63, 64, 98, 107, 110, 116, 117, 119, 127, 128, 254, 255)
_NUMBERS = (0, 1, -1, 2**15 - 1, -(2**15), 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**31 - 64, 10**9)
_TEXT_VALUES = {
    Oid.BOOL: b"t",
    Oid.BYTEA: b"\\x00ff",
    Oid.CHAR: b"c",
    Oid.NAME: b"name",
    Oid.INT8: b"-9223372036854775808",
    Oid.INT2: b"7",
    Oid.INT4: b"-70000",
    Oid.TEXT: "Zoë".encode(),
    Oid.OID: b"4294967295",
    Oid.JSON: b'{"a": "\\u0000"}',
    Oid.FLOAT4: b"1.5e+20",
    Oid.FLOAT8: b"-Infinity",
    Oid.BPCHAR: b"x   ",
    Oid.VARCHAR: b"order.placed",
    Oid.DATE: b"0044-03-15 BC",
    Oid.TIMESTAMP: b"2026-01-01 00:00:00.000001",
    Oid.TIMESTAMPTZ: b"12000-01-01 00:00:00+00",
    Oid.UUID: b"7b2a1c1e-0000-4000-8000-00000000000a",
    Oid.JSONB: b'{"a": 1}',
}
_BINARY_VALUES: dict[Oid, Any] = {
    Oid.BOOL: True,
    Oid.BYTEA: b"\x00\xff",
    Oid.CHAR: b"c",
    Oid.NAME: b"name",
    Oid.INT8: -(2**63),
    Oid.INT2: 7,
    Oid.INT4: -70_000,
    Oid.TEXT: "Zoë".encode(),
    Oid.OID: 2**32 - 1,
    Oid.JSON: b'{"a": "\\u0000"}',
    Oid.FLOAT4: 1.5e20,
    Oid.FLOAT8: float("-inf"),
    Oid.BPCHAR: b"x   ",
    Oid.VARCHAR: b"order.placed",
    Oid.DATE: -2_451_545,
    Oid.TIMESTAMP: 1,
    Oid.TIMESTAMPTZ: 2**63 - 1,
    Oid.UUID: "7b2a1c1e-0000-4000-8000-00000000000a",
    Oid.JSONB: b'{"a": 1}',
    Oid.NUMERIC: "-12345.60",
    Oid.TIME: 86_400_000_000,
    Oid.TIMETZ: (1, -19_800),
    Oid.INTERVAL: (-1_500_000, 3, 14),
    Oid.INET: "2001:db8::1/64",
    Oid.CIDR: "10.0.0.0/8",
    Oid.MACADDR: bytes(6),
    Oid.MACADDR8: bytes(8),
    Oid.BIT: "0101010101",
    Oid.VARBIT: "1",
}
_BINARY_VALUES |= {
    oid: pg.array(element, [None, pg.binary(element, _BINARY_VALUES[element])], (2, 1))
    for oid, element in ELEMENTS.items()
}
_TEXT_VALUES |= {
    oid: printed(pg.binary(oid, value), oid) for oid, value in _BINARY_VALUES.items() if oid not in _TEXT_VALUES
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Frames that decode; the pieces end after these numbers of frames."""

    name: str
    frames: tuple[bytes, ...]
    cuts: tuple[int, ...] = ()


@dataclass(slots=True)
class Findings:
    """What became of the cases."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_case: int = -1
    failure: str = ""


def streams() -> list[Stream]:
    """Return streams that between them have every message, type and form."""
    rare = [
        pg.data(b"O" + struct.pack(">Q", 5) + pg.name("origin")),
        pg.data(b"Y" + struct.pack(">I", 9) + pg.name("public") + pg.name("mood")),
        pg.data(b"M" + struct.pack(">bQ", 1, 3) + pg.name("prefix") + struct.pack(">i", 4) + b"body"),
        pg.data(b"U" + struct.pack(">I", pg.EVENTS.oid) + b"K" + pg.row([b"1"]) + b"N" + pg.row([b"1", None, b"xyz"])),
        pg.data(b"D" + struct.pack(">I", pg.EVENTS.oid) + b"O" + pg.row([b"1", None])),
        pg.data(b"T" + struct.pack(">ib", 2, 0) + struct.pack(">II", 1, 2)),
    ]
    small = (pg.relation(), pg.begin(90), pg.event(1), pg.event(2), pg.commit(90), pg.keepalive(200))
    long = (
        pg.relation(),
        *(frame for n in range(4) for frame in (pg.begin(100 + 10 * n), pg.event(n), pg.commit(100 + 10 * n))),
        pg.keepalive(150, reply_requested=True),
        pg.begin(160),
        pg.event(7, context=b'{"long": "' + b"x" * 3000 + b'"}'),
        pg.event(8, at_us=2**63 - 1),
        pg.insert([9, None, None, b"production", b"null", None, None]),
        pg.commit(160),
    )
    mixed = (pg.relation(), pg.begin(90), pg.event(1), *rare, pg.relation(_wider(pg.EVENTS)), pg.commit(90))
    event = {
        "event_type": "told",
        "environment": "test",
        "event_date_time": "2026-01-01T00:00:00Z",
        "event_context": {},
    }
    told = (
        pg.relation(),
        pg.begin(90),
        pg.emitted(event, lsn=16),
        pg.event(1),
        pg.emitted(event | {"traceparent": "00-1-2-01"}, lsn=24),
        pg.emitted(b"no event", lsn=32),
        pg.commit(90),
        pg.emitted(event, transactional=False),
    )
    return [
        Stream("small", small),
        Stream("small in pieces", small, cuts=(1, 2, 3, 5)),
        *(_typed("every type", pg.everything(), binary=binary) for binary in (True, False)),
        Stream("long", long),
        Stream("long in pieces", long, cuts=(3, 6, 14, 16)),
        Stream("rare messages", mixed),
        Stream("emitted events", told, cuts=(3, 5)),
        # Narrow rows are quick, and most of their bytes are of the one type.
        *(_typed(oid.name.lower(), _one_type(oid), binary=binary) for oid in Oid for binary in (True, False)),
    ]


def _one_type(oid: Oid) -> Relation:
    return replace(pg.EVENTS, columns=(pg.EVENTS.columns[0], Column("value", oid)))


def _typed(name: str, relation: Relation, *, binary: bool) -> Stream:
    frames = (pg.begin(90), pg.relation(relation), *_typed_rows(relation, binary=binary), pg.commit(90))
    return Stream(f"{name}, {'binary' if binary else 'text'}", frames)


def _typed_rows(relation: Relation, *, binary: bool) -> list[bytes]:
    if binary:
        full = [pg.binary(column.type_oid, _BINARY_VALUES[Oid(column.type_oid)]) for column in relation.columns]
    else:
        full = [_TEXT_VALUES[Oid(column.type_oid)] for column in relation.columns]
    kind = b"b" if binary else b"t"
    return [
        pg.raw_insert(full, relation.oid, kind),
        pg.raw_insert([None] * len(full), relation.oid, kind),
        pg.raw_insert([one if n % 2 else None for n, one in enumerate(full)], relation.oid, kind),
    ]


def _wider(relation: Relation) -> Relation:
    column = replace(relation.columns[0], name="more", type_oid=Oid.TEXT)
    return replace(relation, columns=(*relation.columns, column))


def _flip(frame: bytearray, random: Random) -> None:
    frame[random.randrange(len(frame))] ^= 1 << random.randrange(8)


def _overwrite(frame: bytearray, random: Random) -> None:
    frame[random.randrange(len(frame))] = random.choice(_INTERESTING)


def _number(frame: bytearray, random: Random) -> None:
    form = random.choice((">h", ">i", ">q"))
    width = struct.calcsize(form)
    at = random.randrange(max(1, len(frame) - width + 1))
    bits = 8 * width
    value = random.choice(_NUMBERS) % (1 << bits)
    frame[at : at + width] = struct.pack(form, value - (1 << bits) if value >> (bits - 1) else value)


def _cut(frame: bytearray, random: Random) -> None:
    del frame[random.randrange(len(frame)) :]


def _pad(frame: bytearray, random: Random) -> None:
    frame += random.randbytes(random.choice((1, 2, 4, 16, 300)))


def _drop(frame: bytearray, random: Random) -> None:
    at = random.randrange(len(frame))
    del frame[at : at + random.choice((1, 2, 4, 8))]


def _insert(frame: bytearray, random: Random) -> None:
    at = random.randrange(len(frame) + 1)
    frame[at:at] = random.randbytes(random.choice((1, 2, 4, 8)))


def _noise(frame: bytearray, random: Random) -> None:
    at = random.randrange(len(frame))
    end = min(len(frame), at + random.choice((2, 4, 8, 32)))
    frame[at:end] = random.randbytes(end - at)


def _repeat(frame: bytearray, random: Random) -> None:
    at = random.randrange(len(frame))
    frame[at:at] = frame[at : at + random.choice((1, 5, 20))]


_IN_A_FRAME: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip, _flip, _flip, _overwrite, _overwrite, _number, _number, _cut, _pad, _drop, _insert, _noise, _repeat
)  # fmt: skip


def damage(stream: Stream, random: Random) -> list[bytes]:
    """Return the frames of a stream with one to four things wrong, in them or in their order."""
    frames = [bytearray(frame) for frame in stream.frames]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(frames))
        match random.randrange(24):
            case 0:
                del frames[at]
                frames = frames or [bytearray(b"k")]
            case 1:
                frames.insert(random.randrange(len(frames)), bytearray(frames[at]))
            case 2:
                other = random.randrange(len(frames))
                frames[at], frames[other] = frames[other], frames[at]
            case 3:
                frames[at] = bytearray(random.randbytes(random.choice((0, 1, 17, 18, 25, 26, 60))))
            case 4 if at + 1 < len(frames):
                frames[at] += frames.pop(at + 1)
            case _ if frames[at]:
                random.choice(_IN_A_FRAME)(frames[at], random)
    return [bytes(frame) for frame in frames]


def pieces(frames: Sequence[bytes], cuts: Sequence[int]) -> list[Sequence[bytes]]:
    """Cut frames into pieces; cuts behind the last frame are ignored."""
    ends = [*(cut for cut in cuts if cut < len(frames)), len(frames)]
    return [frames[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def feed(frames: Sequence[bytes], cuts: Sequence[int], *, joined: bool, packed: bool) -> int:
    """Take frames from the socket's thread through the decoder, and into batches if `packed`; return how many rows.

    Raises:
        PipelineError: they are not what the protocol says.
    """
    for at in range(0, len(frames), _A_READ):
        some = frames[at : at + _A_READ]
        server_status(Run(bytearray(b"".join(some)), array("q", map(len, some))))
    decoder = Decoder(pg.TABLES, messages={"outhaul": "event_log"})
    assembly = Assembly(
        NOTHING_STORED, source="outhaul", events_table="event_log", dead_letters="event_log_dead_letters"
    )
    rows = 0
    for piece in pieces(frames, cuts):
        decoded = (
            decoder.decode([bytearray(b"".join(piece))], [len(one) for one in piece])
            if joined
            else decoder.decode(piece)
        )
        for segment in decoded.segments:
            rows += len(segment)
            if packed:
                assembly.add(segment)
    assembly.finish()
    return rows


def case(number: int, seed: int, known: Sequence[Stream]) -> tuple[Stream, list[bytes], bool]:
    """Return case `number` of a seed: a stream, its damaged frames, and whether they come joined."""
    random = Random(seed * 1_000_000_007 + number)
    stream = random.choice(known)
    return stream, damage(stream, random), random.random() < 0.5


def run(cases: int, seed: int, *, first: int = 0, seconds: float = float("inf")) -> Findings:
    """Run `cases` cases, or as many as fit into `seconds`; stop at the first that fails."""
    found = Findings()
    known = streams()
    for stream in known:
        feed(stream.frames, stream.cuts, joined=False, packed=True)

    def hang(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"a case takes longer than {HANG_S} s")

    # A test's own time limit may be running on the same timer.
    left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    before = signal.signal(signal.SIGALRM, hang)
    started = time.monotonic()
    try:
        for number in range(first, first + cases):
            stream, frames, joined = case(number, seed, known)
            signal.alarm(HANG_S)
            began = time.monotonic()
            try:
                packed = number % _PACKED_EVERY == 0
                rows = feed(frames, stream.cuts, joined=joined, packed=packed)
                outcome = f"decoded, {'with rows' if rows else 'no rows'}"
            except PipelineError as error:
                outcome = type(error).__name__
            except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
                found.failure = f"case {number} of seed {seed} ({stream.name}):\n{traceback.format_exc()}"
                break
            ended = time.monotonic()
            found.cases += 1
            found.outcomes[outcome] += 1
            if ended - began > found.slowest_s:
                found.slowest_s, found.slowest_case = ended - began, number
            if ended - started > seconds:
                break
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left_s)
    return found


def peak_mb() -> float:
    """Return this process' peak resident memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> int:
    """Run from the command line; return 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this one case")
    given = parser.parse_args()
    first, cases = (0, given.cases) if given.only is None else (given.only, 1)
    warm = run(min(cases, 2000), given.seed, first=first)
    before_mb = peak_mb()
    started = time.monotonic()
    found = warm if warm.failure else run(cases, given.seed, first=first)
    print(
        json.dumps(
            {
                "seed": given.seed,
                "cases": found.cases,
                "seconds": round(time.monotonic() - started, 1),
                "outcomes": dict(found.outcomes.most_common()),
                "slowest_ms": round(found.slowest_s * 1000, 1),
                "slowest_case": found.slowest_case,
                "peak_rss_mb": round(peak_mb(), 1),
                "peak_rss_mb_after_the_first_2000": round(before_mb, 1),
            }
        )
    )
    print(found.failure, end="", file=sys.stderr)
    return 1 if found.failure else 0


if __name__ == "__main__":
    sys.exit(main())
