"""What score distillation and the search for a joint lose by themselves, under a model whose score is known.

python -m bench.distill --categories=drawer,laptop

The "model" holds latents to be normal around those of the true film, so its prediction of the noise is exact and says
all that there is to say. Its latents are the colours and alpha of the film at 32 x 32, not those of an autoencoder.
Moves are distilled on made objects that are held out (`data.articulated`), and the joint is sought in the clouds
by the paper's candidates and by ours.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.seen import rank_courses
from dimo_jax.cameras.orbits import resize
from dimo_jax.core.types import Array
from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.shapes import PART
from dimo_jax.data.articulated.videos import PartVideos, film
from dimo_jax.diffusion.noise import plan_alphas
from dimo_jax.geometry.joint import move_points
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import bounds, split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.metrics.joints import compare_joints
from dimo_jax.render import metaballs
from dimo_jax.systems.atop.generator.latents import (
    SIZE,
    STIFFNESS,
    FreeMoves,
    distill,
    draw_video,
    fit_features,
    free_moves,
    part_clouds,
    place_scene,
    rigid_moves,
)
from dimo_jax.systems.atop.seen.motion import CloudMotion, joint_from_motion
from dimo_jax.systems.atop.seen.paper import make_chamfer, propose_lines, search_candidates
from dimo_jax.systems.atop.seen.splats import composite

BLENDS = {"splats": composite, "metaballs": metaballs.blend}
SPREAD = 0.1  # of the model's latents around the true ones


def to_latents(frames: np.ndarray) -> Array:
    """Premultiplied colours and alpha [V,F,SIZE,SIZE,4] of pictures [V,F,H,W,4] uint8, means of squares."""
    cells = frames.astype(np.float32) / 255
    cells[..., :3] *= cells[..., 3:]
    side = frames.shape[2] // SIZE
    return jnp.asarray(cells.reshape(*frames.shape[:2], SIZE, side, SIZE, side, 4).mean(axis=(3, 5)))


def know_score(mean: Array) -> Any:
    """The exact noise in latents that are normal around `mean`."""
    alphas = jnp.asarray(plan_alphas(), jnp.float32)

    def predict(x: Array, timestep: Array) -> Array:
        alpha = alphas[timestep]
        return jnp.sqrt(1 - alpha) * (x - jnp.sqrt(alpha) * mean) / (alpha * SPREAD**2 + 1 - alpha)

    return predict


def recover(found: PartVideos, flags: argparse.Namespace, *, rigid: bool) -> tuple[np.ndarray, str]:
    """Clouds of the part [F,P,3] after distillation, and what is to be said of them."""
    body, part = split_object(found.thing, find_part(found.thing, f"node:{PART}"))
    cameras = jax.tree.map(jnp.asarray, resize(found.cameras, SIZE, SIZE))
    latents, blend = to_latents(found.frames), BLENDS[flags.blend]
    scene = place_scene(body, part, count=flags.count)
    scene = fit_features(scene, latents[:, 0], cameras, blend=blend)
    start = rigid_moves(flags.frames) if rigid else free_moves(scene, flags.frames)
    moves = distill(
        know_score(latents),
        jax.random.key(flags.seed),
        scene,
        start,
        cameras,
        steps=flags.steps,
        stiffness=flags.stiffness,
        blend=blend,
    )
    clouds = np.asarray(part_clouds(scene, moves), np.float64)
    truth = move_points(found.joint, found.values, np.asarray(scene.gaussians.means[-flags.count :]))
    gap = float(np.linalg.norm(clouds - truth, axis=-1).mean() / np.asarray(scene.size))
    offsets = jnp.asarray((truth[1:] - truth[0]) / np.asarray(scene.size), jnp.float32)
    still = free_moves(scene, flags.frames)
    shown = [
        float(jnp.mean((draw_video(scene, each, cameras, blend=blend)[:, 1:] - latents[:, 1:]) ** 2))
        for each in (still, FreeMoves(offsets), moves)
    ]
    return clouds, f"cloud off by {gap:.3f}, error at rest {shown[0]:.4f}, truth {shown[1]:.4f}, found {shown[2]:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--shapes", type=int, default=1)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stiffness", type=float, default=STIFFNESS)
    parser.add_argument("--blend", default="splats", choices=BLENDS)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    for category in flags.categories.split(","):
        for shape in range(flags.shapes):
            found = film(make_shape(category, HELD_OUT + shape), num_frames=flags.frames, side=128)
            body, part = split_object(found.thing, find_part(found.thing, f"node:{PART}"))
            low, high, _ = bounds(part.vertices)
            for rigid in (False, True):
                start = time.process_time()
                clouds, text = recover(found, flags, rigid=rigid)
                seconds = time.process_time() - start
                lines = propose_lines(smallest_box(part.vertices), flags.frames)
                paper = rank_courses(search_candidates(make_chamfer(clouds[0], list(clouds)), lines))[0]
                ours = joint_from_motion(body, part, CloudMotion(tuple(clouds)))[0]
                for name, joint in (("candidates", paper), ("ours", ours)):
                    error = compare_joints(joint, found.joint, (low + high) / 2, 1.0)
                    print(
                        f"{category:10s} {HELD_OUT + shape} {'rigid' if rigid else 'free':6s} {text}, "
                        f"{name:10s} {'right' if error.type_right else 'wrong'} type, axis {error.angle:5.1f} deg, "
                        f"line {error.line:.3f}, {'success' if error.success else 'failure'}; {seconds:.0f} s of CPU",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
