"""Everything that is Postgres' own: connections, errors, the slot and its stream, timelines, the checks at start."""
