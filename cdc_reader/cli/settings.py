"""`outhaul settings` -> each setting's value, and where it came from.

Edge: the terminal. Secrets are masked: passwords in addresses, and keys whole.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outhaul.sink.quantities import spelled_bytes, spelled_s
from outhaul.sink.settings import Settings, load
from outhaul.sink.settings.load import unknown_variables
from outhaul.sink.settings.origin import Kind, Origin, origins
from outhaul.sink.settings.variables import Unknown, variable
from outhaul.sink.telemetry.scrub import HIDDEN, Scrub, scrub_of

# In these, all but the password is worth seeing.
_ADDRESSES = {"postgres_dsn", "stream_dsn", "redis_url", "clickhouse_url"}


def settings(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the value of every setting and where it came from. Secrets are masked.

    A variable wins over a file of a secret, and that over outhaul.toml. Exit code 3 if the settings are invalid.

    Example: outhaul settings --json | jq '.settings[] | select(.origin != "default")'
    """
    loaded = load()
    found, unknown = origins(), unknown_variables()
    if as_json:
        typer.echo(json.dumps(to_json(loaded, found, unknown)))
        return
    Console().print(_table(loaded, found))
    for one in unknown:
        typer.echo(str(one))


def to_json(loaded: Settings, found: dict[str, Origin], unknown: tuple[Unknown, ...]) -> dict[str, Any]:
    """Return all that is printed in JSON types; durations in seconds, sizes in bytes."""
    scrub = scrub_of(loaded)
    return {
        "settings": [
            {
                "name": name,
                "variable": variable(name),
                "value": _plain(name, getattr(loaded, name), scrub),
                "origin": origin.kind.value,
                "where": origin.where,
            }
            for name, origin in found.items()
        ],
        "unknown": [{"name": one.name, "nearest": one.nearest} for one in unknown],
    }


def _plain(name: str, value: Any, scrub: Scrub) -> Any:
    if not isinstance(value, SecretStr):
        return value
    text = value.get_secret_value()
    if name in _ADDRESSES:
        return scrub.text(text)
    return HIDDEN if text else ""


def _table(loaded: Settings, found: dict[str, Origin]) -> Table:
    scrub = scrub_of(loaded)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for name, origin in found.items():
        value = spelled(name, _plain(name, getattr(loaded, name), scrub))
        style = "dim" if origin.kind is Kind.DEFAULT else ""
        table.add_row(variable(name), escape(value), escape(_source(origin)), style=style)
    return table


def spelled(name: str, value: Any) -> str:
    """Return a value as one writes it in the environment."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={stored}" for key, stored in value.items())
    if isinstance(value, tuple):
        return ", ".join(value)
    if name.endswith("_s"):
        return spelled_s(value)
    if name == "prune_older_than":
        return "" if value is None else spelled_s(value)
    return spelled_bytes(value) if name.endswith("_bytes") else str(value)


def _source(origin: Origin) -> str:
    match origin.kind:
        case Kind.DEFAULT:
            return "default"
        case Kind.DERIVED:
            return f"derived: {origin.where}"
        case Kind.TOML:
            return origin.where
        case Kind.FILE:
            return f"file {origin.where}"
        case Kind.ENVIRONMENT:
            return "environment"
