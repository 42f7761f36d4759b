"""How a seen motion is made of an object of `bench.articulate`, and the ways to find its joint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.seen_motions import Case, make_points, make_video, shown_values
from dimo_jax.geometry.joint import Joint
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.course import Course
from dimo_jax.systems.atop.seen.fit import Answer
from dimo_jax.systems.atop.seen.motion import CloudMotion, joint_from_motion, to_joints
from dimo_jax.systems.atop.seen.paper import make_chamfer, optimize_directly, propose_lines, search_candidates
from dimo_jax.systems.atop.seen.splats import DRAWS, recover_clouds

METHODS = ("ours", "candidates", "direct")


@dataclass(frozen=True)
class Seen:
    """How a motion is shown and explained; shares are of the object's diagonal."""

    method: str = "ours"
    num_frames: int = 10
    noise: float = 0.0  # of points as a share, of video channels in 0..1
    drift: float = 0.0
    bend: float = 0.0
    missing: float = 0.0
    blur: float = 0.0  # pixels of a video
    draw: str = "mesh"  # how pictures of the part are drawn to explain a video
    snapping: bool = True
    cloud_points: int = 2048  # of the clouds that Gaussians recover from videos, for the paper's ways
    cloud_side: int = 128  # height in pixels of the videos that they are recovered from
    cloud_steps: int = 40  # of Adam a frame


def make_trial_case(name: str, body: ObjectMesh, part: ObjectMesh, truth: Joint, seen: Seen) -> Case:
    """The motion of an object that is already turned."""
    return Case(name, body, part, truth, shown_values(truth, seen.num_frames))


def find_from_points(case: Case, seen: Seen, seed: int) -> list[Joint]:
    """A joint from one unordered cloud of the part a frame."""
    motion = make_points(case, seed=seed, noise=seen.noise, drift=seen.drift, bend=seen.bend, missing=seen.missing)
    return _find(case, motion, seen)


def find_from_video(case: Case, seen: Seen, seed: int) -> list[Joint]:
    """A joint from four videos; the paper's ways get clouds that Gaussians recover from them."""
    video = make_video(case, seed=seed, noise=seen.noise, blur=seen.blur)
    if seen.method == "ours":
        make_draw = DRAWS[seen.draw]
        return joint_from_motion(case.body, case.part, video, make_draw=make_draw, snapping=seen.snapping)
    clouds = recover_clouds(
        case.body,
        case.part,
        video.frames,
        video.cameras,
        side=seen.cloud_side,
        count=seen.cloud_points,
        steps=seen.cloud_steps,
    )
    return _find(case, CloudMotion(clouds), seen)


def _find(case: Case, motion: CloudMotion, seen: Seen) -> list[Joint]:
    if seen.method == "ours":
        return joint_from_motion(case.body, case.part, motion, snapping=seen.snapping)
    box = smallest_box(case.part.vertices)
    chamfer = make_chamfer(surface_of(case.part, 2048).points, motion.points)
    if seen.method == "candidates":
        return rank_courses(search_candidates(chamfer, propose_lines(box, len(motion.points))))
    return rank_courses(optimize_directly(chamfer, box.axes))


def rank_courses(courses: list[Course]) -> list[Joint]:
    """Joints in the order of courses; the paper's ways give no confidence."""
    joints = to_joints([Answer(course, -float(place), 0.0) for place, course in enumerate(courses)])
    return [replace(joint, confidence=0.5) for joint in joints]
