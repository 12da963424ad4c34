"""Who we are -> the ordinary user for a program that refuses root, and places which that user can reach.

Edge: the user database, file modes, a copy of programs. Does nothing at all where we are not root.
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
_SHARED = (Path("/var/lib/outhaul"), Path("/var/tmp/outhaul"))  # noqa: S108 - checked to be ours before it is used


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run as; without ids, the one we are."""

    uid: int | None = None
    gid: int | None = None


def ordinary_account() -> Account:
    """Return ourselves, or an ordinary user where we are root.

    Raises:
        FatalError: there is none.
    """
    if os.geteuid() != 0:
        return Account()
    for name in _ORDINARY:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise FatalError("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'", todo="Add one")


def reaches(account: Account, directory: Path) -> bool:
    """Tell whether the user may read this directory and all above it lets it through."""
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
    """Return a directory that is root's and that the user reaches.

    Raises:
        FatalError: none can be made.
    """
    for home in _SHARED:
        try:
            if not home.exists():
                open_to_all(home)
            found = home.lstat()
        except OSError:
            continue
        # In a place that all may write to, somebody else may have been first.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and reaches(account, home):
            return home
    raise FatalError(
        f"found no place for PostgreSQL that its user reaches; tried {', '.join(map(str, _SHARED))}",
        todo="Run as an ordinary user, or make one of them",
    )


def open_to_all(directory: Path) -> Path:
    """Make a directory that everybody may read, whatever our umask is; one that is there stays as it is."""
    try:
        directory.mkdir()
    except FileExistsError:
        return directory
    directory.chmod(0o755)
    return directory


def copy_for_all(trees: Iterable[Path], root: Path, target: Path) -> None:
    """Copy directories, with their paths below `root`, to a new `target` that everybody may read; once."""
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
        # Another starter was quicker.
        shutil.rmtree(partial)
