"""A live view of a pipeline: `polling` has a thread for each server, `rates` and `problem_history` keep a history of
the answers, `screen` lays them out, `terminal` reads keys, `refresh_loop` joins them.
"""
