"""`python -m outhaul.deploy.kubernetes` -> the PrometheusRule beside this file, made anew from deploy/prometheus.

Edge: files. Prometheus' operator takes the same groups, wrapped as an object of Kubernetes, and kustomize cannot wrap
them; so they are written by this, and a test sees that they are the same.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "prometheus" / "outhaul.rules.yml"
TARGET = HERE / "components" / "monitoring" / "rules.yaml"

_HEAD = """\
# Made from deploy/prometheus/outhaul.rules.yml by: python -m outhaul.deploy.kubernetes
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: outhaul
spec:
"""


def rules() -> str:
    """Return the text of the object: the rules as they are, their comments too, two columns further in."""
    _, line, groups = SOURCE.read_text().partition("\ngroups:\n")
    return _HEAD + textwrap.indent(line.lstrip("\n") + groups, "  ")


if __name__ == "__main__":
    TARGET.write_text(rules())
    sys.stdout.write(f"{TARGET}\n")
