"""A setting -> where its value came from.

Edge: the environment and the TOML file, for names only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import TomlConfigSettingsSource

from outhaul.sink.settings.load import secrets
from outhaul.sink.settings.settings import Settings
from outhaul.sink.settings.variables import FILE_SUFFIX, config_path, is_of_service, variable

if TYPE_CHECKING:
    from collections.abc import Collection


class Kind(StrEnum):
    """Which source wins: in the order of this list, the later over the earlier."""

    DEFAULT = "default"
    DERIVED = "derived"
    TOML = "toml"
    FILE = "file"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `where` is the rule, the path or the variable, and empty for a default."""

    kind: Kind
    where: str = ""


def origins() -> dict[str, Origin]:
    """Return the origin of each setting of this process, by name; the settings are valid."""
    path = str(Path(config_path()).absolute())
    in_toml = TomlConfigSettingsSource(Settings, toml_file=path)().keys()
    in_environment = {name.upper(): name for name, value in os.environ.items() if not is_of_service(name, value)}
    return {name: _origin(name, path, in_toml, in_environment) for name in Settings.model_fields}


def rule(name: str) -> str:
    """Return the rule by which the default of a setting follows from another one; empty if the default is fixed."""
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra.get("derived", "")) if isinstance(extra, dict) else ""


def _origin(name: str, path: str, in_toml: Collection[str], in_environment: dict[str, str]) -> Origin:
    if variable(name) in in_environment:
        return Origin(Kind.ENVIRONMENT, in_environment[variable(name)])
    if name in secrets() and (file := os.environ.get(variable(name) + FILE_SUFFIX)):
        return Origin(Kind.FILE, file)
    if name in in_toml:
        return Origin(Kind.TOML, path)
    return Origin(Kind.DERIVED, rule(name)) if rule(name) else Origin(Kind.DEFAULT)
