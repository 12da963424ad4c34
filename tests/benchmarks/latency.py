"""Events at a steady rate, a transaction each -> how long after its commit each one is seen by a SELECT.

Edge: pgbench writes, ClickHouse is asked all the time. pgbench logs when each COMMIT returned; an event is visible when
the answer to a SELECT holds it, so what is reported is an upper bound by the time between two answers. All clocks are
this machine's.

Source: https://www.postgresql.org/docs/current/pgbench.html
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlencode, urlsplit

import numpy as np

from tests.benchmarks.process_cost import look
from tests.benchmarks.stack_with_backlog import program

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from outhaul.deploy.demo.pipeline import Pipeline
    from tests.benchmarks.stack_with_backlog import Bed

_SCRIPT = """\\set n :n + 1
INSERT INTO outbox (event_type, environment, event_context)
VALUES ('live_{label}', 'bench', jsonb_build_object('client', :client_id::int, 'n', :n::int, 'text', repeat('x', 150)));
"""
# A session commits some hundred times a second, since each commit waits for the disk.
_EVENTS_A_CLIENT = 100
_MAX_CLIENTS = 64
_IDLE_BYTES = 10_000
_IDLE_S = 60.0
_VISIBLE_S = 60.0
# A question every so often, in seconds; each costs the engine some milliseconds, which are missed elsewhere. Where
# something new was seen just now, the next batch is not asked for at once.
_ASK_S = 0.004
_PAUSE_S = 0.16
_COUNT = "SELECT count() FROM event_log FORMAT JSONCompact"


@dataclass(frozen=True, slots=True)
class Live:
    """One rate: milliseconds from commit to visible, events really written a second, parts and costs meanwhile."""

    events_per_s: int
    written_per_s: float
    synchronous_commit: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    stored_p50_ms: float
    stored_p99_ms: float
    new_parts_per_s: float
    cpu_s_per_s: dict[str, float]


def live(bed: Bed, pipeline: Pipeline, rate: int, seconds: float, *, synchronous_commit: bool = True) -> Live:
    """Write `rate` events a second for some seconds through a pipeline that is running, and time each one.

    Raises:
        TimeoutError: not all of them became visible.
    """
    label = f"{rate}_{'on' if synchronous_commit else 'off'}"
    bed.wait(lambda: _is_idle(bed), "the pipeline is idle", within_s=_IDLE_S)
    roots = bed.roots() | pipeline.pids("worker") | {"reader": pipeline.pid("reader")}
    before, watch = look(roots), _Watch(bed.settings.clickhouse_url.get_secret_value(), bed.stored())
    with _pgbench(bed, label, rate, seconds, synchronous_commit=synchronous_commit) as writing:
        while writing.poll() is None:
            time.sleep(_PAUSE_S if watch.ask() else _ASK_S)
    if writing.returncode:
        raise RuntimeError(f"pgbench failed: {(bed.folder / 'pgbench.err').read_text()[-500:]}")
    committed = _committed(bed.folder)
    bed.wait(lambda: watch.sees(len(committed)), "all events are visible", within_s=_VISIBLE_S)
    after = look(roots)
    took_ms, stored_ms, parts_per_s = _times(bed, label, watch.answers, committed)
    return Live(
        events_per_s=rate,
        written_per_s=round(len(committed) / seconds, 1),
        synchronous_commit="on" if synchronous_commit else "off",
        p50_ms=_percentile(took_ms, 50),
        p95_ms=_percentile(took_ms, 95),
        p99_ms=_percentile(took_ms, 99),
        max_ms=_percentile(took_ms, 100),
        stored_p50_ms=_percentile(stored_ms, 50),
        stored_p99_ms=_percentile(stored_ms, 99),
        new_parts_per_s=parts_per_s,
        cpu_s_per_s={name: round(cpu_s / seconds, 3) for name, cpu_s in after.since(before).items()},
    )


def _pgbench(bed: Bed, label: str, rate: int, seconds: float, *, synchronous_commit: bool) -> subprocess.Popen[bytes]:
    for log in bed.folder.glob("live.*"):
        log.unlink()
    script = bed.folder / "event.sql"
    script.write_text(_SCRIPT.format(label=label), encoding="utf-8")
    clients = min(max(1, rate // _EVENTS_A_CLIENT), _MAX_CLIENTS)
    command = [
        str(program("pgbench")),
        "--no-vacuum",
        "--file",
        str(script),
        "--define",
        "n=0",
        "--protocol",
        "prepared",
    ]
    command += ["--client", str(clients), "--rate", str(rate), "--time", str(round(seconds))]
    command += ["--log", "--log-prefix", str(bed.folder / "live"), bed.dsn]
    commit = "on" if synchronous_commit else "off"
    with (bed.folder / "pgbench.err").open("wb") as errors:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env={"PGOPTIONS": f"-c synchronous_commit={commit}"}
        )


def _committed(folder: Path) -> dict[tuple[int, int], float]:
    """Return when each COMMIT returned, by client and number of the event."""
    found: dict[tuple[int, int], float] = {}
    for log in folder.glob("live.*"):
        for line in log.read_text(encoding="utf-8").splitlines():
            client, number, _, _, at_s, at_us, *_ = map(int, line.split())
            found[client, number] = at_s + at_us / 1e6
    return found


class _Watch:
    """Asks how many rows there are, over and over on one connection, without a driver's work around it."""

    def __init__(self, url: str, before: int) -> None:
        parts = urlsplit(url)
        self._before = before
        self.answers: list[tuple[float, int]] = [(time.time(), 0)]
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_VISIBLE_S)
        login = base64.b64encode(unquote(f"{parts.username}:{parts.password}").encode()).decode()
        self._headers = {"Authorization": f"Basic {login}"}
        self._path = "/?" + urlencode({"database": parts.path.strip("/"), "query": _COUNT})

    def ask(self) -> bool:
        """Ask, and note when the answer was there; tell whether it counts more rows than the one before."""
        self._connection.request("GET", self._path, headers=self._headers)
        count = int(json.loads(self._connection.getresponse().read())["data"][0][0]) - self._before
        self.answers.append((time.time(), count))
        return count > self.answers[-2][1]

    def sees(self, count: int) -> bool:
        """Query, and return whether the table has at least `count` rows."""
        self.ask()
        return self.answers[-1][1] >= count


