"""Commands of `outhaul` -> docs/reference/cli.md.

Edge: imports all commands, and reads in pyproject.toml which files the wheel leaves out. What a parameter accepts
comes from the command's annotations and from the parameter itself, not from typer's help, whose form varies between
its releases.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import tomllib
import typing
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer.main
from typer.models import ParameterInfo

from outhaul.cdc_reader.cli import app, join
from outhaul.sink.quantities import spelled_s

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
_WIDTH = 100
_HEAD = """# Commands

Every command reads the [settings](settings.md) from the environment and `outhaul.toml`, and exits
with one of these [exit codes](exit-codes.md). `outhaul COMMAND --help` prints what this page has.
`outhaul --version` prints the version, and `outhaul --install-completion` installs completion for
your shell.

- **DURATION** is written `500ms`, `60s`, `2h`, `7d` or `1h30m`. A number without a unit is in
  seconds.
- **AGE** is a duration with a unit: `12h`, `7d`.
- **TIME** is `2026-01-31`, `2026-01-31T12:00` (UTC unless it has an offset), or an age.

This page has all commands of the package. `outhaul bench` and `outhaul chaos` exist only in a
checkout: [performance](../performance.md), [tests](../testing.md).

The code generates this page: `python -m outhaul.deploy.reference`.
"""
_PLACEHOLDERS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the words that are typed after `outhaul`, click's command, and whether the wheel has it."""

    words: tuple[str, ...]
    command: Any
    is_shipped: bool

    @property
    def is_group(self) -> bool:
        return hasattr(self.command, "commands")


def commands() -> list[Command]:
    """List all commands of a checkout, in the order of `outhaul --help`, each group before its commands."""
    join([])
    absent = _left_out()
    return [
        Command(words, command, is_shipped=not absent & set(words[:1]))
        for words, command in _walk(typer.main.get_command(app), ())
    ]


def page() -> str:
    """Return the page."""
    shipped = [one for one in commands() if one.words and one.is_shipped]
    index = "".join(
        f"| [`outhaul {' '.join(one.words)}`](#outhaul-{'-'.join(one.words)}) | {_summary(one)} |\n"
        for one in shipped
        if not one.is_group
    )
    return f"{_HEAD}\n| command | what it does |\n|---|---|\n{index}" + "".join(_section(one) for one in shipped)


def _left_out() -> set[str]:
    """Return the names of the commands whose modules the wheel does not have."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    absent = project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    modules = {entry.name: f"/{entry.module.replace('.', '/')}" for entry in entry_points(group="outhaul.commands")}
    return {
        name
        for name, module in modules.items()
        if any(f"{module}.py" == path or module.startswith(f"{path}/") for path in absent)
    }


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, (*words, name))


def _section(one: Command) -> str:
    level = "#" * (len(one.words) + 1)
    typed = " ".join(("outhaul", *one.words))
    about, _, example = inspect.cleandoc(one.command.help).partition("Example: ")
    if one.command.context_settings.get("ignore_unknown_options"):
        about = f"{about.strip()}\n\nIt passes on options that are not in the table."
    paragraphs = "\n\n".join(textwrap.fill(" ".join(part.split()), _WIDTH) for part in about.strip().split("\n\n"))
    text = f"\n{level} {typed}\n\n{paragraphs}\n"
    if one.is_group:
        return text
    arguments = [_argument(parameter) for parameter in one.command.params if parameter.param_type_name == "argument"]
    usage = " ".join((typed, "[OPTIONS]", *arguments))
    return f"{text}\n```console\n$ {example.strip()}\n```\n\nUsage: `{usage}`\n{_tables(one)}"


def _summary(one: Command) -> str:
    return _cell(one.command.short_help or re.split(r"\. |; |: |\.?\n", one.command.help)[0] + ".")


def _tables(one: Command) -> str:
    hints = _hints(one.command.callback)
    shown = [parameter for parameter in one.command.params if not parameter.hidden]
    arguments = [
        f"| `{_argument(parameter)}` | {_meaning(parameter, hints)} |\n"
        for parameter in shown
        if parameter.param_type_name == "argument"
    ]
    options = [
        f"| `{_option(parameter, hints)}` | {_default(parameter)} | {_meaning(parameter, hints)} |\n"
        for parameter in shown
        if parameter.param_type_name == "option"
    ]
    return (f"\n| argument | meaning |\n|---|---|\n{''.join(arguments)}" if arguments else "") + (
        f"\n| option | default | meaning |\n|---|---|---|\n{''.join(options)}" if options else ""
    )


def _hints(callback: Any) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(callback), include_extras=True)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name if parameter.required else f'[{name}]'}{'...' if parameter.nargs == -1 else ''}"


def _option(parameter: Any, hints: dict[str, Any]) -> str:
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return names if parameter.is_flag else f"{names} {_value(parameter, hints)}"


def _value(parameter: Any, hints: dict[str, Any]) -> str:
    kind = _kind(hints[parameter.name])
    if parameter.metavar:
        return str(parameter.metavar)
    return "CHOICE" if issubclass(kind, Enum) else _PLACEHOLDERS[kind]


def _kind(hint: Any) -> Any:
    """Return the type of one value: `Annotated[list[str] | None, …]` is of `str`."""
    while get_args(hint):
        is_union = get_origin(hint) in {typing.Union, UnionType}
        hint = next(part for part in get_args(hint) if not is_union or part is not type(None))
    return hint


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.is_flag:
        names = parameter.opts if value else parameter.secondary_opts
        return f"`{names[0]}`" if names else ""
    if value in {None, ""} or not parameter.show_default:
        return ""
    if isinstance(value, Enum):
        return f"`{value.value}`"
    return f"`{spelled_s(value)}`" if parameter.metavar == "DURATION" and value else f"`{value}`"


def _meaning(parameter: Any, hints: dict[str, Any]) -> str:
    parts = [parameter.help]
    hint = hints[parameter.name]
    kind = _kind(hint)
    if inspect.isclass(kind) and issubclass(kind, Enum):
        parts.append(f"One of {', '.join(f'`{one.value}`' for one in kind)}.")
    info = next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, ParameterInfo)), None)
    if info and info.min is not None:
        parts.append(f"At least `{info.min}`." if info.max is None else f"`{info.min}` to `{info.max}`.")
    return _cell(" ".join(parts))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
