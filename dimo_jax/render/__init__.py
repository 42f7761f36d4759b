"""Gaussians to images: project, bin into tiles, composite."""

from dimo_jax.render.pipeline import composite, render
from dimo_jax.render.project import project
from dimo_jax.render.rasterize.api import choose_backend, first_capacity, measure_capacity

__all__ = ["choose_backend", "composite", "first_capacity", "measure_capacity", "project", "render"]
