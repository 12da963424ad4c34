"""A year of real events -> the whole pipeline, embedded, and a count of every event: `outhaul demo`."""
