"""The project: settings, addresses, and the door for a WSGI server."""
