"""Everything about Postgres: connections, errors, the slot and its stream, timelines, and the checks at start."""
