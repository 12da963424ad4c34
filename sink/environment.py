"""Environment and open files of a process as others left them -> as outhaul needs them.

Edge: the environment, and the standard streams. outhaul often runs with the environment of an app that uses Celery
itself. Celery prefers some variables to its configuration: with the app's CELERY_BROKER_URL, outhaul would send batches
to the app's broker. So only OUTHAUL_* variables are settings of outhaul. Imports the standard library only, since
libraries read some variables when they are imported.

Source: https://docs.celeryq.dev/en/stable/reference/cli.html
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CELERY = "CELERY_"
# Celery's command line reads these, without a prefix. C_… and others switch Celery's debugging aids on.
_CELERYS = frozenset(
    {
        "APP", "BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND", "SKIP_CHECKS",
        "C_BENCH", "C_BENCH_EVERY", "C_FAKEFORK", "C_IMPDEBUG", "C_REMDEBUG", "C_STRICT_APP", "C_WARN_APP", "C_WNOCONF",
        "EVENTLET_NOBLOCK", "FORKED_BY_MULTIPROCESSING", "MP_LOG", "MP_MAIN_FILE", "TIMER_DEBUG", "USE_FAST_LOCALS",
        # With it, Celery imports the app's Django project.
        "DJANGO_SETTINGS_MODULE",
    }
)  # fmt: skip
# With it, prometheus-client writes metrics to the app's files and not to outhaul's pages.
_METRICS = frozenset({"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"})


def open_streams() -> None:
    """Open the standard streams that the starter has closed, for nothing to be read and nothing to be kept.

    Otherwise the next socket would get the number of standard error, and everything that writes there would fail.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one: those below it are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def forget_others() -> None:
    """Remove all these variables; call this before libraries are imported."""
    forget_celerys()
    _forget(_METRICS)


def forget_celerys() -> None:
    """Remove the variables that Celery reads."""
    _forget({name for name in os.environ if name in _CELERYS or name.startswith(_CELERY)})


def _forget(names: Iterable[str]) -> None:
    for name in names:
        os.environ.pop(name, None)
