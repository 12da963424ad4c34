"""What goes wrong with a pipeline -> the alerts that tell of it; each is done to real servers and processes."""

from tests.acceptance.breakages import clickhouse, processes, servers, slot
from tests.acceptance.breakages.table import TROUBLES, Patient, Trouble

__all__ = ["TROUBLES", "Patient", "Trouble", "clickhouse", "processes", "servers", "slot"]
