"""`outhaul load`: events at a rate, from several writers, and an exact count of what became of them.

`plan` says what each writer writes, `pace` when, `writer` does it, `run` joins them for a while.
"""
