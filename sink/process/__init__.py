"""The worker as a process: a watchdog that starts Celery again, the heartbeat that it looks for, the metrics port."""
