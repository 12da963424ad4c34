"""Environment (and a TOML file) -> Settings, one frozen tree, checked as a whole.

Edge: the environment. Built once by whoever starts a process, then passed on as values. Every field is
`OUTHAUL_<NAME>`, and a secret may stand in a file that `OUTHAUL_<NAME>_FILE` names (sink/secret_files.py). The TOML
file is `outhaul.toml` in the working directory, or where OUTHAUL_CONFIG points. OUTHAUL_REDIS_URL names one
server, Sentinels or a cluster (sink/redis_url.py).

Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, SecretStr, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from outhaul.sink import duration, keys, redis_url
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.secret_files import SecretFiles

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_NAME = re.compile(r"[a-z0-9_]{1,63}")
_LONGEST_NAME, _SUFFIX = 63, "_63of64"

_MIN_KEY_LENGTH = 32

# A batch may span many monthly partitions, each its own entry in the table's deduplication window.
DEDUPLICATION_WINDOW = 10_000

# Each has its own range of ordinals within a transaction, below those of events without a table.
MAX_SHARDS = 64
SHARD_BITS = 33

Seconds = Annotated[float, Field(gt=0)]
PostgresTable = Annotated[str, StringConstraints(pattern=r"""^[^.'"\\$\s]+\.[^.'"\\$\s]+$""")]


