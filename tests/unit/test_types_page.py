"""The table of docs/types.md is what the code does."""

import re
from pathlib import Path

from outhaul.cdc_reader.capture.column_types import Oid, column_type

PAGE = (Path(__file__).parents[2] / "docs" / "types.md").read_text()


def test_the_page_has_every_type_that_is_read_in_binary_and_what_it_becomes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert dict(rows) == {oid.name: column_type(oid).clickhouse for oid in Oid}
