"""What a process says of its work: log lines, metrics, and errors for Sentry, all without secrets."""
