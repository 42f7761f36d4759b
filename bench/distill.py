"""What score distillation and the search for a joint lose by themselves, under a model whose score is known.

python -m bench.distill --categories=drawer,laptop

The "model" holds latents to be normal around those of the true film, so its prediction of the noise is exact and says
all that there is to say. Its latents are the colours and alpha of the film, not those of an autoencoder. Made objects
that are held out (`data.articulated`) are moved along a joint that is sought there, as the app does, freely or as a
rigid part, where the joint is sought in the clouds by the paper's candidates and by ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bench.seen import rank_courses
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.shapes import PART
from dimo_jax.data.articulated.videos import AZIMUTHS, ELEVATION, PartVideos, film
from dimo_jax.diffusion.ddim import Predict, sample_ddim
from dimo_jax.diffusion.noise import Prediction, plan_alphas
from dimo_jax.geometry.joint import Joint, move_points, transform
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import bounds, split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.metrics.joints import compare_joints
from dimo_jax.systems.atop.generator.joints import Asked, ask, find_joints, find_starts, make_scene
from dimo_jax.systems.atop.generator.latents import (
    LatentScene,
    Moves,
    distill,
    draw_video,
    free_moves,
    part_clouds,
    place_scene,
    pose_moves,
    rigid_moves,
)
from dimo_jax.systems.atop.generator.look import fit_look
from dimo_jax.systems.atop.generator.model import Condition
from dimo_jax.systems.atop.seen.course import to_poses
from dimo_jax.systems.atop.seen.motion import CloudMotion, joint_from_motion
from dimo_jax.systems.atop.seen.paper import make_chamfer, propose_lines, search_candidates

SPREAD = 0.1  # of the model's latents around the true ones


def to_latents(frames: np.ndarray, size: int) -> Array:
    """Premultiplied colours and alpha [...,size,size,4] of pictures [...,H,W,4] uint8, means of squares."""
    cells = frames.astype(np.float32) / 255
    cells[..., :3] *= cells[..., 3:]
    side = frames.shape[-2] // size
    return jnp.asarray(cells.reshape(*frames.shape[:-3], size, side, size, side, 4).mean(axis=(-4, -2)))


def know_score(mean: Array, spread: float = SPREAD) -> Predict:
    """The exact noise in latents that are normal around `mean`."""
    alphas = jnp.asarray(plan_alphas(), jnp.float32)

    def predict(x: Array, timestep: Array) -> Array:
        alpha = alphas[jnp.asarray(timestep, jnp.int32)]
        return jnp.sqrt(1 - alpha) * (x - jnp.sqrt(alpha) * mean) / (alpha * spread**2 + 1 - alpha)

    return predict


@dataclass(eq=False)
class Knowing:
    """A `generator.Generator` that knows the film [V,F,H,W,4] uint8, whatever it is asked."""

    frames: np.ndarray
    size: int = 32
    spread: float = SPREAD
    azimuths: tuple[float, ...] = AZIMUTHS
    elevation: float = ELEVATION
    channels: int = 4
    prediction: Prediction = "epsilon"

    def __post_init__(self) -> None:
        self.num_frames, self.side = self.frames.shape[1:3]

    def encode(self, frames: np.ndarray) -> Array:
        """See `Generator`."""
        return to_latents(frames, self.size)

    def decode(self, latents: Array) -> np.ndarray:
        """See `Generator`."""
        alpha = np.clip(latents[..., 3:], 0, 1)
        colors = np.clip(latents[..., :3] / np.maximum(alpha, 1e-3), 0, 1)
        return np.rint(255 * np.concatenate([colors, alpha], axis=-1)).astype(np.uint8)

    def condition(self, rest: np.ndarray, masks: np.ndarray, cameras: Camera, sentence: str) -> Condition:
        """See `Generator`; nothing of it is needed."""
        return Condition(text=jnp.zeros((1, 1, 1)), image=None, masks=jnp.asarray(masks)[None] / 255, cameras=None)

    def predict(self, condition: Condition, *, guidance: float) -> Predict:
        """See `Generator`."""
        return know_score(self.encode(self.frames), self.spread)

    def draw(self, key: Array, condition: Condition, *, num_steps: int, guidance: float) -> Array:
        """See `Generator`."""
        predict = self.predict(condition, guidance=guidance)
        noise = jax.random.normal(key, (*self.frames.shape[:2], self.size, self.size, self.channels))
        return sample_ddim(predict, noise, num_steps=num_steps)


@dataclass(frozen=True, eq=False)
class Trial:
    """One object, its film, and the model that knows it."""

    film: PartVideos
    asked: Asked
    flags: argparse.Namespace

    @property
    def predict(self) -> Predict:
        """The model."""
        return self.asked.generator.predict(self.asked.condition, guidance=1.0)

    def look(self) -> LatentScene:
        """Gaussians fitted to all poses, as the app does, or to the rest state alone."""
        if self.flags.look == "poses":
            return make_scene(self.asked, count=self.flags.count)
        asked = self.asked
        scene = place_scene(asked.body, asked.part, count=self.flags.count)
        latents = asked.generator.encode(self.film.frames[:, :1])
        return fit_look(scene, latents, pose_moves(scene, np.eye(4)[None]), asked.views)

    def move(self, scene: LatentScene, start: Moves) -> Moves:
        """Moves after distillation."""
        flags = self.flags
        return distill(
            self.predict,
            jax.random.key(flags.seed),
            scene,
            start,
            self.asked.views,
            steps=flags.steps,
            paired=flags.paired,
        )

    def compare(self, scene: LatentScene, moves: Moves) -> float:
        """How far what is drawn is from the film after its first frame, mean squares."""
        latents = self.asked.generator.encode(self.film.frames)[:, 1:]
        return float(jnp.mean((draw_video(scene, moves, self.asked.views)[:, 1:] - latents) ** 2))


def find_by_joint(trial: Trial) -> list[tuple[str, Joint]]:
    """As `joint_from_generator` does."""
    flags = trial.flags
    options = dict(guidance=1.0, count=flags.count, steps=flags.steps)
    joints, doubts = find_joints(trial.asked, jax.random.key(flags.seed), np.eye(4), **options)
    return [(", ".join(["score", *doubts]), joints[0])]


def find_by_clouds(trial: Trial, kind: str) -> list[tuple[str, Joint]]:
    """By both searches, in clouds that were distilled freely, rigidly, or rigidly from the best candidate."""
    scene, frames = trial.look(), trial.flags.frames
    start: Moves = free_moves(scene, frames) if kind == "free" else rigid_moves(frames)
    if kind == "started":
        best = find_starts(trial.asked, scene, jax.random.key(trial.flags.seed))[0]
        start = pose_moves(scene, to_poses(best)[1:])
    moves = trial.move(scene, start)
    clouds = np.asarray(part_clouds(scene, moves), np.float64)
    truth = pose_moves(scene, transform(trial.film.joint, trial.film.values[1:]))
    shown = [trial.compare(scene, each) for each in (rigid_moves(frames), truth, moves)]
    said = "latents off by {:.4f} at rest, {:.4f} where the part truly is, {:.4f} as found".format(*shown)
    points = np.asarray(scene.gaussians.means[-trial.flags.count :])
    gap = float(np.linalg.norm(clouds - move_points(trial.film.joint, trial.film.values, points), axis=-1).mean())
    lines = propose_lines(smallest_box(trial.asked.part.vertices), frames)
    paper = rank_courses(search_candidates(make_chamfer(clouds[0], list(clouds)), lines))[0]
    ours = joint_from_motion(trial.asked.body, trial.asked.part, CloudMotion(tuple(clouds)))[0]
    return [(f"candidates, cloud off by {gap:.3f}, {said}", paper), ("ours", ours)]


WAYS: dict[str, Callable[[Trial], list[tuple[str, Joint]]]] = {
    "joint": find_by_joint,
    "free": lambda trial: find_by_clouds(trial, "free"),
    "rigid": lambda trial: find_by_clouds(trial, "rigid"),
    "started": lambda trial: find_by_clouds(trial, "started"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--ways", default="joint", help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--look", default="poses", choices=("poses", "rest"))
    parser.add_argument("--paired", type=int, default=1)
    parser.add_argument("--shape", type=int, default=HELD_OUT)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--side", type=int, default=32, help="of the latents")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--spread", type=float, default=SPREAD)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    for category in flags.categories.split(","):
        made = make_shape(category, flags.shape)
        found = film(made, num_frames=flags.frames, side=128)
        body, part = split_object(found.thing, find_part(found.thing, f"node:{PART}"))
        asked, _ = ask(body, part, Knowing(found.frames, flags.side, flags.spread), made.sentence)
        trial = Trial(found, asked, flags)
        low, high, _ = bounds(part.vertices)
        for way in flags.ways.split(","):
            start = time.process_time()
            for name, joint in WAYS[way](trial):
                error = compare_joints(joint, found.joint, (low + high) / 2, 1.0)
                print(
                    f"{category:10s} {flags.shape} {way:8s} {'right' if error.type_right else 'wrong'} type, "
                    f"axis {error.angle:5.1f} deg, line {error.line:.3f}, range {error.range:5.2f} off, "
                    f"confidence {joint.confidence:.2f}, {'success' if error.success else 'failure'}; "
                    f"{time.process_time() - start:.0f} s of CPU, {name}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
