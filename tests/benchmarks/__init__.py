"""Benchmarks: not run by pytest, and no figure of theirs decides a test. `make bench`, or `outhaul bench --help`."""
