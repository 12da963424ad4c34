"""What an operator does beside the running reader: set up, look, check, pause, retry dead letters, prune, monitor."""
