"""One streaming session: recovery, then a loop that sends batches, receives reports, and sends Postgres the position.

A session that fails is not repaired: the reader begins a new one, and recovery is the only way back.
"""
