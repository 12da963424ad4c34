"""`OUTHAUL_<NAME>_FILE` -> the secret that the file holds, as containers and systemd hand them out.

Edge: the environment, and the files that it names. Only secrets may be in files. A missing file is an error. So is a
secret that has both a variable and a file: changing one of the two would have no effect.

Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/#adding-sources
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pydantic_settings import PydanticBaseSettingsSource

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# Secrets are shorter. A wrong path, such as that of a device or a log, may lead to more bytes.
_MAX_BYTES = 64 << 10


class SecretFiles(PydanticBaseSettingsSource):
    """A source of settings for pydantic."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the text of a field's file, if there is one; the name; and that it is no JSON."""
        variable = f"{self.config.get('env_prefix', '')}{field_name}".upper()
        path = os.environ.get(f"{variable}_FILE")
        if field.annotation is not SecretStr or not path:
            return None, field_name, False
        if variable in os.environ:
            raise FatalError(
                f"{variable} and {variable}_FILE are both given", todo="Unset one of them", exit_code=Exit.SETTINGS
            )
        return _read(Path(path), variable), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return all secrets that files hold."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: text for name, text in found.items() if text is not None}


def _read(path: Path, variable: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FatalError(
            f"{variable}_FILE: {path} cannot be read ({why})",
            todo="Name a file that this process may read",
            exit_code=Exit.SETTINGS,
        ) from None
    if len(raw) > _MAX_BYTES:
        raise FatalError(
            f"{variable}_FILE: {path} is too long to be a secret",
            todo="Name the file that holds it, and nothing else",
            exit_code=Exit.SETTINGS,
        )
    if not text:
        raise FatalError(f"{variable}_FILE: {path} is empty", todo="Write the secret into it", exit_code=Exit.SETTINGS)
    return text
