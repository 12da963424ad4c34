"""Batches in Redis -> rows in ClickHouse, each once; and the contract between reader and workers.

`app` and `task` are the worker. pyproject.toml defines the layers as import contracts.
"""
