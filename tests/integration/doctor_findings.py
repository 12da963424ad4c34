"""The doctor's findings about a pipeline, one server at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from outhaul.cdc_reader.operate.doctor import (
    checklist,
    clickhouse_checks,
    column_match,
    postgres_checks,
    redis_checks,
    worker_checks,
)
from outhaul.cdc_reader.operate.doctor.finding import Finding, State
from outhaul.sink import schema

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings
    from tests.conftest import World

_Findings = dict[str, Finding]


def changed(world: World, **urls: str) -> Settings:
    """The world's settings, but for some URLs."""
    return world.settings.model_copy(update={name: SecretStr(url) for name, url in urls.items()})


def of_postgres(world: World, settings: Settings | None = None) -> _Findings:
    settings = settings or world.settings
    asked = postgres_checks.ask(settings.undivided, settings.outboxes())
    return {one.check: one for one in postgres_checks.judge(asked, settings.undivided, settings.outboxes()[0])}


def of_clickhouse(world: World) -> _Findings:
    return {
        one.check: one
        for one in clickhouse_checks.judge(
            clickhouse_checks.ask(world.stream, world.settings.outboxes()), world.settings
        )
    }


def of_columns(world: World) -> _Findings:
    pg, ch = (
        postgres_checks.ask(world.stream, world.settings.outboxes()),
        clickhouse_checks.ask(world.stream, world.settings.outboxes()),
    )
    assert isinstance(ch.stored, clickhouse_checks.Stored)
    return {one.check: one for one in column_match.judge(pg.columns, ch.stored.columns, ch.stored.events)}


def of_redis(settings: Settings) -> _Findings:
    return {one.check: one for one in redis_checks.judge(redis_checks.ask(settings))}


def of_celery(world: World) -> _Findings:
    return {one.check: one for one in worker_checks.judge(worker_checks.ask(world.settings), world.settings)}


def troubles(findings: _Findings) -> dict[str, State]:
    return {check: one.state for check, one in findings.items() if one.state is not State.PASS}


# What the embedded servers are like: a superuser, no limit on WAL, and nobody streams in most of these tests.
ORDINARY = {
    "max_slot_wal_keep_size": State.WARN,
    "least privilege": State.WARN,
    "slot in use": State.WARN,
}


def sections(settings: Settings, **options: Any) -> dict[str, dict[str, Finding]]:
    found = checklist.examine(settings, **options)
    return {section.group: {one.check: one for one in section.findings} for section in found}


def make_tables(
    world: World, engine: str = "ReplacingMergeTree", event_date_time: str = "DateTime64(6, 'UTC')"
) -> None:
    """The tables of a pipeline whose `event_log` somebody else has made."""
    world.clickhouse.command(
        f"CREATE TABLE event_log (id Int64, event_type String, event_date_time {event_date_time}, environment String, "
        "event_context String, metadata_version Nullable(Int64), cdc_source String, cdc_lsn UInt64, "
        "cdc_ordinal UInt64, cdc_committed_at DateTime64(6, 'UTC'), cdc_ingested_at DateTime64(6, 'UTC')) "
        f"ENGINE = {engine} PARTITION BY toYYYYMM(event_date_time) ORDER BY (event_type, event_date_time, id)"
    )
    # What is there is left as it is.
    schema.apply(world.clickhouse, world.settings)
