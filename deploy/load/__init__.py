"""A rate -> events from several writers, and an exact count of those committed and rolled back: `outhaul load`.

`plan` makes the transactions of each writer, `pace` their times, `writer` writes them, and `run` runs the writers.
"""
