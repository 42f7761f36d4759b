"""A rig's clips as a system trains on them: pose vectors, where they put what hangs on the joints, and how far off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array
from dimo_jax.rigs.bodies import Bodies, make_bodies, place_bodies
from dimo_jax.rigs.channels import Channels, find_carriers, find_channels, place_vectors, to_vector
from dimo_jax.rigs.clip_set import ClipSet
from dimo_jax.rigs.forward import Pose, Rig, make_rig, place_nodes, prune_rig
from dimo_jax.rigs.markers import find_joints
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.scene import Scene
from dimo_jax.systems.rig.decoder import Start

_STEP = 1e-2  # of a channel, by which its effect is measured
_LOOKED_AT = 16  # poses in which it is


class Truth(flax.struct.PyTreeNode):
    """Clips as arrays, leading axes M, T; lengths in the model's size."""

    vectors: Array  # [M,T,C]
    bodies: Array  # [M,T,J,3,4] frames in the world
    times: Array  # [M,T] in 0..1
    loops: Array  # [M] 1.0 for a loop


@dataclass(frozen=True)
class Puppet:
    """A rig that pose vectors move."""

    rig: Rig  # all nodes, as in the file
    carriers: tuple[int, ...]  # those of them that move anything drawn
    channels: Channels
    inner: Rig  # the carriers alone
    inner_channels: Channels  # their numbers among these
    bodies: Bodies
    size: float  # diagonal of the model at rest
    height: float  # its extent along +Y

    def place(self, vectors: Array) -> Array:
        """Frames [...,J,3,4] of the bodies, lengths in the model's size, of pose vectors [...,C]."""
        return place_bodies(self.bodies, place_vectors(self.inner_channels, self.inner, vectors)) / self.size


def make_puppet(scene: Scene, channels: Channels | None = None, clips: ClipSet | None = None, *,
                least_slide: float = 0.0) -> Puppet:  # fmt: skip
    """The rig of a model, with given channels, or those that its clips ask for.

    Raises:
      UserError: no skin, no joint that carries weight, or clips in which nothing moves.
    """
    rig, joints = make_rig(scene), find_joints(scene)
    rest, matrices = pose_scene(scene, None, 0.0), pose_nodes(scene, None, np.zeros(1)).matrices[0]
    size = float(np.linalg.norm(np.ptp(rest, axis=0)))
    if channels is None:
        assert clips is not None
        channels = find_channels(rig, joints, clips.poses, matrices, size=size, least_slide=least_slide)
        if not channels.size:
            raise UserError(f"{scene.path}: nothing that is drawn moves in any clip, expected motions to learn")
    carriers = find_carriers(rig, joints)
    place = {node: index for index, node in enumerate(carriers)}
    inner_channels = dataclasses.replace(
        channels,
        **{name: tuple(place[node] for node in getattr(channels, name)) for name in ("turning", "sliding", "scaling")},
    )
    bodies = make_bodies(scene, joints, matrices, size=size)
    inner_nodes = jnp.asarray([place[int(node)] for node in bodies.nodes], jnp.int32)
    return Puppet(
        rig=rig,
        carriers=carriers,
        channels=channels,
        inner=prune_rig(rig, carriers),
        inner_channels=inner_channels,
        bodies=bodies.replace(nodes=inner_nodes),
        size=size,
        height=max(float(np.ptp(rest[:, 1])), 1e-12),
    )


def make_truth(puppet: Puppet, clips: ClipSet) -> Truth:
    """Clips of the puppet's own rig as it sees them: what its channels do not hold shows in the bodies alone."""
    count = clips.num_frames
    closed, opened = np.arange(count) / count, np.linspace(0, 1, count)

    @jax.jit
    def see(poses: Pose) -> tuple[Array, Array]:
        matrices = place_nodes(puppet.rig, poses)[..., np.array(puppet.carriers), :3, :]
        return to_vector(puppet.channels, poses), place_bodies(puppet.bodies, matrices) / puppet.size

    vectors, bodies = see(clips.poses)
    return Truth(
        vectors=vectors,
        bodies=bodies,
        times=jnp.asarray(np.where(clips.loops[:, None], closed, opened), jnp.float32),
        loops=jnp.asarray(clips.loops, jnp.float32),
    )


def weigh_channels(puppet: Puppet, vectors: np.ndarray) -> np.ndarray:
    """How far each channel [C] moves what is drawn, in sizes a unit, over some of the poses `vectors` [M,T,C]."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    some = flat[np.linspace(0, len(flat) - 1, min(_LOOKED_AT, len(flat))).round().astype(int)]
    moved = some[:, None] + _STEP * np.eye(some.shape[1])

    @jax.jit
    def effect(still: Array, moved: Array) -> Array:
        off = jnp.square(puppet.place(moved) - puppet.place(still)).sum(axis=(-2, -1))
        return (off * puppet.bodies.shares).sum(axis=-1) / _STEP**2

    squares = [np.asarray(effect(jnp.asarray(a), jnp.asarray(b))) for a, b in zip(some.astype(np.float32), moved)]
    weights = np.sqrt(np.mean(squares, axis=0))
    return np.maximum(weights, 1e-3 * max(float(weights.max()), 1e-12))


def build_decoder(config: Mapping[str, Any], num_channels: int) -> nn.Module:
    """The module of `config.decoder` for pose vectors of so many numbers.

    Raises:
      UserError: it cannot be resolved.
    """
    module: nn.Module = resolve(config["decoder"], key="decoder")(num_channels=num_channels)
    return module


def make_start(puppet: Puppet, truth: Truth) -> Start:
    """What a decoder begins with."""
    vectors = np.asarray(truth.vectors, np.float64)
    return Start(
        vectors=vectors,
        times=list(np.asarray(truth.times, np.float64)),
        loops=np.asarray(truth.loops) > 0.5,
        weights=weigh_channels(puppet, vectors),
    )
