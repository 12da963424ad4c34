"""The app `users`: a model, a use case, and its endpoint."""
