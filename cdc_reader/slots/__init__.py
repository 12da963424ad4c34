"""The slot as an operator sees it: what it costs, what changing it would skip, and the change, with nothing lost."""
