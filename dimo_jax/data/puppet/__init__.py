"""The embedded character."""
