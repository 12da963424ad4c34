-- Whether the owner of an epoch must be in ${owners}, too.
ALTER TABLE ${epochs}${on_cluster} ADD COLUMN IF NOT EXISTS in_memory Bool DEFAULT false;
