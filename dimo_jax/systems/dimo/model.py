"""The whole model: from a latent code and a time to Gaussians (paper Sec. 3.2).

One motion and one time; `vmap` belongs to the caller.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Deform, Gaussians, Graph, Params, Skinning
from dimo_jax.geometry import quaternion
from dimo_jax.skinning.posing import pose, rest
from dimo_jax.systems.dimo.projector import build_projector

# Where the motion graph sees dead points: world units, far from all others, its square within float32.
DEAD_POSITION = 1e9


@dataclass(frozen=True)
class Components:
    """The swappable functions of the model, resolved from the config."""

    decoder: nn.Module
    draw: Callable[[Array, Array, Array], Array]
    skinning: Skinning
    deform: Deform
    graph: Graph
    projector: nn.Module | None = None  # of sentences, where it is trained together with the latents


class Neighbors(flax.struct.PyTreeNode):
    """Which key points move what, for one motion; refreshed now and then, never differentiated."""

    gaussians: Array  # [N,J] int32: key points of each Gaussian (Omega of its nearest key point)
    controls: Array  # [P,J] int32: edges of the motion graph between control points


class Moved(flax.struct.PyTreeNode):
    """A motion at one time."""

    gaussians: Gaussians
    controls: Array  # [P,3] positions of the control points: key points, or in the first stage the points themselves
    rotations: Array  # [P,4] of the control points, as decoded: not normalized


def build_components(config: Mapping[str, Any]) -> Components:
    """Resolves the model's slots `decoder`, `latent`, `skinning`, `deform`, `graph` and `text.projector` of a config.

    The last only with `config.text.joint`. With `config.render.implementation=xla` nothing runs in C++, so that the
    whole model has forward-mode derivatives too; `config.deform.implementation` chooses for skinning alone.

    Raises:
      UserError: a slot that cannot be resolved; the message names its key.
    """
    text = config.get("text", {})
    return Components(
        decoder=resolve(config["decoder"], key="decoder")(),
        draw=resolve(config["latent"], key="latent"),
        skinning=resolve(config["skinning"], key="skinning"),
        deform=_resolve_deform(config),
        graph=resolve(config["graph"], key="graph"),
        projector=build_projector(text["projector"], num_features=config["latent_init"]["dim"])
        if text.get("joint", False)
        else None,
    )


def _resolve_deform(config: Mapping[str, Any]) -> Deform:
    """The function of `config.deform`; where it can run in C++ and does not say whether to, `config.render` says it."""
    deform: Deform = resolve(config["deform"], key="deform")
    renderer = config.get("render", {}).get("implementation")
    # A renderer in C++ allows skinning in it, which is what None means; any other one forbids it.
    if renderer in (None, "native") or "implementation" in dict(getattr(deform, "keywords", {})):
        return deform
    takes_it = "implementation" in inspect.signature(deform).parameters
    return functools.partial(deform, implementation="xla") if takes_it else deform  # type: ignore[call-arg]


def decode(components: Components, params: Params, z: Array, points: Array, time: Array) -> tuple[Array, Array]:
    """Eq. 4: translations [P,3] and rotations [P,4] of canonical points [P,3] for latent z [D] at time [] in 0..1."""
    decoded: tuple[Array, Array] = components.decoder.apply(params.decoder, z, points, time)  # type: ignore[assignment]
    return decoded


def decode_trajectories(
    components: Components, params: Params, z: Array, points: Array, times: Array
) -> tuple[Array, Array]:
    """Eq. 2: neural curves; positions [T,P,3] and rotations [T,P,4] of canonical points [P,3] over times [T]."""
    translations, rotations = jax.vmap(lambda time: decode(components, params, z, points, time))(times)
    return points + translations, rotations


def find_neighbors(components: Components, params: Params, z: Array, times: Array) -> Neighbors:
    """Eq. 3 for one motion: the graph from its trajectories over times [T], for Gaussians and key points."""
    positions = params.key_points.positions
    trajectories, _ = decode_trajectories(components, params, z, positions, times)
    return Neighbors(
        gaussians=components.graph(params.gaussians.means, positions, trajectories),
        controls=components.graph(positions, positions, trajectories),
    )


def find_point_neighbors(components: Components, params: Params, z: Array, times: Array, alive: Array) -> Neighbors:
    """First stage: the graph between the points themselves (ARAP needs it; nothing is skinned).

    Points that are not `alive` [N] lie in the same ball, may be the most, and are nobody's neighbours while there are
    enough others.
    """
    means = params.gaussians.means
    trajectories, _ = decode_trajectories(components, params, z, means, times)
    # Finite, so that it suits any graph that compares distances.
    means, trajectories = (jnp.where(alive[:, None], x, DEAD_POSITION) for x in (means, trajectories))
    return Neighbors(
        gaussians=jnp.zeros((means.shape[0], 1), jnp.int32), controls=components.graph(means, means, trajectories)
    )


def move_by_key_points(components: Components, params: Params, neighbors: Neighbors, z: Array, time: Array) -> Moved:
    """Eq. 7: canonical Gaussians skinned to the posed key points.

    Args:
      components, params: the model.
      neighbors: of the motion that z stands for.
      z: [D].
      time: [] in 0..1.
    """
    return follow_key_points(
        components, params, neighbors, *decode(components, params, z, params.key_points.positions, time)
    )


def follow_key_points(
    components: Components, params: Params, neighbors: Neighbors, translations: Array, rotations: Array
) -> Moved:
    """Canonical Gaussians skinned to key points that moved by translations [K,3] and rotations [K,4]."""
    key_points, gaussians = params.key_points, params.gaussians
    near = neighbors.gaussians
    weights = components.skinning(gaussians.means, key_points.positions[near], key_points.log_radii[near])
    means, quats = components.deform(
        gaussians.means, gaussians.quats, key_points.positions, translations, rotations, near, weights
    )
    posed = pose(gaussians, means, quats, light=params.light)
    return Moved(gaussians=posed, controls=key_points.positions + translations, rotations=rotations)


def move_points(components: Components, params: Params, neighbors: Neighbors, z: Array, time: Array) -> Moved:
    """First stage: every Gaussian asks the decoder for its own pose.

    Arguments as in `move_by_key_points`; `neighbors` is not used.
    """
    del neighbors
    gaussians = params.gaussians
    translations, rotations = decode(components, params, z, gaussians.means, time)
    means = gaussians.means + translations
    quats = quaternion.multiply(quaternion.normalize(rotations), quaternion.normalize(gaussians.quats))
    return Moved(gaussians=pose(gaussians, means, quats, light=params.light), controls=means, rotations=rotations)


def move_without_key_points(
    components: Components, params: Params, neighbors: Neighbors, z: Array, time: Array
) -> Moved:
    """The second stage without motion factorization (paper Table 5): every Gaussian asks the decoder for its own pose.

    The key points move no Gaussian; they are decoded all the same, so that the losses on trajectories (Eq. 9, Chamfer)
    regularize the decoder as they do in the full model. Arguments as in `move_by_key_points`.
    """
    del neighbors
    gaussians, positions = params.gaussians, params.key_points.positions
    points = jnp.concatenate([positions, gaussians.means])
    translations, rotations = decode(components, params, z, points, time)
    count = positions.shape[0]
    means = gaussians.means + translations[count:]
    quats = quaternion.multiply(quaternion.normalize(rotations[count:]), quaternion.normalize(gaussians.quats))
    posed = pose(gaussians, means, quats, light=params.light)
    return Moved(gaussians=posed, controls=positions + translations[:count], rotations=rotations[:count])


def stay(components: Components, params: Params, neighbors: Neighbors, z: Array, time: Array) -> Moved:
    """No motion at all: the static model that a run is compared with. Arguments as in `move_by_key_points`."""
    del components, neighbors, z, time
    positions = params.key_points.positions
    return Moved(
        rest(params.gaussians, params.light), controls=positions, rotations=quaternion.identity(positions.shape[:1])
    )


def animate(
    components: Components,
    params: Params,
    z: Array,
    times: Array,
    graph_times: Array,
    *,
    move: Callable[..., Moved] = move_by_key_points,
) -> tuple[Any, Array]:
    """A motion from its latent code in one pass.

    Args:
      components, params: the model, after the second stage.
      z: [D].
      times: [T] in 0..1, any number and spacing.
      graph_times: times over which the motion graph is built (those of training), so that the result does not depend
        on `times`.
      move: how the Gaussians follow, as the second stage was trained (`config.stage2.move`).

    Returns:
      Gaussians with a leading axis T, and key point positions [T,K,3].
    """
    neighbors = find_neighbors(components, params, z, graph_times)
    moved = jax.vmap(lambda time: move(components, params, neighbors, z, time))(times)
    return moved.gaussians, moved.controls
