# ruff: noqa: PLC0415 - only what is to be broken is imported
"""Takes one of the nets away in every process that has this folder on its path, as OUTHAUL_TEST_BROKEN says.

Python imports a module of this name at its start; see test_broken.py.
"""

import os
import sys
from pathlib import Path
from secrets import token_hex

SECONDS_A_ROW = 0.02

sys.path.insert(0, str(Path(__file__).parents[3]))


def without_token() -> None:
    """Every insert has a token of its own."""
    from outhaul.sink import insert

    real = insert.settings
    vars(insert)["settings"] = lambda *arguments: real(*arguments) | {"insert_deduplication_token": token_hex(8)}


def without_fence() -> None:
    """No insert asks who the newest reader is."""
    from outhaul.sink import sql

    real = sql._template

    def template(path: str) -> str:
        return "1" if path.endswith("fence.sql") else real(path)

    vars(sql)["_template"] = template


def without_question() -> None:
    """Nobody asks ClickHouse which positions it holds: neither recovery, once, nor every insert."""
    from outhaul.cdc_reader.capture.stored_positions import NOTHING_STORED
    from outhaul.cdc_reader.session import recovery
    from outhaul.sink import insert

    real = vars(insert)["query"]
    vars(recovery)["ask_stored_positions"] = lambda *_: NOTHING_STORED
    vars(insert)["query"] = lambda name, **values: "" if name == "refuse_stored" else real(name, **values)


def slowly() -> None:
    """Every insert takes its time after it has asked, so that two of them can be made to overlap."""
    from outhaul.sink import insert

    real = vars(insert)["query"]
    sleep = f"AND sleepEachRow({SECONDS_A_ROW}) = 0\n"
    vars(insert)["query"] = lambda name, **values: real(name, **values).replace("ORDER BY", sleep + "ORDER BY")


def collectors() -> None:
    """The exporter's figures of ClickHouse and its audit raise what nobody foresaw."""
    from outhaul.cdc_reader.operate.exporter.audit import Audit
    from outhaul.cdc_reader.operate.exporter.clickhouse_metrics import ClickHouseMetrics

    def collect(_self: object) -> list[object]:
        raise ZeroDivisionError("nobody foresaw this figure")

    type.__setattr__(ClickHouseMetrics, "collect", collect)
    type.__setattr__(Audit, "run_pass", collect)


def imports() -> None:
    """A module of the worker, which the watchdog does not need, cannot be imported."""
    vars(sys)["modules"]["outhaul.sink.letters.retry_task"] = None


def pulse() -> None:
    """The thread that shows that a task runs raises what nobody foresaw."""
    from outhaul.sink.process import heartbeat

    def renew(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw this pulse")

    vars(heartbeat)["_renew"] = renew


def flower() -> None:
    """A page of Flower raises what nobody foresaw."""
    from flower.views.monitor import Healthcheck

    async def get(_self: object) -> None:
        raise ZeroDivisionError("nobody foresaw this page")

    type.__setattr__(Healthcheck, "get", get)


BREAK = {
    "token": without_token,
    "fence": without_fence,
    "question": without_question,
    "speed": slowly,
    "collectors": collectors,
    "imports": imports,
    "pulse": pulse,
    "flower": flower,
}

for net in os.environ.get("OUTHAUL_TEST_BROKEN", "").split():
    BREAK[net]()
