"""Three real servers out of wheels -> a stack in one directory, for tests, the demo and first steps."""
