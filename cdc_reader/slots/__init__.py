"""The slot as an operator sees it: what it costs, what changing it would skip, and the change, with nothing lost.

`facts` asks Postgres, `retained` judges the log that it keeps, `plan` says what a change would do; `hold` keeps readers
off, `create` makes a slot with its snapshot, `change` is the order of things. `self_heal` is what a reader does alone.
"""
