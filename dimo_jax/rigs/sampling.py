"""Clips as poses at given times: STEP, LINEAR and CUBICSPLINE keys to arrays of one shape for every clip of a rig."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dimo_jax.rigs.forward import Pose, Rig
from dimo_jax.rigs.posing import sample_channel
from dimo_jax.rigs.scene import check_clips
from dimo_jax.rigs.skeleton import Clip

_FIELDS = {"translation": "translations", "rotation": "rotations", "scale": "scales"}


def sample_clip(rig: Rig, clip: Clip | None, times: np.ndarray) -> Pose:
    """Local transforms of all nodes at `times` [T] in seconds of a clip's own time line; without a clip, at rest.

    What the clip does not animate rests. Before its first key and after its last a property stays as it is there.

    Returns:
      A pose with a leading axis T, float32; its rotations are unit, and of one sign along time.

    Raises:
      UserError: the clip cannot be posed.
    """
    times = np.atleast_1d(np.asarray(times, np.float64))
    rest = {name: np.asarray(getattr(rig.rest, name), np.float64) for name in (*_FIELDS.values(), "morphs")}
    values = {name: np.tile(array, (len(times), *[1] * array.ndim)) for name, array in rest.items()}
    if clip is not None:
        check_clips([clip])
    spans = {node: slice(first, first + count) for node, first, count in rig.morph_spans}
    for channel in clip.channels if clip else ():
        found = sample_channel(channel, times)
        if channel.path == "weights":
            if channel.node in spans:
                values["morphs"][:, spans[channel.node]] = found
            continue
        if channel.path == "rotation":
            found = keep_sign(np.roll(found, 1, axis=-1))
        values[_FIELDS[channel.path]][:, channel.node] = found
    return Pose(**{name: jnp.asarray(array, jnp.float32) for name, array in values.items()})


def keep_sign(quats: np.ndarray) -> np.ndarray:
    """Quaternions [T,...,4] with signs such that neighbours in time lie on one hemisphere, so that they interpolate."""
    if len(quats) < 2:
        return quats
    dots = (quats[1:] * quats[:-1]).sum(axis=-1)
    signs = np.concatenate([np.ones_like(dots[:1]), np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)])
    return (quats * signs[..., None]).astype(quats.dtype)


def frame_times(clip: Clip, fps: float) -> np.ndarray:
    """Times [T] in seconds of a clip's frames, from its first key up to its last at most `1 / fps` apart."""
    count = max(int(np.ceil((clip.end - clip.start) * fps - 1e-6)), 0) + 1
    return clip.start + np.minimum(np.arange(count) / fps, clip.end - clip.start)
