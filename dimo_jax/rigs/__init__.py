"""Skeletons and clips of animated models, and the poses they make."""
