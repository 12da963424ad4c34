"""Settings and servers -> a checklist: what is as it must be, what could be better, what is broken, and the fix.

One file asks each server (`postgres`, `clickhouse`, `redis`, `celery`, `monitoring`: edges), the others judge what was
answered (pure); `examine` joins them.
"""
