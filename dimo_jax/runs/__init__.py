"""A run's folder as a whole: checks before it, what it leaves, loading it, scoring it, many objects."""
