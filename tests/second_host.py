"""A network namespace with a link to this machine -> what another machine is to a worker: its own network and name.

Edge: `ip` and `unshare` of Linux, as root. /dev/shm is its own too, so that nothing goes by way of shared memory.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Becomes the host, and then the command.
_BOOT = 'hostname "$0" && mount -t tmpfs none /dev/shm && exec "$@"'


@dataclass(frozen=True, slots=True)
class Host:
    """Another machine; this one has the address `gateway` on the link between both."""

    name: str
    gateway: str
    link: str

    @property
    def via(self) -> list[str]:
        """Return the command that runs a command there."""
        return ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "sh", "-c", _BOOT, self.name]

    def unplug(self) -> None:
        """Let the link carry nothing any more; nobody is told."""
        _ip("link", "set", self.link, "down")

    def plug_in(self) -> None:
        """Let the link carry again."""
        _ip("link", "set", self.link, "up")


@contextlib.contextmanager
def host(name: str, number: int) -> Iterator[Host]:
    """Make a host for a block, in the network 198.18.`number`.0/24; skip the test where that is not allowed."""
    made = Host(name, gateway=f"198.18.{number}.1", link=f"oh{number}")
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    try:
        _ip("link", "add", made.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{made.gateway}/24", "dev", made.link)
        _ip("link", "set", made.link, "up")
        _ip("-n", name, "address", "add", f"198.18.{number}.2/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        yield made
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
