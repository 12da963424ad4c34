"""Phases of a reader and states of a slot -> numbers, with a text and a colour for each.

Pure. With several readers of a source, the panel shows the highest number, so the order is from idle to streaming.
"""

from __future__ import annotations

from outhaul.deploy.grafana.panel import BLUE, GREEN, ORANGE, RED, YELLOW
from outhaul.deploy.grafana.promql import numbered

_PHASES = {
    "standing_by": BLUE,
    "starting": YELLOW,
    "reconnecting": ORANGE,
    "parked": RED,
    "draining": YELLOW,
    "recovering": YELLOW,
    "pausing": YELLOW,
    "paused": ORANGE,
    "waiting": ORANGE,
    "streaming": GREEN,
}
_STATUSES = {"reserved": GREEN, "extended": YELLOW, "unreserved": ORANGE, "missing": RED, "lost": RED}


def _words(colors: dict[str, str]) -> dict[int, tuple[str, str]]:
    return {number: (name.replace("_", " "), color) for number, (name, color) in enumerate(colors.items(), start=1)}


PHASE_WORDS = _words(_PHASES)
STATUS_WORDS = _words(_STATUSES)


def phase(*by: str) -> str:
    """Return the number of a reader's phase."""
    return numbered("outhaul_reader_phase", "phase", _PHASES, *by)


def status() -> str:
    """Return the number of the slot's state."""
    return numbered("outhaul_slot_status", "status", _STATUSES)
