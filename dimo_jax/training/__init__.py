"""The training engine: optimizer, schedules, density control, devices, checkpoints. Knows no system."""
