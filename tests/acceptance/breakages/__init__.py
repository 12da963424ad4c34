"""A fault of a pipeline -> the alerts that it fires. Each fault is injected into real servers and processes."""

from tests.acceptance.breakages import clickhouse, processes, servers, slot
from tests.acceptance.breakages.table import TROUBLES, Patient, Trouble

__all__ = ["TROUBLES", "Patient", "Trouble", "clickhouse", "processes", "servers", "slot"]
