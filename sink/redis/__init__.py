"""All access to Redis: finding the server, connections, errors, payloads and reports, Celery's transport."""
