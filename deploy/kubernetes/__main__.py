"""`python -m outhaul.deploy.kubernetes` -> the PrometheusRule beside this file, generated from deploy/prometheus.

Edge: files. The Prometheus operator takes the same groups, wrapped in a Kubernetes object. kustomize cannot wrap them,
so this program does, and a test checks that both files are equal.
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
    """Return the text of the object: the rules with their comments, indented by two columns."""
    _, line, groups = SOURCE.read_text().partition("\ngroups:\n")
    return _HEAD + textwrap.indent(line.lstrip("\n") + groups, "  ")


if __name__ == "__main__":
    TARGET.write_text(rules())
    sys.stdout.write(f"{TARGET}\n")
