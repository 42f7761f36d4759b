"""The command line: apps and their flags, checked before anything heavy is imported."""
