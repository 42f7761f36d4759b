"""The joint of a motion that was seen, with what is doubtful about it: a `articulate.Find` once the motion is read."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.spatial import cKDTree

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import REVOLUTE, Joint, move_points
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects
from dimo_jax.systems.atop.rank import Finding
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.layers import MakeDraw, draw_mesh
from dimo_jax.systems.atop.seen.motion import SIDES, CloudMotion, Motion, VideoMotion, joint_from_motion
from dimo_jax.systems.atop.seen.pictures import make_pictures
from dimo_jax.systems.atop.sentence import TURNING, read_sentence

STILL = 0.02  # of the diagonal: less is hardly a motion
FARTHEST = 0.15  # of the diagonal: median distance of the first cloud from the part at rest
COVERED = 0.5  # least overlap of outlines in the first frame
CONTRADICTS = 0.1  # chance of the type by the sentence under which both are told


def explain_motion(
    body: ObjectMesh, part: ObjectMesh, motion: Motion, sentence: str = "", *, make_draw: MakeDraw = draw_mesh
) -> Finding:
    """The joints of a motion, the most probable first, and lines for the user.

    Args:
      body, part: at rest, in the coordinates of the motion.
      motion: see `read_motion`.
      sentence: what was asked for; only says where it contradicts.
      make_draw: see `joint_from_motion`.

    Raises:
      UserError: the first frame shows the part elsewhere than at rest, or videos have no mask.
    """
    _check_start(body, part, motion)
    joints = joint_from_motion(body, part, motion, make_draw=make_draw)
    return Finding(joints, tuple(find_doubts(body, part, joints[0], sentence)))


def find_doubts(body: ObjectMesh, part: ObjectMesh, joint: Joint, sentence: str) -> list[str]:
    """Lines about a joint under which the part hardly moves, or that contradicts the sentence."""
    lines = []
    size = bounds(join_objects([body, part]).vertices)[2]
    ends = move_points(joint, np.asarray(joint.range), part.vertices)
    travel = float(np.linalg.norm(ends[1] - ends[0], axis=-1).max() / size)
    if travel < STILL:
        lines.append(f"the part moves by {100 * travel:.1f} % of the diagonal, which may be none at all")
    meaning = read_sentence(sentence)
    turning = sum(meaning.chances[kind] for kind in TURNING)
    chance = turning if joint.type == REVOLUTE else 1 - turning
    if meaning.words and chance < CONTRADICTS:
        asked, seen = ("sliding", "turning") if joint.type == REVOLUTE else ("turning", "sliding")
        lines.append(f"the sentence asks for {asked}, the motion shows {seen}")
    return lines


def _check_start(body: ObjectMesh, part: ObjectMesh, motion: Motion) -> None:
    if isinstance(motion, CloudMotion):
        size = bounds(join_objects([body, part]).vertices)[2]
        gaps = cKDTree(surface_of(part, 2048).points).query(motion.points[0])[0]
        gap = float(np.median(gaps)) / size
        if gap > FARTHEST:
            raise UserError(
                f"the motion begins {100 * gap:.0f} % of the object's diagonal away from the part, "
                "expected the object's own coordinates and a first frame near rest"
            )
        return
    covered = _find_overlap(body, part, motion)
    if covered < COVERED:
        raise UserError(
            f"the first frame shows the object at rest by {100 * covered:.0f} % of its outline, "
            "expected cameras in the object's own coordinates and a first frame near rest"
        )


def _find_overlap(body: ObjectMesh, part: ObjectMesh, motion: VideoMotion) -> float:
    """Intersection over union of the first frame's masks and those of the object at rest, over all views."""
    if motion.frames[:, 0, ..., 3].min() == 255:
        raise UserError("the videos are opaque all over, expected the object's mask as their alpha")
    make = partial(draw_mesh, body, part)
    first = make_pictures(motion.frames[:, :1], motion.cameras, make, part.vertices.mean(0), side=SIDES[0], blur=0.0)
    seen, drawn = first.images[0, ..., 3], first.draw(np.eye(4), False).colors[..., 3]
    return float(np.minimum(seen, drawn).sum() / max(float(np.maximum(seen, drawn).sum()), 1e-9))
