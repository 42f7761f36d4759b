"""New clips from the motion space of a rig: which codes, how long, how they end, and what is said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.data.formats.rigged.clips import shorten_names, take_clips
from dimo_jax.geometry import quaternion
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.channels import find_carriers
from dimo_jax.rigs.clip_set import ClipSet
from dimo_jax.rigs.feet import Feet, hold_feet, measure_slide
from dimo_jax.rigs.forward import Pose, Rig, place_frames
from dimo_jax.rigs.travel import NO_WAY, follow_ways, move_tops, stay_in_place
from dimo_jax.runs.animation import Animation, Model, finish, place_joints
from dimo_jax.runs.choice import Choice
from dimo_jax.runs.motions import choose_codes
from dimo_jax.runs.rigs import RestoredRig, fit_clips

RootMotion = Literal["keep", "remove"]
RigPrior = Literal["near", "data", "standard"]
NEIGHBORS = 4  # clips that are mixed for a new one
FAR_TURN = 0.35  # radians from every pose that a joint has in the clips: there nobody knows how it looks
_OFTEN = 0.1  # share of frames from which such a joint is named
_MOMENTS = 16  # of clips, at which their likeness is measured
_MOST_KNOWN = 1_500  # poses of clips that are compared with


@dataclass(frozen=True)
class Chosen:
    """A motion to play."""

    name: str
    codes: Array  # [D], or one a frame [T,D]
    seconds: float
    loop: bool
    rate: float
    ways: np.ndarray = dataclasses.field(default_factory=NO_WAY.copy)  # [3], or one a frame [T,3]
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Wishes:
    """What is asked of all new clips, whatever their codes."""

    duration: float = 0.0  # seconds; 0: as the clips that are near
    fps: float = 0.0  # 0: as the clips'
    loop: bool = False  # go round even where no clip near by does
    root_motion: str = "keep"


def choose_motions(run: RestoredRig, workdir: str, choice: Choice, wishes: Wishes, *, prior: str) -> list[Chosen]:
    """The motions that flags choose; how long they last and whether they go round is as of the clips that are nearest.

    `prior` is "near" (`draw_near`), or as in `choice`.

    Raises:
      UserError: an unknown clip, or a file that holds no code of this run.
    """
    if choice.motions and choice.share is None:
        found = run.find_motions(choice.motions, flag="motions")
        seconds = float(np.mean(run.seconds[found]))
        rate = wishes.fps or float(np.median(np.asarray(run.facts["rates"])[found]))
        count = count_frames(wishes.duration or seconds, rate)
        name, codes = choose_codes(run, workdir, choice, count)[0]
        ways = np.stack([_blend_ways(run, code, np.array(found)) for code in np.asarray(codes)])
        return [Chosen(name, codes, wishes.duration or seconds, False, rate, ways)]
    near = choice.num_samples and not choice.around and prior == "near"
    drawn = draw_near(run, choice) if near else choose_codes(run, workdir, choice, 2)
    return [_settle(run, name, code, choice, wishes) for name, code in drawn]


def draw_near(run: RestoredRig, choice: Choice) -> list[tuple[str, Array]]:
    """Codes between clips that are alike: each a mixture of a training clip and those nearest to it, all clips in turn.

    A draw of the Gaussian over all clips mixes those that stand with those that lie; a mixture of neighbours moves as
    its neighbours do, and is none of them. Near are clips whose bodies are, at the same shares of their time.
    """
    rng = np.random.default_rng(choice.seed)
    moving = run.trained_motions[run.seconds[run.trained_motions] > 0]
    among = moving if len(moving) else run.trained_motions
    codes = np.asarray(run.player.params.latents.mu)[among]
    away = _measure_likeness(run, among)
    order = np.concatenate([rng.permutation(len(among)) for _ in range(-(-choice.num_samples // len(among)))])
    drawn = []
    for number, first in enumerate(order[: choice.num_samples], 1):
        near = np.argsort(away[first], kind="stable")[:NEIGHBORS]
        weights = rng.dirichlet([2.0, *[1.0] * (len(near) - 1)])
        drawn.append((f"sample_{choice.seed}_{number}", jnp.asarray(weights @ codes[near], jnp.float32)))
    return drawn


def _measure_likeness(run: RestoredRig, among: np.ndarray) -> np.ndarray:
    """Root mean squared distances [n,n] of the bodies of clips, with their joints' weights."""
    player, times = run.player, jnp.linspace(0, 1, _MOMENTS, endpoint=False)
    places = []
    for index in among:
        vectors = player.decode(player.latent(int(index)), times, loop=bool(run.loops[index]))
        places.append(np.asarray(player.puppet.place(vectors)[..., 3]))
    flat = np.stack(places) * np.sqrt(np.asarray(player.puppet.bodies.shares))[:, None]
    flat = flat.reshape(len(among), -1)
    return np.linalg.norm(flat[:, None] - flat[None], axis=-1) / np.sqrt(_MOMENTS)


