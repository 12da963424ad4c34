"""Environment and TOML file -> Settings, or one error that names each setting that is wrong.

Edge: the environment.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr, ValidationError

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import variables
from outhaul.sink.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

log = structlog.get_logger("outhaul.settings")

# Each derived setting has this error as well if any other setting is wrong.
_NOT_DERIVED = "default_factory_not_called"


def load(**overrides: object) -> Settings:
    """Build the settings from overrides, environment and TOML file.

    Raises:
        FatalError: a value is missing, malformed or at odds with another; the message names each.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _invalid("; ".join(_complaint(one) for one in error.errors() if one["type"] != _NOT_DERIVED)) from None
    except tomllib.TOMLDecodeError as error:
        raise _invalid(f"{variables.config_path()} is not TOML: {error}") from None


def load_from(environment: Mapping[str, str], **overrides: object) -> Settings:
    """Build the settings as `load` does; the OUTHAUL_* variables of this mapping win over those of the process.

    Raises:
        FatalError: as of `load`.
    """
    return load(
        **{name.removeprefix(variables.PREFIX).lower(): value for name, value in environment.items()} | overrides
    )


def unknown_variables() -> tuple[variables.Unknown, ...]:
    """Return the OUTHAUL_* variables of this process that nobody reads."""
    return variables.unknown(os.environ, Settings.model_fields, secrets())


def warn_of_unknown() -> None:
    """Log each OUTHAUL_* variable that nobody reads; a process does so once, when its log is set up."""
    for one in unknown_variables():
        log.warning("unknown_setting", variable=one.name, nearest=one.nearest)


def secrets() -> frozenset[str]:
    """Return the names of the settings that are secrets."""
    return frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def _complaint(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = variables.hint(variables.nearest(name, Settings.model_fields))
        return f"{name} in {variables.config_path()} is not a setting{known}"
    said = error["msg"].removeprefix("Value error, ")
    return f"{name}: {said}" if name else said


def _invalid(complaints: str) -> FatalError:
    return FatalError(
        f"the settings are invalid: {complaints}",
        todo="Correct the OUTHAUL_* variables or outhaul.toml",
        exit_code=Exit.SETTINGS,
    )
