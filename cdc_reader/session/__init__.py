"""One streaming session: recovery, then a loop that sends batches, hears of them, and tells Postgres how far it is.

A session that fails is not repaired: the reader begins a new one, and recovery is the only way back.
"""
