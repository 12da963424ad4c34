"""The chaos run: load and random faults on an embedded stack, then a count of every event."""
