"""dimo_jax: generates and recovers the motion of 3D objects.

```
import dimo_jax as dj

run = dj.load_run("runs/dimo")
clip = run.play(run.sample(seed=1), num_frames=42)
image = dj.render(clip.gaussians[0], dj.orbit_camera(azimuth=30, size=256)).rgb
```

The names below are all that most programs need (docs/library.md); each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimo_jax.cameras.orbits import orbit_camera
    from dimo_jax.core.types import Camera, Gaussians, Rendering
    from dimo_jax.data.puppet.dataset import make_puppet
    from dimo_jax.data.sources import load_placed as load_dataset
    from dimo_jax.io.images import tile
    from dimo_jax.io.ply import read_gaussians as read_ply
    from dimo_jax.io.ply import write_gaussians as write_ply
    from dimo_jax.render import render
    from dimo_jax.runs.build import load_preset, make_trainer, stretch
    from dimo_jax.runs.run import Run, load_run, make_run
    from dimo_jax.skinning.blending import linear_blend
    from dimo_jax.skinning.weights import rbf_weights
    from dimo_jax.training.trainer import Trainer

__version__ = "0.1.0"
# Where each public name stands, and under which name if another.
_NAMES = {
    "Camera": "core.types",
    "Gaussians": "core.types",
    "Rendering": "core.types",
    "Run": "runs.run",
    "Trainer": "training.trainer",
    "linear_blend": "skinning.blending",
    "load_dataset": "data.sources:load_placed",
    "load_preset": "runs.build",
    "load_run": "runs.run",
    "make_puppet": "data.puppet.dataset",
    "make_run": "runs.run",
    "make_trainer": "runs.build",
    "orbit_camera": "cameras.orbits",
    "rbf_weights": "skinning.weights",
    "read_ply": "io.ply:read_gaussians",
    "render": "render",
    "stretch": "runs.build",
    "tile": "io.images",
    "write_ply": "io.ply:write_gaussians",
}
__all__ = [
    "Camera",
    "Gaussians",
    "Rendering",
    "Run",
    "Trainer",
    "__version__",
    "linear_blend",
    "load_dataset",
    "load_preset",
    "load_run",
    "make_puppet",
    "make_run",
    "make_trainer",
    "orbit_camera",
    "rbf_weights",
    "read_ply",
    "render",
    "stretch",
    "tile",
    "write_ply",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'dimo_jax' has no attribute {name!r}; it has {', '.join(sorted(_NAMES))}")
    module, _, there = _NAMES[name].partition(":")
    home = importlib.import_module(f"dimo_jax.{module}")
    value = home if module == name else getattr(home, there or name)  # the package `render` can be called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
