"""Chooses the compositing backend. Every backend is a module with `rasterize` and `why_unavailable`.

A backend's `rasterize` follows `dimo_jax.core.types.Rasterize`; its `why_unavailable()` returns None where it can run,
else one sentence that says why not and how to get it; `tile_size()`, if it has one, gives the side of the tiles that
its capacity counts in.
"""

from __future__ import annotations

import functools
import importlib
import types

import chex
import jax
from absl import logging

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Splats
from dimo_jax.render import tiles
from dimo_jax.runtime.platforms import current_platform

# Modules are imported on first use, so that a backend's dependencies load only where it runs.
BACKENDS = {
    "xla": "dimo_jax.render.rasterize.xla",
    "native": "dimo_jax.render.rasterize.native",
    "pallas": "dimo_jax.render.rasterize.pallas",
}
# The fastest first, by device; a device that is not named takes "xla".
PREFERENCE = {"cpu": ("native", "xla"), "gpu": ("pallas", "xla"), "tpu": ("pallas", "xla")}
NUM_FEATURES = 7
DEFAULT_TILE = 16  # pixels, of a backend that does not name its own


def rasterize(
    splats: Splats, *, height: int, width: int, capacity: int | None = None, implementation: str | None = None
) -> tuple[Array, Array, Array]:
    """Composites splats front to back into one image.

    Args:
      splats: N projected Gaussians, N may be 0.
      height, width: image size in pixels.
      capacity: room for Gaussian-tile pairs in the buffers of backends that need static shapes. None counts the pairs
        where the splats are concrete. Under tracing, where they cannot be counted, it takes `tiles.default_capacity`,
        and a picture for which that is too small says so in a warning on the host.
      implementation: a key of `BACKENDS`, or None for the fastest one that can run on the default device.

    Returns:
      features [H,W,7], the sum over Gaussians of weight x features; transmittance [H,W] in 0..1; overflow [] int32, the
      number of pairs that found no room. Differentiable in everything but `depths` and `extents`.

    Raises:
      UserError: the named backend does not exist or cannot run here.
    """
    num_gaussians = splats.depths.shape[0]
    chex.assert_shape(splats.means2d, (num_gaussians, 2))
    chex.assert_shape(splats.conics, (num_gaussians, 3))
    chex.assert_shape([splats.opacities, splats.depths], (num_gaussians,))
    chex.assert_shape(splats.extents, (num_gaussians, 2))
    chex.assert_shape(splats.features, (num_gaussians, NUM_FEATURES))
    backend = load_backend(choose_backend(implementation))
    outputs: tuple[Array, Array, Array] = backend.rasterize(splats, height=height, width=width, capacity=capacity)
    tile = _tile_of(backend)
    if capacity is None and tile is not None and isinstance(outputs[2], jax.core.Tracer):
        rows, columns = tiles.count_tiles(height, width, tile=tile)
        assumed = tiles.default_capacity(num_gaussians, rows * columns)
        if assumed < num_gaussians * rows * columns:
            jax.debug.callback(functools.partial(_warn, assumed), outputs[2])
    return outputs


def _warn(capacity: int, overflow: Array) -> None:
    """Says that Gaussians are missing, where nobody chose a capacity and so nobody may look at `overflow`."""
    if overflow > 0:
        logging.log_every_n_seconds(
            logging.WARNING,
            "render: %d Gaussian-tile pairs found no room among %d, so the farthest Gaussians are missing from a "
            "picture; pass capacity=%d or more (measure_capacity gives a fitting one)",
            1.0,
            overflow,
            capacity,
            tiles.round_capacity(capacity + int(overflow)),
        )


def measure_capacity(splats: Splats, *, height: int, width: int, implementation: str | None = None) -> int:
    """A capacity that fits splats like these, with headroom, for the backend that `rasterize` would use.

    Args:
      splats: concrete (not traced) splats; leading batch axes, if any, are images, and the fullest one counts.
      height, width: image size in pixels.
      implementation: as in `rasterize`.
    """
    tile = _tile_of(load_backend(choose_backend(implementation))) or DEFAULT_TILE
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[splats.depths.ndim - 1 :]), splats)
    pairs = jax.vmap(lambda s: tiles.count_pairs(s, height=height, width=width, tile=tile))(flat)
    return tiles.round_capacity(int(pairs.max(initial=0)))


def first_capacity(num_gaussians: int, implementation: str | None = None) -> int | None:
    """Where to begin for a caller that looks at `overflow` and grows; None for a backend without static buffers."""
    backend = load_backend(choose_backend(implementation))
    return tiles.guess_capacity(num_gaussians) if _tile_of(backend) else None


def _tile_of(backend: types.ModuleType) -> int | None:
    found: int | None = backend.tile_size() if hasattr(backend, "tile_size") else None
    return found


def choose_backend(implementation: str | None = None) -> str:
    """The name of the backend that `rasterize` would use.

    Raises:
      UserError: the named backend does not exist or cannot run here; the message says why and how to get it.
    """
    if implementation is None:
        candidates = PREFERENCE.get(current_platform(), ("xla",))
        return next(name for name in candidates if why_unavailable(name) is None)
    if implementation not in BACKENDS:
        raise UserError(f"render implementation: found {implementation!r}, expected one of {', '.join(BACKENDS)}")
    reason = why_unavailable(implementation)
    if reason is not None:
        raise UserError(f"render implementation: {implementation!r} cannot run: {reason}")
    return implementation


def why_unavailable(name: str) -> str | None:
    """None where backend `name` can run, else the reason and the remedy in one sentence."""
    try:
        backend = load_backend(name)
    except ModuleNotFoundError as error:
        # Only the backend's own absence is an answer; a broken import inside it must be seen.
        if error.name is None or not BACKENDS[name].startswith(error.name):
            raise
        return f"module {BACKENDS[name]} is not part of this installation; use another of {', '.join(BACKENDS)}"
    reason: str | None = backend.why_unavailable()
    return reason


def load_backend(name: str) -> types.ModuleType:
    """Imports the module of backend `name`."""
    return importlib.import_module(BACKENDS[name])
