"""Three servers and the reader's own report -> one snapshot of the pipeline, and what is wrong with it."""
