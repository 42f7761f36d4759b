"""Benchmarks: each is a module to run, `python -m bench.NAME`, and prints a table."""
