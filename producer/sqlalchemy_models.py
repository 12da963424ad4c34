"""An app's MetaData or declarative Base -> the outbox as a SQLAlchemy table or mapped class.

Pure. The columns are those of sql/postgres/0001_outbox.sql. They have SQLAlchemy's own types, so that a migration does
not import outhaul.

Source: https://docs.sqlalchemy.org/en/20/orm/declarative_mixins.html
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    Column,
    DateTime,
    String,
    Table,
    Text,
    cast,
    event,
    func,
    literal,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, validates

from outhaul.context import context_json
from outhaul.event import check_at, check_name, check_traceparent, check_version
from outhaul.traceparent import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, MetaData
    from sqlalchemy.orm import Mapper

_NAME = 255


def outbox_table(metadata: MetaData, name: str = "outbox", *, schema: str | None = None) -> Table:
    """Add the outbox to an app's MetaData, for `create_all` and for Alembic, and return its table."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger, primary_key=True),
        Column("event_type", String(_NAME), nullable=False),
        Column("event_date_time", DateTime(timezone=True), server_default=func.now()),
        Column("environment", String(_NAME), nullable=False),
        Column("event_context", JSONB, nullable=False),
        Column("metadata_version", BigInteger, server_default=text("1")),
        Column("event_key", Text, unique=True),
        schema=schema,
    )


class OutboxEventMixin:
    """Columns for an app's own `class OutboxEvent(OutboxEventMixin, Base)`.

    Each attribute is checked when it is set. A key that already exists raises a unique violation; `emit` ignores the
    event instead.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_type: Mapped[str] = mapped_column(String(_NAME))
    event_date_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), server_default=func.now())
    environment: Mapped[str] = mapped_column(String(_NAME))
    event_context: Mapped[Any] = mapped_column(JSONB, nullable=False)
    metadata_version: Mapped[int | None] = mapped_column(BigInteger, server_default=text("1"))
    event_key: Mapped[str | None] = mapped_column(Text, unique=True)

    @validates(
        "event_type", "event_date_time", "environment", "event_context", "metadata_version", "event_key", "traceparent"
    )
    def _checked(self, name: str, value: Any) -> Any:
        is_omitted = value is None and name in _MAY_BE_NONE
        if not is_omitted and not isinstance(value, ClauseElement):
            _CHECKS[name](value)
        return value


_MAY_BE_NONE = frozenset({"event_date_time", "metadata_version", "event_key", "traceparent"})
_CHECKS: dict[str, Callable[[Any], object]] = {
    "event_type": lambda value: check_name("event_type", value),
    "environment": lambda value: check_name("environment", value),
    "event_key": lambda value: check_name("event_key", value),
    "event_date_time": check_at,
    "event_context": context_json,
    "metadata_version": check_version,
    "traceparent": check_traceparent,
}


@event.listens_for(OutboxEventMixin, "before_insert", propagate=True)
def _serialize_context(mapper: Mapper[Any], _: Connection, row: OutboxEventMixin) -> None:
    """Replace the context by outhaul's JSON text: SQLAlchemy's serializer cannot write every type exactly."""
    row.event_context = cast(literal(context_json(row.event_context), Text), JSONB)
    if "traceparent" in mapper.columns and getattr(row, "traceparent", None) is None:
        setattr(row, "traceparent", running_traceparent())  # noqa: B010 - a column that an app may have added
