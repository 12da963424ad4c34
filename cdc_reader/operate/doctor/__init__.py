"""Settings and servers -> a checklist: what passes, what needs attention, what is broken, and the fix for it.

Each server has a file that asks it (`postgres_checks`, `clickhouse_checks`, `redis_checks`, `worker_checks`,
`monitoring_checks`, `standby_checks`: edges); the other files judge the answers (pure). `checklist` joins them.
"""
