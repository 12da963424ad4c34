"""Server, user and tables of ClickHouse -> nothing if they do what outhaul relies on, else an error that says why not.

Edge: ClickHouse. A reader tries this before its first epoch, by the checks of sink/trial_checks.py. What has passed is
recorded (sql/clickhouse/0010) for the server's version, the user, the definitions of the tables and the settings of the
user's profile, so it is tried again only if one of these changes. Row policies and tables that were replaced are looked
for each time: an administrator may do both at any time.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from outhaul.sink import schema
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.sql import query
from outhaul.sink.trial_checks import CHECKS, CONNECTIONS, TIMEOUT_S, Trial, row_policies, same_tables

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.sink")

# A proof of another release may lack a trial that this one has.
_VERSION = "1"


def ensure(clickhouse: ClickHouse, settings: Settings) -> None:
    """Run the trials, unless they have passed for this version, user, profile and definition of the tables.

    Raises:
        FatalError: outhaul cannot keep its promise on this server; the message says why, and what to do.
        PipelineError: ClickHouse refuses or does not answer.
    """
    begun_at = time.monotonic()
    with ExitStack() as stack:
        trial = _open(clickhouse, settings, stack)
        policies = row_policies(trial)
        same_tables(trial)
        for identity in trial.unknown:
            record(clickhouse, settings, identity)
        proof = proof_of(clickhouse, settings)
        proven = query("trial_proven", trial=settings.trial_table)
        if clickhouse.rows(proven, parameters={"proof": proof})[0][0]:
            return
        found = [policies, *(check(trial) for check in CHECKS.values() if check not in {row_policies, same_tables})]
    seconds = round(time.monotonic() - begun_at, 2)
    log.info("clickhouse_tried", source=settings.source, seconds=seconds, found="; ".join(found))
    record(clickhouse, settings, proof)


def record(clickhouse: ClickHouse, settings: Settings, proof: str) -> None:
    """Record what has passed: what `proof_of` returns, or what identifies a table.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    clickhouse.command(query("trial_record", trial=settings.trial_table), parameters={"run": "proof", "proof": proof})


def results(clickhouse: ClickHouse, settings: Settings) -> dict[str, str | PipelineError]:
    """Run all trials; return for each what was found, or its error.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found: dict[str, str | PipelineError] = {}
    with ExitStack() as stack:
        trial = _open(clickhouse, settings, stack)
        for name, check in CHECKS.items():
            try:
                found[name] = check(trial)
            except PipelineError as error:
                found[name] = error
    return found


def _open(clickhouse: ClickHouse, settings: Settings, stack: ExitStack) -> Trial:
    names = schema.table_names(settings, settings.outboxes())
    found = schema.tables(clickhouse, (*names, settings.trial_view))
    for name in names:
        if name not in found:
            raise schema.missing(name, clickhouse)
    if settings.trial_view not in found:
        raise FatalError(
            f"ClickHouse at {clickhouse.address} has no view {settings.trial_view!r}, or this user may not see it",
            todo="Create it with `outhaul setup`, and grant the rights of sql/clickhouse/users/pipeline.sql",
            exit_code=Exit.CLICKHOUSE_TABLE,
        )
    connections = tuple(
        stack.enter_context(ClickHouse.of(settings, timeout_s=TIMEOUT_S, apart=True)) for _ in range(CONNECTIONS)
    )
    return Trial(clickhouse, settings, found, connections)


def proof_of(clickhouse: ClickHouse, settings: Settings) -> str:
    """Return a hash of all that the trials depend on.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    tables = [*schema.table_names(settings, settings.outboxes()), settings.trial_view]
    facts = clickhouse.rows(query("trial_facts"), parameters={"tables": tables})[0]
    text = json.dumps([_VERSION, clickhouse.address, *facts], default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def expect(clickhouse: ClickHouse, settings: Settings, table: str, place: str) -> None:
    """Record that `table` may be exchanged for `place`, an event table, although its rows have no tokens.

    Its rows lose the numbers of their batches, so nobody sends them again. What workers store in it after the exchange
    has tokens.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    clickhouse.command(schema.forget_batches(table))
    clickhouse.command(query("trial_expect", trial=settings.trial_table), parameters={"table": table, "place": place})