def _times(
    bed: Bed, label: str, seen: list[tuple[float, int]], committed: dict[tuple[int, int], float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Return for each event the milliseconds from its commit until it was seen, and until its insert ran; and parts/s.

    An insert becomes visible as a whole, and all of its rows carry the time at which it ran. So a row is seen with the
    first answer that counts all rows up to the end of its insert.
    """
    rows = bed.clickhouse.rows(
        "SELECT JSONExtractInt(event_context, 'client'), JSONExtractInt(event_context, 'n'), "
        "toUnixTimestamp64Micro(cdc_ingested_at) FROM event_log WHERE event_type = {label:String}",
        parameters={"label": f"live_{label}"},
    )
    commit_s = np.array([committed[int(client), int(number)] for client, number, _ in rows])
    ran_s, insert, sizes = np.unique(
        [int(at_us) / 1e6 for _, _, at_us in rows], return_inverse=True, return_counts=True
    )
    answers = np.array(seen)
    seen_s = answers[np.searchsorted(answers[:, 1], np.cumsum(sizes)), 0]
    # An insert makes one part, since all rows are of one month.
    parts_per_s = round((len(sizes) - 1) / float(ran_s[-1] - ran_s[0]), 2)
    return (seen_s[insert] - commit_s) * 1000, (ran_s[insert] - commit_s) * 1000, parts_per_s


def _is_idle(bed: Bed) -> bool:
    query = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn < %s FROM pg_replication_slots WHERE slot_name = %s"
    return bool(bed.value(query, _IDLE_BYTES, bed.settings.slot))


def _percentile(values: npt.NDArray[np.float64], q: float) -> float:
    return round(float(np.percentile(values, q)), 1)
