"""Data in: cameras, formats, the embedded character, and the batch sampler."""
