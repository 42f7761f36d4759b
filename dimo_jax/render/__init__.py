"""Gaussians to images: project, bin into tiles, composite."""

import sys
from types import ModuleType
from typing import Any

from dimo_jax.core.types import Rendering
from dimo_jax.render.pipeline import composite, render
from dimo_jax.render.project import project
from dimo_jax.render.rasterize.api import choose_backend, first_capacity, measure_capacity

__all__ = ["choose_backend", "composite", "first_capacity", "measure_capacity", "project", "render"]


class _Package(ModuleType):
    """This package as `dimo_jax.render` of the face, which is called: importing it takes the function's name there."""

    def __call__(self, *args: Any, **options: Any) -> Rendering:
        return render(*args, **options)


sys.modules[__name__].__class__ = _Package
