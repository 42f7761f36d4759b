"""Adapters from `LossInputs` to the losses of motion: one function per term of Eq. 9, 10 and the trajectory Chamfer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Turns
from dimo_jax.geometry.neighbors import nearest
from dimo_jax.geometry.safe import safe_norm
from dimo_jax.losses import latent, rigidity
from dimo_jax.losses.total import ImageInputs


class LossInputs(ImageInputs):
    """What a term of DIMO may look at. B = motions * views * frames images; P control points."""

    controls: Array  # [M,F,P,3] control points at the batch's times
    rotations: Array  # [M,F,P,4] of the control points, as decoded: not normalized
    canonical: Array  # [P,3]
    control_alive: Array  # [P] bool
    edges: Array  # [M,P,J] int32 motion graph
    edge_weights: Array  # [M,P,J] Eq. 1 along them (`skinning.weigh_edges`): 0 for a point itself and for dead ones
    reference: Array  # [M,F,K,3] first-stage key points at the same times (second stage)
    latents: Any  # types.Latents of the batch's motions, [M,D]
    random_controls: Array | None = None  # [M,R,P,3] at R random times, where a term has the option `num_times`
    turns: Turns | None = None  # of the batch's motions [M] and times [M,F], where they are searched for
    sentences: Any = None  # losses.latent.ProjectedSentences, where the text projector is trained with the latents


def arap(inputs: LossInputs) -> Array:
    """L_arap, Eq. 9, over the pairs of successive times in the batch; the mean over pairs and motions."""

    def one_motion(controls: Array, edges: Array, weights: Array) -> Array:
        return jnp.mean(jax.vmap(lambda a, b: rigidity.arap(a, b, edges, weights))(controls[:-1], controls[1:]))

    # Radii must not learn to loosen their own edges.
    weights = jax.lax.stop_gradient(inputs.edge_weights)
    return jnp.mean(jax.vmap(one_motion)(inputs.controls, inputs.edges, weights))


def arap_rigid(
    inputs: LossInputs, *, radius: float = 0.1, num_neighbors: int = 10, num_times: int | None = None
) -> Array:
    """The authors' form of L_arap: a best-fit rotation per control point, mean over motions.

    Neighbours are the `num_neighbors` nearest control points within `radius` (world units), weighted alike.

    With `num_times` it is theirs: that many random times in 0..1, the first of which is the pose that the others are
    compared with, neighbours that are within the radius at all of them, and the sum over the others. (Theirs takes the
    first neighbours by index where there are more than it wants.) Without, the canonical pose is compared with the
    batch's times: the mean over them.
    """
    count = min(num_neighbors + 1, inputs.canonical.shape[0])
    alive = inputs.control_alive

    def compare(rest: Array, poses: Array, together: Array) -> Array:
        """[F] energies of poses [F,P,3] against the one at rest [P,3]; edges are as short in all of `together`."""
        edges, _ = nearest(rest, rest, num_neighbors=count, mask=alive)
        lengths = jax.vmap(lambda points: safe_norm(points[edges] - points[:, None]))(jax.lax.stop_gradient(together))
        weights = (alive[:, None] & alive[edges] & jnp.all(lengths <= radius, axis=0)).astype(jnp.float32)
        return jax.vmap(lambda pose: rigidity.arap_rigid(rest, pose, edges, weights))(poses)

    if num_times is None:
        rest = inputs.canonical
        return jnp.mean(jax.vmap(lambda poses: compare(rest, poses, rest[None]))(inputs.controls))
    assert inputs.random_controls is not None
    energies = jax.vmap(lambda each: compare(each[0], each[1:], each))(inputs.random_controls[:, :num_times])
    return jnp.mean(jnp.sum(energies, axis=1))


def chamfer(inputs: LossInputs) -> Array:
    """L_chamfer: present trajectories against the first stage's (second stage only), mean over motions and times.

    Motions that `systems.dimo.turns` found to turn are free of the first stage's trajectories, which did not.
    """
    per_motion = jnp.mean(jax.vmap(jax.vmap(rigidity.chamfer))(inputs.controls, inputs.reference), axis=1)
    return jnp.mean(per_motion if inputs.turns is None else per_motion * (1 - inputs.turns.found))


def rotations(inputs: LossInputs) -> Array:
    """The decoded rotations explain the trajectories, which stand still in this term (our addition).

    The first stage's Gaussians are round and show no rotation; without this term the second begins with none.
    """
    canonical, controls = jax.lax.stop_gradient((inputs.canonical, inputs.controls))

    def one_motion(controls: Array, rotations: Array, edges: Array, weights: Array) -> Array:
        return jnp.mean(jax.vmap(lambda b, r: rigidity.embedded(canonical, b, r, edges, weights))(controls, rotations))

    weights = jax.lax.stop_gradient(inputs.edge_weights)
    return jnp.mean(jax.vmap(one_motion)(controls, inputs.rotations, inputs.edges, weights))


def turn(inputs: LossInputs) -> Array:
    """The body turned as a whole where `systems.dimo.turns` found that it turns; mean over motions and times (ours)."""
    assert inputs.turns is not None
    one_time = jax.vmap(rigidity.turn, in_axes=(0, None, None, 0, 0))
    apart = jax.vmap(one_time, in_axes=(0, None, None, 0, 0))(
        inputs.controls, inputs.canonical, inputs.control_alive, inputs.turns.rotations, inputs.turns.shifts
    )
    return jnp.mean(inputs.turns.found[:, None] * apart)


def kl(inputs: LossInputs) -> Array:
    """L_kl, Eq. 10, summed over the dimensions and averaged over the batch's motions.

    The mean, so that a batch dealt out to several devices has the same loss; the paper's sum is M times this.
    """
    return latent.kl(inputs.latents, reduction="mean")


def text(inputs: LossInputs, *, contrast: float = 1.0) -> Array:
    """Sentences against the codes of their motions, both of which move (`config.text.joint`; our form).

    The paper trains the projector afterwards, on codes that stand still, and names joint training as open (Sec. 5). The
    loss is that of `systems.dimo.fit_projector`: the squared error, and `contrast` times how badly a sentence tells its
    motion's code from those of all others.
    """
    return latent.sentence_loss(inputs.sentences, contrast=contrast)
