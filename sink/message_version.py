"""A message of some version -> read it, or name whose release is behind, and whom to tell.

Pure. Two releases run side by side while a pipeline is upgraded, workers first: a worker reads what its own release
writes and what the one before it wrote, and refuses the rest. What it refuses has an address all the same, since these
fields are the same in every version; so its reader hears of it, and sends it again.
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

# What our own readers write, and nothing else: these texts become part of Redis keys, statements and logs.
FORMS = {
    "source": re.compile(r"[a-z0-9_]{1,63}"),
    "lane": re.compile(rf"{STREAM}(_\d\d?of\d\d?)?|{COPY}"),
    "owner": re.compile(r"[0-9a-z]{1,64}"),
    "branch": re.compile(r"[a-z0-9_]{1,63}"),
    "table": re.compile(r"[a-z0-9_]{1,80}"),
    "token": re.compile(r"[0-9a-f]{32}"),
    "first": re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}#[0-9]{1,18}"),
    "last": re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}#[0-9]{1,18}"),
}
_END_NUMBER = 1 << 63


class OtherVersionError(ForeignMessageError):
    """A message of ours that another release has written, and this one cannot read; nothing of it is stored."""


@dataclass(frozen=True, slots=True)
class Address:
    """Whose batch it is: what the messages of all versions say by the same names, and in the same form."""

    source: str
    lane: str
    epoch: int
    sequence: int
    token: str

    @classmethod
    def found_in(cls, data: object, source: str) -> Self | None:
        """Find the address in a message of any version; None where it has none, or that of another source."""
        names = [field.name for field in fields(Address)]
        if not isinstance(data, dict) or not all(is_well_formed(name, data.get(name)) for name in names):
            return None
        return cls(**{name: data[name] for name in names}) if data["source"] == source else None

    @property
    def fence(self) -> str:
        """Name under which the epochs of the message's lane are counted."""
        return fence(self.source, self.lane)

    @property
    def payload_key(self) -> str:
        """Redis key of the payload (claim check)."""
        return payload_key(self.source, self.token)


def check_version(data: Mapping[object, object], ours: int, what: str) -> int:
    """Return the version of a message: ours, or the one before it.

    Args:
        data: the message.
        ours: the version that this release writes.
        what: names the message, for the error: `a batch message`.

    Raises:
        OtherVersionError: it is newer or older than these two.
        ForeignMessageError: it has no version.
    """
    version = data.get("version")
    if type(version) is not int or not 0 < version < _END_NUMBER:
        raise ForeignMessageError(f"{what} without a version was received", todo="Look who else writes to this queue")
    read = f"{what} of version {version} came to a worker that reads {ours - 1} and {ours}"
    if version > ours:
        raise OtherVersionError(f"{read}: the worker is older than who sent it", todo="Upgrade the workers")
    if version < ours - 1:
        raise OtherVersionError(f"{read}: who sent it is too old", todo="Upgrade the readers and the commands")
    return version


def is_well_formed(name: str, value: object) -> bool:
    """Tell whether a field of a message has the form that readers write it in; what is no text is a whole number."""
    form = FORMS.get(name)
    if form is not None:
        return isinstance(value, str) and form.fullmatch(value) is not None
    return type(value) is int and 0 <= value < _END_NUMBER
