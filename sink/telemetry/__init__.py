"""Reports about a process's work: log lines, metrics, and errors for Sentry, all without secrets."""
