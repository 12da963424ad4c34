"""`outhaul exporter`: polls of three servers, and an audit -> Prometheus metrics.

A separate process, since its metrics matter most while no reader runs: how much WAL the slot keeps, how fast that
grows, whether events are missing. It changes nothing; docs/adr/0009 has the reasons.
"""