def _settle(run: RestoredRig, name: str, code: Array, choice: Choice, wishes: Wishes) -> Chosen:
    """Length and rate of the clip that is nearest to a code; of several to blend, weighted by their nearness."""
    if choice.motions:
        among = np.array(run.find_motions(choice.motions, flag="motions"))
        away, order = _sort_by_nearness(run, code, among)
        weights = 1 / np.maximum(away, 1e-6)
        seconds = float(weights @ run.seconds[order] / weights.sum())
        rate, ways = float(run.facts["rates"][order[0]]), _blend_ways(run, np.asarray(code), among)
        found = Chosen(name, code, seconds, bool(run.loops[among].all()), rate, ways)
    else:
        found = settle_code(run, name, code, still=bool(choice.motion))
    return dataclasses.replace(
        found,
        seconds=wishes.duration or found.seconds,
        loop=found.loop or wishes.loop,
        rate=wishes.fps or found.rate,
    )


def settle_code(run: RestoredRig, name: str, code: Array, *, still: bool = False) -> Chosen:
    """The motion of a code [D], with all else as of the trained clip that is nearest, a `still` one if it may be."""
    _, order = _sort_by_nearness(run, code, run.trained_motions)
    near = order[0] if still else next((i for i in order if run.seconds[i] > 0), order[0])
    ways = _blend_ways(run, np.asarray(code), run.trained_motions)
    return Chosen(
        name, code, float(run.seconds[near]), bool(run.loops[near]), float(run.facts["rates"][order[0]]), ways
    )


