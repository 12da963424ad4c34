"""`outhaul exporter`: three servers and an audit, looked at all the time -> Prometheus metrics.

A process of its own, since what it tells matters most when the reader is dead: how much log the slot keeps, how fast
that grows, whether anything is missing. It changes nothing anywhere; docs/adr/0009 says why it is not in the reader.
"""
