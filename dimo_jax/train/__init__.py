"""Optimization: optimizer, schedules, density control, the training step and its loop."""
