"""A slot and its outbox -> what the slot costs, what a change of it skips, and the change, without loss of events."""
