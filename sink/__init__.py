"""Batches in Redis -> rows in ClickHouse, once; and the contract between reader and workers.

`app` and `task` are the worker. pyproject.toml has the layers as contracts.
"""
