"""Load and random faults on an embedded stack -> a count of every event, and a verdict: `outhaul chaos`."""
