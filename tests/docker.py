"""Docker's command line -> what it says; and whether there is a daemon to ask.

Edge: runs `docker`.
"""

from __future__ import annotations

import os
import shutil
import subprocess


def docker(*arguments: str, code: int = 0, timeout_s: float = 120) -> str:
    """Run a command, which is to end with this exit code; return all that it says."""
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=os.environ | {"DOCKER_BUILDKIT": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def docker_answers() -> bool:
    """Tell whether there is a Docker daemon."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=False).returncode == 0
