"""The rates in docs/scaling.md follow from its figures, and these are the measured ones."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from outhaul.cdc_reader.session.loop import MAX_IN_FLIGHT_BYTES
from outhaul.deploy.scaling import PAGE, Figures, primaries, primary_rows_s, with_table
from outhaul.sink.settings import Settings

TEXT = PAGE.read_text()
FIGURES = Figures.of(TEXT)
MEASURED = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()


def test_the_table_is_what_its_figures_make() -> None:
    assert with_table(TEXT) == TEXT, "run: python -m outhaul.deploy.scaling"
    assert with_table(TEXT.replace("| 480 |", "| 481 |")) != TEXT.replace("| 480 |", "| 481 |")


@pytest.mark.parametrize("process", ["postgres", "reader", "worker", "redis", "clickhouse"])
def test_the_cost_of_a_process_is_the_one_that_was_measured(process: str) -> None:
    row = re.search(rf"^\| {process} \|[^|]*\| ([\d.]+) \|", MEASURED, re.MULTILINE)
    assert row
    assert getattr(FIGURES, f"{process}_cpu_s") == float(row[1])


def test_a_readers_rate_is_the_one_that_was_measured() -> None:
    row = re.search(r"\*\*outhaul, end to end\*\* \| ([\d,]+)", MEASURED)
    assert row
    assert FIGURES.reader_rows_s == int(row[1].replace(",", ""))


def test_bounds_of_batches_are_those_of_the_settings() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert FIGURES.batch_rows == defaults["batch_max_rows"]
    assert FIGURES.batches_s == 1 / defaults["linger_s"]
    assert FIGURES.in_flight_mib == MAX_IN_FLIGHT_BYTES / 2**20


def test_slots_share_the_sending_and_not_the_decoding() -> None:
    figures = replace(FIGURES, postgres_cpu_s=3.0, decoding_cpu_s=2.0, reader_rows_s=1_000_000)
    assert [round(primary_rows_s(figures, slots) / 0.7) for slots in (1, 2, 10**9)] == [333_333, 400_000, 500_000]
    assert [primaries(figures, 699_000, slots) for slots in (1, 2, 10**9)] == [3, 3, 2]


def test_a_slots_rate_is_bound_by_its_reader_too() -> None:
    assert primary_rows_s(replace(FIGURES, reader_rows_s=1000), 2) == pytest.approx(1400)


def test_the_text_names_what_the_figures_say() -> None:
    for slots, words in ((1, "170,000 events a second"), (10**9, "370,000 events a second")):
        said = int(words.partition(" ")[0].replace(",", ""))
        assert words in TEXT.replace("\n", " ")
        assert primary_rows_s(FIGURES, slots) == pytest.approx(said, rel=0.02)
