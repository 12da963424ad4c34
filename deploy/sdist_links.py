"""The sdist that hatchling has built -> the same archive with the links from `outhaul/` to folders.

Edge: rewrites one archive. hatchling stores a link to a file as a link. But it follows a link to a folder, and then
includes the folder under only one of its two paths.

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
    """The hook that pyproject.toml names."""

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
        # Equal sources give an equal archive: gzip would write the current time.
        artifact.write_bytes(gzip.compress(archive.getvalue(), mtime=int(first.mtime)))
