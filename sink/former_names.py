"""A command line of Celery with `-A sink.app`, the path in the previous release -> the app `outhaul.sink.app`.

Edge: sys.meta_path. Celery loads the entry points of the group `celery.commands` before it imports the app. If the
command line names a former path, this module adds a finder behind all others. So a module `sink` of the app comes
first, and the Celery of another app gets no finder.

Source: https://docs.celeryq.dev/en/stable/userguide/extending.html#adding-new-celery-sub-commands
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# Remove this file in the next release.
_PRESENT = {
    "sink.app": "outhaul.sink.app",
    "cdc_reader.pruning.task": "outhaul.cdc_reader.operate.pruning.prune_task",
}
_PACKAGES = frozenset(("sink", "cdc_reader", "cdc_reader.pruning"))


class _Former(MetaPathFinder, Loader):
    """Finds the former paths if no other finder does."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib passes three
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in _PACKAGES and fullname not in _PRESENT:
            return None
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if parent is not None and getattr(parent.__spec__, "loader", None) is not self:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        present = _PRESENT.get(module.__name__)
        if present is None:
            return
        # Python prints a FutureWarning to the operator, and hides a DeprecationWarning.
        warnings.warn(
            f"{module.__name__} is a former name, and works in this release only: type {present}",
            FutureWarning,
            stacklevel=2,
        )
        vars(module)["__getattr__"] = partial(getattr, import_module(present))


def _install() -> None:
    asked = (*sys.argv[1:], os.environ.get("CELERY_APP", ""))
    if any(name in argument for argument in asked for name in _PRESENT):
        sys.meta_path.append(_Former())


@click.command(hidden=True)
def command() -> None:
    """Print a hint; Celery requires a command from an entry point."""
    click.echo("type `outhaul --help`")


_install()
