"""Gaussians to images: project, bin into tiles, composite."""

from dimo_jax.render.pipeline import render

__all__ = ["render"]
