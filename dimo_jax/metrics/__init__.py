"""Figures of merit, computed as in the literature."""
