"""The sdist that hatchling made -> the same, with the links of `outhaul/` to folders.

Edge: rewrites one archive. hatchling keeps a link to a file, but follows a link to a folder, and packs each folder
under one of its two paths only.

Source: https://hatch.pypa.io/latest/plugins/build-hook/reference/
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FolderLinks(BuildHookInterface):  # type: ignore[type-arg] # the configuration's type says nothing here
    """hatchling calls it, as pyproject.toml says."""

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Append the links to the archive."""
        artifact = Path(artifact_path)
        archive = io.BytesIO(gzip.decompress(artifact.read_bytes()))
        with tarfile.open(fileobj=archive, mode="a", format=tarfile.PAX_FORMAT) as tar:
            first = tar.getmembers()[0]
            top = first.name.partition("/")[0]
            for path in sorted(Path(self.root, "outhaul").iterdir()):
                if path.is_symlink() and path.is_dir():
                    link = tarfile.TarInfo(f"{top}/outhaul/{path.name}")
                    link.type, link.linkname, link.mtime = tarfile.SYMTYPE, str(path.readlink()), first.mtime
                    tar.addfile(link)
        # Equal sources give an equal archive: no time of today, no name of a temporary file.
        artifact.write_bytes(gzip.compress(archive.getvalue(), mtime=int(first.mtime)))
