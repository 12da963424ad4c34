"""Commands, run as an operator would."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.cdc_reader.cli import main
from tests import launch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import World

LIMIT_S = 90


def outhaul(world: World, *arguments: str, code: int | None = 0, **env: str) -> str:
    """Run a command as an operator would; return what it prints. No code means: anything but 0."""
    done = launch.run(*arguments, env=world.env | env, timeout_s=LIMIT_S)
    as_expected = done.returncode == code if code is not None else done.returncode != 0
    assert as_expected, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return f"{done.stdout}\n{done.stderr}".strip()


def outhaul_here(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process, which takes a tenth of the time; return its code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr("sys.argv", ["outhaul", *arguments])
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        else:
            code = 0
    return code, out.getvalue(), err.getvalue()


def asked(world: World, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outhaul(world, *arguments, "--json", code=code, **env).splitlines()[0])
    return found
