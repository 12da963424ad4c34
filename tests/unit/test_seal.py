"""A seal holds for one text in one place by one key, and for nothing else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.sink.seal import FIELD, ForgedMessageError, Seal

KEY = "k" * 32
SEAL = Seal(KEY)
ARGUMENT: dict[str, Any] = {"version": 3, "token": "0" * 32, "rows": 7, "source": "a"}
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(st.dictionaries(st.text().filter(lambda name: name != FIELD), JSON))
def test_what_was_sealed_comes_back_as_it_was(argument: dict[str, Any]) -> None:
    carried = json.loads(json.dumps(SEAL.message("task", argument)))
    assert SEAL.opened("task", carried) == argument


@pytest.mark.parametrize(
    "changed",
    [
        ARGUMENT,
        SEAL.message("other", ARGUMENT),
        Seal("x" * 32).message("task", ARGUMENT),
        SEAL.message("task", ARGUMENT) | {"rows": 8},
        SEAL.message("task", ARGUMENT) | {"more": 1},
        {name: value for name, value in SEAL.message("task", ARGUMENT).items() if name != "rows"},
        ARGUMENT | {FIELD: ""},
        ARGUMENT | {FIELD: None},
        ARGUMENT | {FIELD: ["\ud800"]},
        {FIELD: "\ud800"},
        [ARGUMENT],
        None,
    ],
)
def test_what_was_touched_is_refused(changed: object) -> None:
    with pytest.raises(ForgedMessageError, match="OUTHAUL_MESSAGE_KEY"):
        SEAL.opened("task", changed)


def test_a_line_holds_on_its_own_list_alone() -> None:
    line = SEAL.line("stored:7", '{"outcome": "stored"}').encode()
    assert SEAL.opened_line("stored:7", line) == b'{"outcome": "stored"}'
    for key, said in (("stored:8", line), ("stored:7", line[:-1]), ("stored:7", b"{}"), ("stored:7", b"\xff {}")):
        assert SEAL.opened_line(key, said) is None


def test_the_end_of_a_place_is_not_the_beginning_of_a_text() -> None:
    assert SEAL.line("a", "bc")[:64] != SEAL.line("ab", "c")[:64]
    assert SEAL.line("a", " b")[:64] != SEAL.line("a ", "b")[:64]


def test_without_a_key_everything_passes_but_what_is_sealed() -> None:
    bare = Seal("")
    assert bare.message("task", ARGUMENT) == ARGUMENT
    assert bare.opened("task", ARGUMENT) == ARGUMENT
    assert bare.opened_line("list", b"line") == bare.line("list", "line").encode()
    with pytest.raises(ForgedMessageError, match="this worker has no key"):
        bare.opened("task", SEAL.message("task", ARGUMENT))


def test_a_seal_costs_next_to_nothing() -> None:
    begun_at = time.process_time()
    for _ in range(200):
        SEAL.opened("task", SEAL.message("task", ARGUMENT))
    # A batch takes some ten milliseconds at least; this is a tenth of that.
    assert (time.process_time() - begun_at) / 200 < 0.001
