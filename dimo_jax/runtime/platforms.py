"""The kind of device that programs are built for: the one at hand, or another that they are only compiled for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_chosen: ContextVar[str | None] = ContextVar("platform", default=None)


def current_platform() -> str:
    """ "cpu", "gpu" or "tpu": what the default device is, or what `building_for` says."""
    return _chosen.get() or jax.default_backend()


@contextmanager
def building_for(platform: str) -> Iterator[None]:
    """Inside, programs are traced as for "cpu", "gpu" or "tpu", whatever the default device is; they cannot run here.

    jax does not know of it: what was traced before or inside stays in its caches, so a process keeps to one platform.
    """
    token = _chosen.set(platform)
    try:
        yield
    finally:
        _chosen.reset(token)
