"""Adapters to weights and formats of other projects, each with its origin and licence."""
