"""Benchmarks: not part of the test run; started by `make bench`."""