def _sort_by_nearness(run: RestoredRig, code: Array, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the codes of some clips from one, rising, and these clips in that order."""
    away = np.linalg.norm(np.asarray(run.player.params.latents.mu)[among] - np.asarray(code), axis=1)
    order = np.argsort(away, kind="stable")
    return away[order], among[order]


def _blend_ways(run: RestoredRig, code: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The way [3] of a code, as of the clips that are nearest, by their nearness; a clip's own where it is one."""
    away, order = _sort_by_nearness(run, jnp.asarray(code), among)
    weights = 1 / np.maximum(away[:NEIGHBORS], 1e-6) ** 2
    blended: np.ndarray = weights @ run.ways[order[:NEIGHBORS]] / weights.sum()
    return blended


def fit_file(run: RestoredRig, path: str, wishes: Wishes) -> list[Chosen]:
    """Codes of the clips of another file on the same skeleton, fitted alone; see `fit_clips`.

    Raises:
      UserError: it cannot be read, has no clip, or other nodes than the run's model.
    """
    scene = load_scene(path, hide=run.config.data.hide, repair=bool(run.config.data.repair))
    names = [node.name for node in scene.nodes]
    if names != [node.name for node in run.scene.nodes]:
        raise UserError(f"--fit={path}: {len(names)} nodes, not those of the run's model, expected the same skeleton")
    clips = take_clips(scene, range(len(scene.clips)), int(run.config.data.num_frames))
    codes, errors = fit_clips(run.player, clips, run.trained_motions)
    return [
        Chosen(
            name=name,
            codes=jnp.asarray(code),
            seconds=wishes.duration or float(seconds),
            loop=bool(loop) or wishes.loop,
            rate=wishes.fps or float(rate),
            ways=way,
            figures={"vertex_error": 100 * float(error)},
        )
        for name, code, error, seconds, loop, rate, way in zip(
            shorten_names(clips.names), codes, errors, clips.seconds, clips.loops, clips.rates, clips.ways
        )
    ]


def count_frames(seconds: float, rate: float) -> int:
    """Key times of a clip, both ends among them; 1 of one that is over at once."""
    return max(round(seconds * rate), 0) + 1


def play(
    run: RestoredRig, model: Model, chosen: Chosen, wishes: Wishes, feet: Feet | None, known: np.ndarray
) -> Animation:
    """A clip, and its row of the report.

    Args:
      run: the motion space.
      model: the rig, for figures.
      chosen: what to play.
      wishes: how; of a loop that travels --root_motion=remove leaves its way, turns too.
      feet: what is held where it stands; None: nothing.
      known: of `read_known`.
    """
    count = count_frames(chosen.seconds, chosen.rate)
    times = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    pose = run.player.play(chosen.codes, times, loop=chosen.loop)
    if wishes.root_motion == "remove":
        pose = stay_in_place(model.rig, run.player.puppet.channels.sliding, pose)
    travels = wishes.root_motion != "remove" and bool(chosen.ways.any())
    places = follow_ways(chosen.ways, times)
    pose = move_tops(model.rig, run.tops, pose, places) if travels else pose
    pose, held = _hold(model, feet, pose, chosen.rate)
    still = move_tops(model.rig, run.tops, pose, np.linalg.inv(places)) if travels else pose
    if chosen.loop and count > 1:
        still = close_loop(still)
    pose = move_tops(model.rig, run.tops, still, places) if travels else still
    figures = dict(chosen.figures) | {"loop": chosen.loop} | held | {"low_confidence": name_strange(run, still, known)}
    row = finish(model, chosen.name, pose, chosen.rate, figures)
    puppet = run.player.puppet
    loose = {*puppet.channels.sliding, *puppet.channels.scaling, *run.tops}
    drift = measure_rigid_drift(puppet.rig, puppet.carriers, loose, pose)
    return dataclasses.replace(row, figures=row.figures | {"bone_drift": drift})


def steady(model: Model, animation: Animation, feet: Feet | None, root_motion: str) -> Animation:
    """A clip of a run of DIMO with its feet held and its way taken, as `play` does."""
    pose, row, joints = animation.pose, dict(animation.figures), model.markers.joints
    loose = [node for node, free in zip(joints.solved, joints.free) if free]
    if root_motion == "remove":
        pose = stay_in_place(model.rig, loose, pose)
    pose, held = _hold(model, feet, pose, row["frame_rate"])
    done = finish(model, animation.name, pose, row["frame_rate"], row | held)
    drift = measure_rigid_drift(model.rig, find_carriers(model.rig, joints), loose, pose)
    return dataclasses.replace(done, figures=done.figures | {"bone_drift": drift})


def _hold(model: Model, feet: Feet | None, pose: Pose, rate: float) -> tuple[Pose, dict[str, float]]:
    """A pose whose feet do not slide, and by how much they did and do, in percent of the height a second."""
    if feet is None:
        return pose, {}
    before = 100 * measure_slide(feet, place_joints(model, pose), rate)
    pose = hold_feet(model.rig, model.markers.joints, feet, pose, rate)
    return pose, {"foot_slide_before": before, "foot_slide": 100 * measure_slide(feet, place_joints(model, pose), rate)}


def close_loop(pose: Pose) -> Pose:
    """The pose with its last frame made equal to its first, bit for bit."""
    return Pose(*(x.at[-1].set(x[0]) for x in (pose.translations, pose.rotations, pose.scales, pose.morphs)))


def measure_rigid_drift(rig: Rig, carriers: Collection[int], loose: Collection[int], pose: Pose) -> float:
    """Largest change of a bone's length against rest, in percent of it.

    Args:
      rig: with N nodes.
      carriers: the nodes whose bones count, each from its parent.
      loose: those of them that may slide, or are scaled, which are left out.
      pose: leading axis T.
    """
    pairs = [(node, rig.parents[node]) for node in carriers if rig.parents[node] in carriers and node not in loose]
    if not pairs:
        return 0.0
    ends = np.array(pairs).T
    still_pose = jax.tree.map(lambda x: x[None], rig.rest)
    (rest,), moved = (place_frames(rig, each)[..., :3, 3] for each in (still_pose, pose))
    still = np.linalg.norm(rest[ends[0]] - rest[ends[1]], axis=-1)
    long = still > 1e-3 * max(float(np.linalg.norm(np.ptp(rest, axis=0))), 1e-12)
    lengths = np.linalg.norm(moved[:, ends[0]] - moved[:, ends[1]], axis=-1)
    return 100 * float((np.abs(lengths - still) / np.where(long, still, 1))[:, long].max(initial=0))


def read_known(run: RestoredRig, clips: ClipSet) -> np.ndarray:
    """Local rotations [n,J,4] of the turning joints in poses of clips, with which new ones are compared."""
    turns = np.asarray(clips.poses.rotations)[:, :, list(run.player.puppet.channels.turning)]
    flat = turns.reshape(-1, *turns.shape[2:])
    return flat[np.linspace(0, len(flat) - 1, min(_MOST_KNOWN, len(flat))).round().astype(int)]


def name_strange(run: RestoredRig, pose: Pose, known: np.ndarray) -> dict[str, float]:
    """Joints that in many frames are turned as in no clip, or nearly -> share of these frames."""
    turning = run.player.puppet.channels.turning
    turns = np.asarray(quaternion.normalize(pose.rotations))[:, list(turning)]
    found = {}
    for place, node in enumerate(turning):
        nearest = np.abs(turns[:, place] @ known[:, place].T).max(axis=1)
        share = float((2 * np.arccos(np.clip(nearest, 0, 1)) > FAR_TURN).mean())
        if share >= _OFTEN:
            found[run.player.puppet.rig.names[node]] = round(share, 3)
    return found
