"""A live view of a pipeline: `poll` has a thread for each server, `rates` and `troubles` keep a history of the answers,
`screen` lays them out, `terminal` reads keys, `show` is the loop.
"""
