"""A message of any version -> its version if this release reads it, else which side to upgrade; and its address.

Pure. During an upgrade, two releases run side by side; workers are upgraded first. A worker reads the messages that its
own release and the previous release write, and refuses all others. The fields of `BatchAddress` are the same in every
version. So a worker can report a refused message to the message's reader, and the reader sends the batch again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.lanes import COPY, STREAM, fence
from outhaul.sink.redis_keys import payload_key

if TYPE_CHECKING:
    from collections.abc import Mapping

# Exactly what readers write, since these texts become part of Redis keys, statements and logs. Names of tables may have
# any character: they are in no key, and quoted in statements.
FORMS = {
    "source": re.compile(r"[a-z0-9_]{1,63}"),
    "lane": re.compile(rf"{STREAM}(_\d\d?of\d\d?)?|{COPY}"),
    "owner": re.compile(r"[0-9a-z]{1,64}"),
    "branch": re.compile(r"[^\0]{1,63}"),
    "table": re.compile(r"[^\0]{1,80}"),
    "token": re.compile(r"[0-9a-f]{32}"),
    "first": re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}#[0-9]{1,20}"),
    "last": re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}#[0-9]{1,20}"),
}
_END_NUMBER = 1 << 63


class OtherVersionError(ForeignMessageError):
    """A message that another release of outhaul has written and this release cannot read; no row of it is stored."""


@dataclass(frozen=True, slots=True)
class BatchAddress:
    """Which batch of which reader: the fields that have the same names and forms in messages of all versions."""

    source: str
    lane: str
    epoch: int
    sequence: int
    token: str

    @classmethod
    def found_in(cls, data: object, source: str) -> Self | None:
        """Find the address in a message of any version; None if it has no address, or the address of another source."""
        names = [field.name for field in fields(BatchAddress)]
        if not isinstance(data, dict) or not all(is_well_formed(name, data.get(name)) for name in names):
            return None
        return cls(**{name: data[name] for name in names}) if data["source"] == source else None

    @property
    def fence(self) -> str:
        """Name of the fence of the message's lane."""
        return fence(self.source, self.lane)

    @property
    def payload_key(self) -> str:
        """Redis key of the payload (claim check)."""
        return payload_key(self.source, self.token)


def check_version(data: Mapping[object, object], ours: int, what: str) -> int:
    """Return the version of a message: `ours` or the previous one.

    Args:
        data: the message.
        ours: the version that this release writes.
        what: name of the message in the error text: `a batch message`.

    Raises:
        OtherVersionError: the message is newer or older than these two versions.
        ForeignMessageError: the message has no version.
    """
    version = data.get("version")
    if type(version) is not int or not 0 < version < _END_NUMBER:
        raise ForeignMessageError(
            f"{what} without a version was received", todo="Find out who else writes to this queue"
        )
    read = f"{what} of version {version} came to a worker that reads {ours - 1} and {ours}"
    if version > ours:
        raise OtherVersionError(f"{read}: the worker is older than the sender", todo="Upgrade the workers")
    if version < ours - 1:
        raise OtherVersionError(f"{read}: the sender is too old", todo="Upgrade the readers and the commands")
    return version


def is_well_formed(name: str, value: object) -> bool:
    """Tell whether a field of a message has the form in which readers write it: that of FORMS, or a whole number."""
    form = FORMS.get(name)
    if form is not None:
        return isinstance(value, str) and form.fullmatch(value) is not None
    return type(value) is int and 0 <= value < _END_NUMBER
