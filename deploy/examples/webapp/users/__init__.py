"""Users: a model, one use case, its endpoint."""