class Settings(BaseSettings):
    """Everything that can be set; what an ordinary user needs is the three URLs."""

    model_config = SettingsConfigDict(env_prefix="OUTHAUL_", frozen=True, extra="forbid", hide_input_in_errors=True)

    postgres_dsn: SecretStr = SecretStr("postgresql://127.0.0.1:5432/postgres")
    stream_dsn: SecretStr = SecretStr("")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    clickhouse_url: SecretStr = SecretStr("http://default@127.0.0.1:8123/default")

    source: str = "outhaul"
    slot: str = "outhaul"
    publication: str = "outhaul"
    table: PostgresTable = "public.outbox"
    clickhouse_table: str = "event_log"
    more_tables: Annotated[dict[PostgresTable, str], NoDecode] = {}
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = 1
    context_type: Literal["String", "JSON"] = "String"

    linger_s: Seconds = 0.2
    batch_max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 131_072
    batch_max_bytes: Annotated[int, Field(ge=1024, le=256 << 20)] = 24 << 20
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 8

    status_interval_s: Seconds = 1.0
    receive_timeout_s: Seconds = 60.0
    redispatch_s: Seconds = 120.0

    insert_timeout_s: Seconds = 60.0
    task_time_limit_s: Seconds = 100.0
    visibility_timeout_s: Seconds = 300.0
    retry_max_s: Seconds = 30.0
    rate_limit: Annotated[str, StringConstraints(pattern=r"^(\d+/[smh])?$")] = ""

    heal: Literal["off", "auto"] = "off"
    park_wal_bytes: Annotated[int, Field(ge=0)] = 0
    prune_older_than: Annotated[str, StringConstraints(pattern=rf"^({duration.FORM})?$")] = ""

    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    message_key: SecretStr = SecretStr("")
    sentry_dsn: SecretStr = SecretStr("")
    sentry_traces_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Beside which table epochs and pauses stand, in a branch: they are of the whole pipeline.
    _control_table: str = PrivateAttr("")
    # Which shard of the stream, and the names without it, in what `stream` returns.
    _shard: int | None = PrivateAttr(None)
    _whole: Settings | None = PrivateAttr(None)

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
        path = os.environ.get("OUTHAUL_CONFIG", "outhaul.toml")
        files = SecretFiles(settings_cls)
        return init_settings, env_settings, files, TomlConfigSettingsSource(settings_cls, toml_file=path)

    @field_validator("message_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < _MIN_KEY_LENGTH:
            raise ValueError(f"a key of at least {_MIN_KEY_LENGTH} characters, as `openssl rand -hex 32` prints one")
        return value

    @field_validator("source", "slot", "publication", "clickhouse_table")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        # Replication commands cannot bind parameters, so these names go into their text as they are.
        if not _NAME.fullmatch(value):
            raise ValueError("use lower-case letters, digits and underscores, at most 63")
        return value

    @field_validator("more_tables", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip().partition("=") for pair in value.split(",") if pair.strip()]
        if not all(sign for _, sign, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError("say schema.outbox=clickhouse_table, each outbox once, with a comma between two")
        return {name.strip(): stored.strip() for name, _, stored in pairs}

    @field_validator("more_tables")
    @classmethod
    def _plain_names(cls, value: dict[str, str]) -> dict[str, str]:
        for stored in value.values():
            cls._plain_name(stored)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if not self.insert_timeout_s < self.task_time_limit_s < self.visibility_timeout_s:
            raise ValueError(
                "insert_timeout_s < task_time_limit_s < visibility_timeout_s must hold: "
                f"got {self.insert_timeout_s:g}, {self.task_time_limit_s:g}, {self.visibility_timeout_s:g}"
            )
        if self.retry_max_s >= self.redispatch_s:
            raise ValueError(
                "retry_max_s must be below redispatch_s, or the reader sends what a worker is about to retry"
            )
        if self.status_interval_s * 2 > self.receive_timeout_s:
            raise ValueError("status_interval_s must be at most half of receive_timeout_s")
        self._check_apart()
        if self.shards > 1 and max(len(self.slot), len(self.publication)) > _LONGEST_NAME - len(_SUFFIX):
            raise ValueError(f"with shards, the names of slot and publication get longer: up to {_SUFFIX!r} more")
        return self

    def _check_apart(self) -> None:
        # Ids and positions are told apart within a table of ClickHouse, so two outboxes cannot share one.
        if self.table in self.more_tables:
            raise ValueError(f"more_tables names {self.table}, which table names already")
        stored = [self.clickhouse_table, *self.more_tables.values()]
        taken = [name + suffix for name in stored for suffix in ("", "_dead_letters", "_epochs", "_pauses")]
        if len(set(taken)) < len(taken):
            raise ValueError("each outbox needs a ClickHouse table of its own, with a name that no table of ours has")

    def branches(self) -> tuple[Settings, ...]:
        """Return the settings once for each captured table, as if it were the only one; that of `table` first."""
        pairs = {self.table: self.clickhouse_table} | self.more_tables
        return tuple(self._branch(name, stored) for name, stored in pairs.items())

    def branch_into(self, stored: str) -> Settings | None:
        """Return the branch whose events go to this ClickHouse table; None where there is none."""
        return next((branch for branch in self.branches() if branch.clickhouse_table == stored), None)

    def _branch(self, name: str, stored: str) -> Settings:
        branch = self.model_copy(update={"table": name, "clickhouse_table": stored, "more_tables": {}})
        branch._control_table = self.control_table  # noqa: SLF001 - of our own class
        return branch

    def streams(self) -> tuple[Settings, ...]:
        """Return the settings once for each stream that rows come by: a shard each, or the one."""
        if self.shards == 1 or self._shard is not None:
            return (self,)
        return tuple(map(self.stream, range(self.shards)))

    def stream(self, shard: int) -> Settings:
        """Return the settings for one shard: with its own slot, publication and lane."""
        suffix = f"_{shard}of{self.shards}"
        names = {"slot": f"{self.slot}{suffix}", "publication": f"{self.publication}{suffix}"}
        one = self.model_copy(update=names)
        one._shard, one._whole = shard, self  # noqa: SLF001 - of our own class
        return one

    @property
    def slot_dsn(self) -> str:
        """Address of the server that has the slot: the primary, or a standby that is streamed from."""
        return self.stream_dsn.get_secret_value() or self.postgres_dsn.get_secret_value()

    @property
    def shard(self) -> int | None:
        """Which shard these settings are for; None where they are for the whole."""
        return self._shard

    @property
    def lane(self) -> str:
        """Lane of the stream's rows."""
        return keys.STREAM if self._shard is None else keys.stream_lane(self._shard, self.shards)

    @property
    def fence(self) -> str:
        """Name under which the epochs of the stream are counted, and by which its reader is known in Redis."""
        return keys.fence(self.source, self.lane)

    @property
    def first_ordinal(self) -> int:
        """Number of the first row of a transaction; the next shard's is 2^33 more."""
        return (self._shard or 0) << SHARD_BITS

    @property
    def row_condition(self) -> str:
        """What holds for the ids of the stream's rows, to Postgres and ClickHouse alike; empty: they are all."""
        return "" if self._shard is None else f"abs(id % {self.shards}) = {self._shard}"

    @property
    def message_prefix(self) -> str:
        """Prefix of events without a table, which come by the first shard; empty for the others."""
        return "" if self._shard else (self._whole or self).publication

    @property
    def control_table(self) -> str:
        """ClickHouse table beside which the pipeline's epochs and pauses are kept, whatever else it captures."""
        return self._control_table or self.clickhouse_table

    @property
    def epochs_table(self) -> str:
        """ClickHouse table that holds the fence."""
        return f"{self.control_table}_epochs"

    @property
    def sql_table(self) -> str:
        """The outbox's name for a statement: in quotes where Postgres would fold it to another."""
        parts = self.table.split(".")
        return ".".join(part if _PLAIN.fullmatch(part) else f'"{part}"' for part in parts)

    @property
    def dead_letters_table(self) -> str:
        """ClickHouse table for rows that cannot be stored as they are."""
        return f"{self.clickhouse_table}_dead_letters"

    @property
    def queue(self) -> str:
        """Celery queue of this pipeline."""
        return f"outhaul.{self.source}"

    @property
    def queue_key(self) -> str:
        """Redis key of that queue; in a cluster it has a prefix, so that it lies beside the source's other keys."""
        return redis_url.key_prefix(self.redis_url.get_secret_value(), self.source) + self.queue


def load(**overrides: object) -> Settings:
    """Build the settings from overrides, environment and TOML file.

    Raises:
        FatalError: a value is missing, malformed or at odds with another; the message names each.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise FatalError(
            "the settings do not hold: " + "; ".join(lines),
            todo="Mend the OUTHAUL_* variables or outhaul.toml",
            exit_code=Exit.SETTINGS,
        ) from None
