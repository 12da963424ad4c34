"""Environment and a TOML file -> Settings, one frozen tree, checked as a whole; and the outboxes and streams in it.

Edge: the environment. Every field is `OUTHAUL_<NAME>`, and a secret may be in a file that `OUTHAUL_<NAME>_FILE` names
(sink/settings/secret_files.py). The TOML file is `outhaul.toml` in the working directory, or the file that
OUTHAUL_CONFIG names. docs/reference/settings.md is generated from the fields: `python -m outhaul.deploy.reference`.

Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from outhaul.sink import lanes, quantities
from outhaul.sink.quoting import join_name, postgres_identifier, postgres_table, split_name
from outhaul.sink.redis_keys import celery_prefix
from outhaul.sink.settings.field_types import (
    ESSENTIAL,
    USEFUL,
    Age,
    AnyName,
    Bytes,
    Name,
    PostgresTable,
    Seconds,
    derived,
)
from outhaul.sink.settings.secret_files import SecretFiles
from outhaul.sink.settings.variables import PREFIX, config_path, is_of_service

_LONGEST_NAME, _SUFFIX = 63, "_63of64"
# What the names of other tables of a pipeline add to the name of an event table.
_SUFFIXES = (
    "_dead_letters",
    "_epochs",
    "_owners",
    "_pauses",
    "_trial",
    "_trial_copies",
    "_trial_view",
    "_view_gaps",
)

_MIN_KEY_LENGTH = 32

# Commas and equals signs within double quotes belong to a name.
_BETWEEN_COMMAS = re.compile(r'(?:[^",]|"[^"]*"?)+')
_PAIR = re.compile(r'\s*((?:[^"=]|"[^"]*")+?)\s*=\s*(.+?)\s*', re.DOTALL)

# Prefix of the messages that outhaul writes into the WAL; a publication's name is the prefix of events without a table.
MARK_PREFIX = "outhaul mark"

# A batch may span many monthly partitions, each its own entry in the table's deduplication window.
DEDUPLICATION_WINDOW = 10_000

# Each shard has its own range of ordinals within a transaction, below those of events without a table.
MAX_SHARDS = 64
SHARD_BITS = 33


class Settings(BaseSettings):
    """Everything that can be set; most pipelines set the three addresses and nothing else."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    postgres_dsn: SecretStr = Field(
        SecretStr("postgresql://127.0.0.1:5432/postgres"),
        description="Address of the Postgres primary that has the outbox; the role needs REPLICATION.",
        json_schema_extra=ESSENTIAL,
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Address of Redis or Valkey: one server, Sentinels, or a cluster.",
        json_schema_extra=ESSENTIAL,
    )
    clickhouse_url: SecretStr = Field(
        SecretStr("http://default@127.0.0.1:8123/default"),
        description="HTTP address of ClickHouse, with user, password and database.",
        json_schema_extra=ESSENTIAL,
    )
    table: PostgresTable = Field(
        "public.outbox",
        description="Outbox table in Postgres, as `schema.table`, in capitals and small letters as in Postgres; a part "
        'that has dots or quotes is written in double quotes: `sales."order.outbox"`.',
        json_schema_extra=ESSENTIAL,
    )

    clickhouse_table: AnyName = Field(
        "event_log", description="ClickHouse table for the events of the outbox.", json_schema_extra=USEFUL
    )
    more_tables: Annotated[dict[PostgresTable, AnyName], NoDecode] = Field(
        {},
        description="Further outboxes, each with its ClickHouse table: "
        "`billing.outbox=billing_log, audit.events=audit_log`.",
        json_schema_extra=USEFUL,
    )
    views_not_exact: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Materialized views that may get an event twice or not at all; the reader starts nevertheless: "
        "`hourly, stats.per_type`.",
        json_schema_extra=USEFUL,
    )
    source: Name = Field(
        "outhaul",
        description="Name of the pipeline; pipelines that share Redis or a ClickHouse table need different names.",
        json_schema_extra=USEFUL,
    )
    stream_dsn: SecretStr = Field(
        SecretStr(""),
        description="Address of the standby that has the slot; if it is empty, the slot is on the primary.",
        json_schema_extra=USEFUL,
    )
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = Field(
        1,
        description="Number of slots and readers that share the rows; change it with `outhaul setup --shards`.",
        json_schema_extra=USEFUL,
    )
    heal: Literal["off", "auto"] = Field(
        "off",
        description="`auto` lets the reader create a lost slot again and copy what the slot skipped.",
        json_schema_extra=USEFUL,
    )
    insert_timeout_s: Seconds = Field(
        60.0, description="Longest time for one insert into ClickHouse.", json_schema_extra=USEFUL
    )
    prune_older_than: Age = Field(
        None,
        description="With Celery beat, workers delete stored outbox rows that are older than this, such as `7d`; "
        "if it is empty, they delete none.",
        json_schema_extra=USEFUL,
    )
    message_key: SecretStr = Field(
        SecretStr(""),
        description="Key that signs messages in Redis: at least 32 characters, the same for all processes.",
        json_schema_extra=USEFUL,
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0,
        description="Port of the metrics and health pages of this process; 0 turns them off.",
        json_schema_extra=USEFUL,
    )
    sentry_dsn: SecretStr = Field(
        SecretStr(""),
        description="Sentry project that gets errors; if it is empty, errors are only logged.",
        json_schema_extra=USEFUL,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level of log lines that are written.", json_schema_extra=USEFUL
    )

    slot: Name = Field("outhaul", description="Name of the replication slot; shards add a suffix.")
    publication: AnyName = Field("outhaul", description="Name of the publication; shards add a suffix.")
    context_type: Literal["String", "JSON"] = Field(
        "String", description="ClickHouse type of `event_context` in tables that `outhaul setup` creates."
    )
    clickhouse_cluster: Annotated[str, StringConstraints(max_length=200)] = Field(
        "",
        description="Cluster of ClickHouse that has all replicas of the tables; if it is empty, outhaul looks for one.",
    )
    linger_s: Seconds = Field(0.2, description="Longest time that a row waits for others before its batch is sent.")
    batch_max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = Field(131_072, description="Rows of a full batch.")
    batch_max_bytes: Annotated[Bytes, Field(ge=1024, le=256 << 20)] = Field(
        24 << 20, description="Size of a full batch, as Postgres sends its rows."
    )
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = Field(
        8, description="Batches that a reader has sent and ClickHouse has not stored yet."
    )
    rate_limit: Annotated[str, StringConstraints(pattern=r"^(\d+/[smh])?$")] = Field(
        "", description="Most batches that one worker process stores, as `10/s`, `100/m` or `1000/h`."
    )
    status_interval_s: Seconds = Field(
        1.0, description="Longest time between two messages from the reader to Postgres."
    )
    receive_timeout_s: Seconds = Field(
        default_factory=lambda known: max(60.0, 2 * known.get("status_interval_s", 0)),
        description="Silence of Postgres after which the reader opens a new session.",
        json_schema_extra=derived("twice OUTHAUL_STATUS_INTERVAL_S, at least 60s"),
    )
    task_time_limit_s: Seconds = Field(
        default_factory=lambda known: max(100.0, known.get("insert_timeout_s", 0) * 5 / 3),
        description="Time after which Celery kills a task.",
        json_schema_extra=derived("5/3 of OUTHAUL_INSERT_TIMEOUT_S, at least 100s"),
    )
    visibility_timeout_s: Seconds = Field(
        default_factory=lambda known: max(300.0, 3 * known.get("task_time_limit_s", 0)),
        description="Time after which Redis gives a message that is not acknowledged to another worker.",
        json_schema_extra=derived("three times OUTHAUL_TASK_TIME_LIMIT_S, at least 300s"),
    )
    redispatch_s: Seconds = Field(
        default_factory=lambda known: max(120.0, 2 * known.get("insert_timeout_s", 0)),
        description="Silence of the workers about a batch after which the reader sends it again.",
        json_schema_extra=derived("twice OUTHAUL_INSERT_TIMEOUT_S, at least 120s"),
    )
    retry_max_s: Seconds = Field(
        default_factory=lambda known: min(30.0, known.get("redispatch_s", 120) / 2),
        description="Longest wait between two attempts after an error.",
        json_schema_extra=derived("half of OUTHAUL_REDISPATCH_S, at most 30s"),
    )
    park_wal_bytes: Annotated[Bytes, Field(ge=0)] = Field(
        0,
        description="WAL of a slot above which the reader drops the slot until all servers answer, such as `50GB`; "
        "0 is never.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address on which the metrics and health pages listen.")
    sentry_traces_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="Share of batches that are traced in Sentry."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Form of log lines; `auto` is `console` on a terminal and `json` elsewhere."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the name is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over files of secrets, and these over the TOML file."""
        if isinstance(env_settings, EnvSettingsSource):
            found = env_settings.env_vars.items()
            env_settings.env_vars = {name: value for name, value in found if not is_of_service(name, value or "")}
        files = SecretFiles(settings_cls)
        return init_settings, env_settings, files, TomlConfigSettingsSource(settings_cls, toml_file=config_path())

    @field_validator("message_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < _MIN_KEY_LENGTH:
            raise ValueError(f"use at least {_MIN_KEY_LENGTH} characters: `openssl rand -hex 32` prints a key")
        return value

    @field_validator("publication")
    @classmethod
    def _no_mark(cls, value: str) -> str:
        if value == MARK_PREFIX:
            raise ValueError("outhaul writes marks of its own into the WAL under this name: use another one")
        return value

    @field_validator("views_not_exact", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("more_tables", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [_PAIR.fullmatch(text) for text in _BETWEEN_COMMAS.findall(value) if text.strip()]
        found = {_one_form(pair[1]): _bare(pair[2]) for pair in pairs if pair is not None}
        if len(found) < len(pairs):
            raise ValueError("write schema.outbox=clickhouse_table, each outbox once, with commas between them")
        return found

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        s = quantities.spelled_s
        if not self.insert_timeout_s < self.task_time_limit_s < self.visibility_timeout_s:
            raise ValueError(
                "insert_timeout_s < task_time_limit_s < visibility_timeout_s must hold: "
                f"got {s(self.insert_timeout_s)}, {s(self.task_time_limit_s)}, {s(self.visibility_timeout_s)}. "
                "Set OUTHAUL_INSERT_TIMEOUT_S alone, and the others follow"
            )
        if self.retry_max_s >= self.redispatch_s:
            raise ValueError(
                "retry_max_s must be below redispatch_s, or the reader sends what a worker is about to retry: "
                f"got {s(self.retry_max_s)}, {s(self.redispatch_s)}. Unset OUTHAUL_RETRY_MAX_S, and it follows"
            )
        if self.status_interval_s * 2 > self.receive_timeout_s:
            raise ValueError(
                "status_interval_s must be at most half of receive_timeout_s: "
                f"got {s(self.status_interval_s)}, {s(self.receive_timeout_s)}. "
                f"Set OUTHAUL_STATUS_INTERVAL_S={s(self.receive_timeout_s / 2)} or less"
            )
        self._check_apart()
        if self.shards > 1 and max(len(self.slot), len(self.publication)) > _LONGEST_NAME - len(_SUFFIX):
            raise ValueError(f"shards add up to {_SUFFIX!r} to the names of slot and publication: use shorter names")
        return self

    def _check_apart(self) -> None:
        # Ids and positions are told apart within a table of ClickHouse, so two outboxes cannot share one.
        if self.table in self.more_tables:
            raise ValueError(f"more_tables names {self.table}, which table names already")
        stored = [self.clickhouse_table, *self.more_tables.values()]
        taken = [name + suffix for name in stored for suffix in ("", *_SUFFIXES)]
        if len(set(taken)) < len(taken):
            raise ValueError(
                "each outbox needs a ClickHouse table of its own, with a name that no other table of the pipeline has"
            )

    def outboxes(self) -> tuple[Outbox, ...]:
        """Return each captured table; that of `table` first."""
        pairs = {self.table: self.clickhouse_table} | self.more_tables
        return tuple(Outbox(name, stored, self) for name, stored in pairs.items())

    def outbox_into(self, clickhouse_table: str) -> Outbox | None:
        """Return the outbox whose events go to this ClickHouse table; None if no outbox does so."""
        return next((outbox for outbox in self.outboxes() if outbox.clickhouse_table == clickhouse_table), None)

    def streams(self) -> tuple[Stream, ...]:
        """Return each stream that rows arrive through: one for each shard, or the undivided one."""
        return (self.undivided,) if self.shards == 1 else tuple(map(self.stream, range(self.shards)))

    def stream(self, shard: int) -> Stream:
        """Return the stream of one shard, with its own slot, publication and lane."""
        return Stream(shard, self.shards, self)

    @property
    def undivided(self) -> Stream:
        """The stream of all rows, under names without a shard.

        With shards it has no slot. It then stands for all of them where rows are compared and copied.
        """
        return Stream(None, 1, self)

    @property
    def slot_dsn(self) -> str:
        """Address of the server that has the slot: the primary, or a standby that is streamed from."""
        return self.stream_dsn.get_secret_value() or self.postgres_dsn.get_secret_value()

    @property
    def epochs_table(self) -> str:
        """ClickHouse table that holds the fence, one for all outboxes of the pipeline."""
        return f"{self.clickhouse_table}_epochs"

    @property
    def owners_table(self) -> str:
        """ClickHouse table in memory that holds the owners of epochs since ClickHouse was started."""
        return f"{self.clickhouse_table}_owners"

    @property
    def pauses_table(self) -> str:
        """ClickHouse table that holds the pauses and resumes, one for all outboxes of the pipeline."""
        return f"{self.clickhouse_table}_pauses"

    @property
    def trial_table(self) -> str:
        """ClickHouse table of the trials (sink/trial.py)."""
        return f"{self.clickhouse_table}_trial"

    @property
    def trial_copies(self) -> str:
        """ClickHouse table into which the view on the trials inserts."""
        return f"{self.clickhouse_table}_trial_copies"

    @property
    def trial_view(self) -> str:
        """ClickHouse's materialized view on the trials."""
        return f"{self.clickhouse_table}_trial_view"

    @property
    def queue(self) -> str:
        """Celery queue of this pipeline."""
        return f"outhaul.{self.source}"

    @property
    def queue_key(self) -> str:
        """Redis key of that queue, with the prefix of all of Celery's keys."""
        return celery_prefix(self.source) + self.queue


def _one_form(text: str) -> str:
    """Return the name of a table in the one form that all its forms have in common."""
    with suppress(ValueError):
        return join_name(*split_name(text))
    return text


def _bare(text: str) -> str:
    """Return a name of one part without the quotes that it may have."""
    return split_name(text)[0] if text.startswith('"') else text


@dataclass(frozen=True, slots=True)
class Outbox:
    """One captured table; `settings` are those of its pipeline.

    `table` is `schema.table` in Postgres, as `quoting.join_name` writes it; `clickhouse_table` holds its events.
    """

    table: str
    clickhouse_table: str
    settings: Settings = field(repr=False, hash=False)

    @property
    def dead_letters_table(self) -> str:
        """ClickHouse table for rows that cannot be stored as they are."""
        return f"{self.clickhouse_table}_dead_letters"

    @property
    def view_gaps_table(self) -> str:
        """ClickHouse table of the events that a materialized view lacks."""
        return f"{self.clickhouse_table}_view_gaps"

    @property
    def sql_schema(self) -> str:
        """The name of the table's schema for a statement."""
        return postgres_identifier(split_name(self.table)[0])

    @property
    def sql_table(self) -> str:
        """The table's name for a statement."""
        return postgres_table(self.table)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of rows; `settings` are those of its pipeline.

    `shard` is the number of the shard among `shards`, or None if the stream is not divided.
    """

    shard: int | None
    shards: int
    settings: Settings = field(repr=False, hash=False)

    @property
    def slot(self) -> str:
        """Name of the replication slot."""
        return self.settings.slot + self._suffix

    @property
    def publication(self) -> str:
        """Name of the publication."""
        return self.settings.publication + self._suffix

    @property
    def lane(self) -> str:
        """Lane of the stream's rows."""
        return lanes.STREAM if self.shard is None else lanes.stream_lane(self.shard, self.shards)

    @property
    def fence(self) -> str:
        """Name under which the epochs of the stream are counted, and by which its reader is known in Redis."""
        return lanes.fence(self.settings.source, self.lane)

    @property
    def first_ordinal(self) -> int:
        """Number of the first row of a transaction; the next shard's is 2^33 more."""
        return (self.shard or 0) << SHARD_BITS

    @property
    def row_condition(self) -> str:
        """SQL that holds for the ids of the stream's rows, in Postgres and ClickHouse alike; empty: for all rows."""
        return "" if self.shard is None else f"abs(id % {self.shards}) = {self.shard}"

    @property
    def message_prefix(self) -> str:
        """Prefix of events without a table, which arrive through the first shard; empty for the other shards."""
        return "" if self.shard else self.settings.publication

    @property
    def _suffix(self) -> str:
        return "" if self.shard is None else f"_{self.shard}of{self.shards}"
