"""The files of the repository: where they are, what they are called, and which of them import each other."""

from __future__ import annotations

import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import outhaul.cdc_reader.capture

ROOT = Path(__file__).parents[2]
FOLDERS = ("cdc_reader", "deploy", "producer", "sink", "sql", "tests")
# Names that told nobody what is in the file.
RIDDLES = frozenset(
    {"signs", "words", "judgement", "answers", "held", "window", "render", "printers", "lineage", "stream_server"}
    | {"standby", "line", "paper", "takes", "order", "faithful", "identity", "inbox", "moment", "kept", "branch"}
    | {"utils", "util", "helpers", "common", "base", "manager", "misc"}
)
# Django looks for these names, Python for the others.
GIVEN = frozenset({"__init__", "__main__", "sitecustomize", "conftest"})


def files(*suffixes: str) -> list[Path]:
    found = (path for folder in FOLDERS for suffix in suffixes for path in (ROOT / folder).rglob(f"*{suffix}"))
    return sorted(path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts)


def package_of(path: Path) -> str:
    """Return the folder within which a name is that of one file."""
    return "/".join(path.parts[: 1 if path.parts[0] in {"cdc_reader", "producer", "sink"} else 2])


def test_no_two_files_of_a_package_have_one_name() -> None:
    by_name: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in files(".py"):
        # A command's file has the command's name.
        if path.stem not in GIVEN and path.parts[:2] != ("cdc_reader", "cli") and "examples" not in path.parts:
            by_name[package_of(path), path.stem].append(str(path))
    assert {name: paths for name, paths in by_name.items() if len(paths) > 1} == {}


def test_no_file_has_a_name_that_must_be_explained() -> None:
    names = {str(path): re.sub(r"^(test_|\d+_)|(_\d+)$", "", path.stem) for path in files(".py", ".sql", ".json")}
    assert [path for path, name in names.items() if name in RIDDLES] == []


def test_no_modules_import_each_other_in_a_circle_not_even_for_types() -> None:
    graph = grimp.build_graph("outhaul", cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imported) > 300
    # It raises CycleError, which has the circle.
    TopologicalSorter(imported).prepare()


def test_capture_lists_its_stages_in_the_order_of_an_event_s_way() -> None:
    listed = re.findall(r"^ +([a-z_]+) +\S", outhaul.cdc_reader.capture.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(
        path.stem for path in (ROOT / "cdc_reader/capture").glob("*.py") if path.stem != "__init__"
    )


@pytest.mark.parametrize("folder", [path.parent for path in files("__init__.py") if path.parts[0] != "tests"], ids=str)
def test_a_folder_says_what_happens_in_it(folder: Path) -> None:
    text = (ROOT / folder / "__init__.py").read_text()
    # Django names these, and everybody who knows Django knows them.
    assert text.startswith('"""') or folder.name in {"migrations", "management", "commands"}
