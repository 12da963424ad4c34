"""The project: settings, URLs, and the entry point for a WSGI server."""
