"""The worker as a process: a watchdog that restarts Celery, the pulse key that it checks, and the metrics port."""
