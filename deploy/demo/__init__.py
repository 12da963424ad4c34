"""The demo: real events through the whole pipeline."""
