"""Everything that is Redis' own: where the server is, connections, errors, payloads and reports, Celery's transport."""
