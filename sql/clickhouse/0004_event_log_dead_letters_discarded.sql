-- When an operator gave a dead letter up. Its values are gone by then; id, reason and position stay, so that it can be told
-- from an event that is missing, and no reader streams it again.
ALTER TABLE ${table}_dead_letters${on_cluster} ADD COLUMN IF NOT EXISTS discarded_at Nullable(DateTime64(6, 'UTC'));
