-- When an operator discarded a dead letter. Its values are deleted then; id, reason and position stay, so that
-- `outhaul verify` does not count it as missing and no reader streams it again.
ALTER TABLE ${dead_letters}${on_cluster} ADD COLUMN IF NOT EXISTS discarded_at Nullable(DateTime64(6, 'UTC'));
