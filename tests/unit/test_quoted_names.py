"""Names as an operator writes them: in quotes where they need them, and the same table however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outhaul.sink.quoting import join_name, postgres_table, split_name
from outhaul.sink.settings import Settings
from outhaul.statement import Target

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=15)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_what_is_joined_is_split_again(parts: list[str]) -> None:
    assert split_name(join_name(*parts)) == tuple(parts)


@given(NAMES, NAMES)
def test_settings_and_producer_read_the_same_names(schema: str, name: str) -> None:
    written = join_name(schema, name)
    target = Target(table=written)
    assert target.parts == (schema, name)
    assert Settings(table=written).table == written
    assert Settings(table=f" {target.quoted} ").table == written


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("public.outbox", ("public", "outbox")),
        (' My Shop . "order.outbox" ', ("My Shop", "order.outbox")),
        ('"say ""hi""".x', ('say "hi"', "x")),
        ('"public"."outbox"', ("public", "outbox")),
        ("100%.a'b", ("100%", "a'b")),
    ],
)
def test_a_part_in_quotes_may_have_any_character(written: str, parts: tuple[str, ...]) -> None:
    assert split_name(written) == parts
    assert Settings(table=written).table == join_name(*parts)
    assert postgres_table(written).count(".") >= 1


@pytest.mark.parametrize(
    "written", ["outbox", "a.b.c", ".b", "a.", 'a."b', '"".b', "a." + "ö" * 32, "a.b\nc", "a.\ud800", ""]
)
def test_what_names_no_table_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        Settings(table=written)


def test_commas_and_equals_signs_in_quotes_belong_to_names() -> None:
    more = 'a.b=c, "x,y"."p=q" = "d, e=f", s.t=My log'
    assert Settings.model_validate({"more_tables": more}).more_tables == {
        "a.b": "c",
        "x,y.p=q": "d, e=f",
        "s.t": "My log",
    }


def test_the_publication_is_not_called_as_outhauls_own_messages_are() -> None:
    assert Settings(publication="100% 'mine'").publication == "100% 'mine'"
    with pytest.raises(ValidationError, match="use another one"):
        Settings(publication="outhaul mark")
