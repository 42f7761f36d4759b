"""Presets: one file a system, and one a variation of it."""
