"""A live view of a pipeline: `ask` has a thread for each server, `rates` and `troubles` remember what they said for a
while, `screen` lays it out, `terminal` hears keys, `show` turns round once a second.
"""
