"""The kind of device that programs are built for: the one at hand, or another that they are only compiled for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_chosen: ContextVar[str | None] = ContextVar("platform", default=None)
_capability: ContextVar[tuple[int, int] | None] = ContextVar("capability", default=None)


def current_platform() -> str:
    """ "cpu", "gpu" or "tpu": what the default device is, or what `building_for` says."""
    return _chosen.get() or jax.default_backend()


def current_capability() -> tuple[int, int] | None:
    """Compute capability of the GPU that programs are built for, such as (9, 0); None where that is no GPU."""
    if _chosen.get() is not None:
        return _capability.get()
    said = getattr(jax.devices()[0], "compute_capability", None) if jax.default_backend() == "gpu" else None
    if said is None:
        return None
    major, _, minor = str(said).partition(".")
    return int(major), int(minor or 0)


@contextmanager
def building_for(platform: str, capability: tuple[int, int] | None = None) -> Iterator[None]:
    """Inside, programs are traced as for "cpu", "gpu" or "tpu", whatever the default device is; they cannot run here.

    `capability` is that of a GPU, see `current_capability`.

    jax does not know of it: what was traced before or inside stays in its caches, so a process keeps to one platform.
    """
    token, other = _chosen.set(platform), _capability.set(capability)
    try:
        yield
    finally:
        _chosen.reset(token)
        _capability.reset(other)
