"""The current user -> a user for programs that refuse to run as root, and directories that this user can read.

Edge: the user database, file modes, copies of programs. If the current user is not root, nothing is changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Iterable

_ORDINARY = ("postgres", "nobody")
_SHARED = (Path("/var/lib/outhaul"), Path("/var/tmp/outhaul"))  # noqa: S108 - used only if root owns it


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run a program as; ids of None mean the current user."""

    uid: int | None = None
    gid: int | None = None


def ordinary_account() -> Account:
    """Return the current user; for root, return `postgres` or `nobody`.

    Raises:
        FatalError: neither of these two users exists.
    """
    if os.geteuid() != 0:
        return Account()
    for name in _ORDINARY:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise FatalError(
        "PostgreSQL does not run as root, and this machine has no user 'postgres' or 'nobody'",
        todo="Add one of these users, or run outhaul as an ordinary user",
    )


def reaches(account: Account, directory: Path) -> bool:
    """Return whether the user can read this directory and can enter every directory above it."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1" && test -r .', "sh", str(directory)],
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


def shared_home(account: Account) -> Path:
    """Return a directory that root owns and that the user can read; create it if needed.

    Raises:
        FatalError: none of the candidates can be used.
    """
    for home in _SHARED:
        try:
            if not home.exists():
                open_to_all(home)
            found = home.lstat()
        except OSError:
            continue
        # Every user may write to /var/tmp, so another user may have created the directory.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and reaches(account, home):
            return home
    raise FatalError(
        f"found no directory for PostgreSQL that its user can read; tried {', '.join(map(str, _SHARED))}",
        todo="Run as an ordinary user, or create one of them",
    )


def open_to_all(directory: Path) -> Path:
    """Create a directory that every user can read, regardless of the umask; an existing one is not changed."""
    try:
        directory.mkdir()
    except FileExistsError:
        return directory
    directory.chmod(0o755)
    return directory


def copy_for_all(trees: Iterable[Path], root: Path, target: Path) -> None:
    """Copy directories, with their paths relative to `root`, to `target`, and let every user read the copies.

    If `target` exists, do nothing.
    """
    if target.exists():
        return
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    for tree in trees:
        if tree.exists():
            shutil.copytree(tree, partial / tree.relative_to(root), symlinks=True)
    for path in (partial, *partial.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
    try:
        partial.rename(target)
    except OSError:
        # Another process has created `target` in the meantime.
        shutil.rmtree(partial)
