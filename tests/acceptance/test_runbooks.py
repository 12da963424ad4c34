"""Every runbook, typed line by line into a pipeline that was broken as its page says; in the end nothing is missing."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from outhaul.cdc_reader.cli import app, join
from tests import launch
from tests.acceptance.commands import asked
from tests.acceptance.runbook import PAGES, RUNBOOKS, SECTIONS, is_printed, sections, steps
from tests.acceptance.troubles import TROUBLES
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.runbook import Step
    from tests.acceptance.troubles import Fills
    from tests.conftest import World

_LIMIT_S = 60
# Reader and worker need seconds to come back; an operator looks again.
_LOOKS_FOR_S = 40.0
_AGAIN_S = 0.2
_SCREEN_AND_A_HALF = 75
_DOCS = RUNBOOKS.parent
# One page for each server and process; `make test-all` types all.
_IN_EACH_RUN = {"slot-lost"}
# Variables, pipes, lists and patterns need a shell.
_SHELL_S_OWN = re.compile(r"[$`|&;<>*?()\\]")


def page(name: str) -> str:
    return (RUNBOOKS / f"{name}.md").read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _IN_EACH_RUN else pytest.mark.thorough) for name in PAGES]
)
def test_what_the_page_says_mends_what_is_broken_and_nothing_is_missing(running: World, name: str) -> None:
    running.insert(20)
    running.assert_once_each()
    with TROUBLES[name](running) as fills:
        for step in steps(page(name)):
            perform(running, step, fills)
    assert_nothing_is_missing(running)


def assert_nothing_is_missing(world: World) -> None:
    """Let some more events through, and compare both sides."""
    world.pipeline.check()
    world.insert(3)
    report = asked(world, "verify", "--deep")
    assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]
    assert report["rows"] == world.sql("SELECT count(*) FROM outbox")


def perform(world: World, step: Step, fills: Fills) -> None:
    """Type one step as an operator would; where the page only looks, look again until it is as the page says."""
    act = fills.get(step.text[1:-1]) if step.text.startswith("<") else None
    if callable(act):
        act()
        return
    text = re.sub(r"<([^<>]+)>", lambda match: str(fills[match[1]]), step.text)
    if step.goes_on:
        world.pipeline.start(text.removesuffix(" &").removeprefix("outhaul "))
        return
    if step.where != "shell":
        # The page has the names that an operator finds by default.
        run_sql(world, step.where, text.replace("'outhaul'", f"'{world.settings.slot}'"))
        return
    deadline = time.monotonic() + _LOOKS_FOR_S
    while (trouble := typed(world, step, text)) and step.only_looks and time.monotonic() < deadline:
        time.sleep(_AGAIN_S)
    assert not trouble, trouble


def typed(world: World, step: Step, text: str) -> str:
    """Run a line as a shell does; return how that differs from what the page says."""
    env = world.env | {"PATH": f"{Path(OUTHAUL).parent}:{os.environ['PATH']}", "COLUMNS": "400"}
    # shlex takes any # for a comment, a shell only one that begins a word; positions have one inside.
    words = shlex.split(re.sub(r"\s#.*$", "", text))
    if words[0] == "outhaul" and not _SHELL_S_OWN.search(text):
        done = launch.run(*words[1:], env=env, timeout_s=_LIMIT_S)
    else:
        done = subprocess.run(
            ["bash", "-c", text],
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    output = f"{done.stdout}\n{done.stderr}".replace(world.settings.slot, "outhaul")
    assert "Traceback" not in output, output
    lacking = [line for line in step.printed if not is_printed(line, output)]
    if done.returncode == step.code and not lacking:
        return ""
    return f"{text}: exit code {done.returncode}, the page says {step.code}; not printed: {lacking}\n{output}"


def run_sql(world: World, where: str, text: str) -> None:
    if where == "Postgres":
        world.conn.execute(text.encode())
    elif text.startswith("SELECT"):
        world.clickhouse.rows(text)
    else:
        world.clickhouse.command(text)


@pytest.mark.thorough
def test_the_daily_life_is_as_operations_says_from_the_first_start_on(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    for step in steps((_DOCS / "operations.md").read_text()):
        perform(world, step, {})
        if step.goes_on or step.text.startswith("outhaul replay"):
            world.insert(10)
    assert world.ch("SELECT count() FROM event_log WHERE cdc_lsn % 8 = 7") > 0, "rebuilt from the outbox"
    assert_nothing_is_missing(world)


def test_every_trouble_has_a_page_in_the_index_and_every_page_a_trouble() -> None:
    assert set(TROUBLES) == set(PAGES)
    index = page("README")
    assert set(re.findall(r"\(([a-z-]+)\.md\)", index)) == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_five_sections_and_is_no_longer_than_a_screen_and_a_half(name: str) -> None:
    assert sections(page(name)) == SECTIONS
    assert len(page(name).splitlines()) <= _SCREEN_AND_A_HALF
    assert any(step.where == "shell" for step in steps(page(name)) if step.section == SECTIONS[3])
    assert any(step.printed for step in steps(page(name)) if step.section == SECTIONS[4])


@pytest.mark.parametrize(
    ("line", "output", "is_there"),
    [
        ("missing 70: 21, 22, …", "compared 90\nmissing       7: 1, 2, 3", True),
        ("missing 0", "missing  0", True),
        ("missing 0", "missing  7: 1, 2", False),
        ("stored 70", "stored  0", False),
        ("lost nothing", "lost  70 events", False),
        ("slot at 16/B374D848, …", "slot at 0/1A2B, reserved", True),
        ("fine nothing is wrong", "wrong  no reader runs", False),
    ],
)
def test_numbers_on_a_page_are_examples_and_nothing_else_is(line: str, output: str, *, is_there: bool) -> None:
    assert is_printed(line, output) is is_there


@pytest.mark.parametrize("block", ["```text\n$ outhaul status\n```\n", "```sql\nSELECT 1;\n```\n"])
def test_a_block_that_no_test_would_run_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match=r"no test runs|does not say on which server"):
        steps(f"# Page\n## What to type\n{block}")


def test_a_page_is_read_in_the_order_in_which_it_is_typed() -> None:
    found = steps(
        "# Page\n## What you see\n```console\n$ outhaul status  # exits 1\nwrong\n```\n"
        "## What to type\n```sql\n-- in Postgres\nSELECT 1;\nSELECT 2;  -- two\n```\n"
        "```console\n$ outhaul reader &       # goes on\n```\n"
    )
    assert [(step.section, step.where, step.text, step.code, step.printed) for step in found] == [
        ("What you see", "shell", "outhaul status", 1, ["wrong"]),
        ("What to type", "Postgres", "SELECT 1", 0, []),
        ("What to type", "Postgres", "SELECT 2", 0, []),
        ("What to type", "shell", "outhaul reader &", 0, []),
    ]
    assert [step.goes_on for step in found] == [False, False, False, True]


@pytest.mark.parametrize("path", [_DOCS / "operations.md", *sorted(RUNBOOKS.glob("*.md"))], ids=lambda path: path.stem)
def test_commands_named_in_the_text_exist_with_their_options(path: Path) -> None:
    join([])
    named = re.findall(r"`(outhaul [^`]*)`|^\$ (outhaul .*)$", path.read_text(), re.MULTILINE)
    assert named
    for words in ("".join(pair).partition("  #")[0].split() for pair in named):
        # A name with options only; what is passed to them is run by the pages' own test.
        command: Any = typer.main.get_command(app)
        depth = 1
        while depth < len(words) and words[depth] in getattr(command, "commands", {}):
            command, depth = command.commands[words[depth]], depth + 1
        assert depth > 1, words
        assert not hasattr(command, "commands") or depth == len(words), words
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if re.fullmatch("--?[a-z].*", word)} <= known, words


def test_links_lead_somewhere() -> None:
    for path in [_DOCS / "operations.md", *RUNBOOKS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), (path.name, target)
