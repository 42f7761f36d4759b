"""Whether a clip moves is judged by its curves, and what its frames miss of them is said."""

import numpy as np
import pytest
from support.gltf_writer import Writer, moving_square

from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.passes import Timing, pose_clip
from dimo_jax.data.formats.rigged.plan import Options, plan_import
from dimo_jax.data.formats.rigged.stillness import AT_ONCE, choose_probes, key_times, measure_sway
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_nodes, pose_vertices

SMALL = Turntable(size=16, azimuths_deg=(0.0, 90.0), test_azimuths_deg=(), samples=1)
HALF_TURN = [[0, 0, 0, 1], [0, 0, 1, 0]]
MOVES = [[0, 0, 0], [0.3, 0, 0]]


def plan(writer, tmp_path, **options):
    """Names of the clips that become motions, and the lines that were said."""
    lines = []
    timing = Timing(num_frames=options.pop("num_frames", 5), **options.pop("timing", {}))
    scene = load_scene(writer.write(tmp_path / "a.glb"), hide=options.pop("hide", ()))
    chosen = plan_import(
        scene, Options(timing=timing, turntable=SMALL, num_surface_points=8, **options), report=lines.append
    )
    return [clip.name for clip in chosen[0].clips], [line for line in lines if "a.glb" not in line]


def wave(count, size):
    """There and back, `count` times: key times and offsets along y."""
    times = np.linspace(0, count, 2 * count + 1)
    return times.tolist(), np.stack([0 * times, size * (np.arange(len(times)) % 2), 0 * times], axis=1)


def test_a_clip_that_its_frames_miss_is_sampled_too_coarsely_and_not_still(tmp_path):
    writer = moving_square()
    writer.clip("Breathe", 0, "translation", *wave(4, 0.5))
    names, lines = plan(writer, tmp_path)
    assert names == ["Walk", "Breathe"]
    (line,) = [line for line in lines if "coarsely" in line]
    assert "sampled too coarsely by 5 frames, see --num_frames: Breathe (100% of its movement" in line
    assert line.endswith("9 would show it)")
    assert not [line for line in plan(writer, tmp_path, num_frames=9)[1] if "coarsely" in line]


def _spline(writer):
    """Equal keys whose tangents swing out, to one side and back."""
    still = [[[0, 0, 0], [0, 0, 0], [0, 4, 0]], [[0, 4, 0], [0, 0, 0], [0, 0, 0]]]
    writer.clip("Move", 0, "translation", [0.0, 1.0], np.reshape(still, (-1, 3)), interpolation="CUBICSPLINE")


def _nested(writer):
    """Half a turn of a node on half a turn of its parent: the same pose at both keys."""
    index = writer.clip("Move", 0, "rotation", [0.0, 1.0], np.array(HALF_TURN))
    animation = writer.json["animations"][index]
    writer.json["nodes"].append({"name": "parent", "children": [0]})
    writer.json["scenes"] = [{"nodes": [1]}]
    animation["channels"].append({"sampler": 0, "target": {"node": 1, "path": "rotation"}})


def _morph(writer):
    target = writer.accessor(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0.2, 0]], np.float32))
    writer.json["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": target}]
    times, values = wave(4, 1.0)
    writer.clip("Move", 0, "weights", times, values[:, 1])


def _little(writer):
    writer.clip("Move", 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [0, 0.004, 0]]))


def _beside_a_far_walk(writer):
    """A tenth of the body's size beside a clip that goes a thousand of them."""
    writer.clip("Far", 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [2000, 0, 0]]))
    writer.clip("Move", 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [0, 0.2, 0]]))


def _small_on_a_large_ground(writer):
    """What moves is small beside the part that stands."""
    writer.json["nodes"][0]["scale"] = [1000, 1000, 1000]
    writer.add("nodes", {"name": "figure", "mesh": 0})
    writer.json["scenes"] = [{"nodes": [0, 1]}]
    writer.clip("Move", 1, "translation", [0.0, 1.0], np.array(MOVES))


@pytest.mark.parametrize(
    "change",
    [_spline, _nested, _morph, _little, _beside_a_far_walk, _small_on_a_large_ground],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("num_frames", [2, 5])
def test_a_clip_moves_where_its_curves_do(change, num_frames, tmp_path):
    writer = moving_square()
    change(writer)
    assert "Move" in plan(writer, tmp_path, num_frames=num_frames)[0]


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP"])
def test_a_clip_of_equal_keys_is_still(interpolation, tmp_path):
    writer = moving_square()
    writer.clip("Pose", 0, "translation", [0.0, 0.5, 1.0], np.array([[0, 0.5, 0]] * 3), interpolation=interpolation)
    writer.clip("Turned", 0, "rotation", [0.0, 1.0], np.array([[0, 0, 0, 1], [0, 0, 0, -1]]))  # one rotation, twice
    names, lines = plan(writer, tmp_path)
    assert names == ["Walk"]
    assert "left out, still poses: Pose, Turned" in lines
    names, lines = plan(writer, tmp_path, clips="Walk,Pose")
    assert names == ["Walk", "Pose"]
    assert "taken, as they were chosen, still poses: Pose" in lines


def test_what_moves_hidden_parts_alone_is_still(tmp_path):
    writer = moving_square()
    writer.add("nodes", {"name": "sword", "mesh": 0})
    writer.json["scenes"] = [{"nodes": [0, 1]}]
    writer.clip("Swing", 1, "translation", [0.0, 1.0], np.array(MOVES))
    assert plan(writer, tmp_path)[0] == ["Walk", "Swing"]
    assert plan(writer, tmp_path, hide="sword")[0] == ["Walk"]


def test_jumps_between_frames_are_shown_by_them(tmp_path):
    writer = moving_square("Step")
    writer.json["animations"][0]["samplers"][0]["interpolation"] = "STEP"
    assert not [line for line in plan(writer, tmp_path)[1] if "coarsely" in line]


def test_steps_are_not_measured_against_the_way_they_go(tmp_path):
    """A body that bends four times on a walk of a hundred sizes, in five frames."""
    writer = moving_square("Walk")
    _morph(writer)
    animation = writer.json["animations"][0]
    animation["samplers"][0]["output"] = writer.accessor(np.array([[0, 0, 0], [200, 0, 0]], np.float32))
    animation["samplers"][0]["input"] = writer.accessor(np.array([0, 4], np.float32))
    animation["samplers"].append(writer.json["animations"][1]["samplers"][0])
    animation["channels"].append({"sampler": 1, "target": {"node": 0, "path": "weights"}})
    _, lines = plan(writer, tmp_path, clips="Walk")
    assert [line for line in lines if line.startswith("sampled too coarsely by 5 frames, see --num_frames: Walk (100%")]


def test_travel_alone_is_said_where_it_is_taken_away(tmp_path):
    writer = moving_square("Slide")
    writer.clip("Turn", 0, "rotation", [0.0, 1.0], np.array(HALF_TURN))
    names, lines = plan(writer, tmp_path, timing=dict(root_motion="remove"))
    assert names == ["Turn"]
    assert "left out, nothing but travel, which root_motion='remove' takes away: Slide" in lines
    with pytest.raises(UserError, match="nothing but travel, which root_motion='remove' takes away, is in any"):
        plan(moving_square("Slide"), tmp_path, timing=dict(root_motion="remove"))


def test_far_ways_are_told_by_the_body_and_by_their_farthest_place(tmp_path):
    writer = moving_square("Straight")
    far, back = [[0, 0, 0], [30, 0, 0]], [[0, 0, 0], [0, 50, 30], [0, 0, 0]]  # the latter high up, too
    writer.json["animations"].clear()
    writer.clip("Straight", 0, "translation", [0.0, 1.0], np.array(far))
    writer.clip("Back", 0, "translation", [0.0, 1.0, 2.0], np.array(back))
    writer.clip("Near", 0, "translation", [0.0, 1.0], np.array(MOVES))
    _, lines = plan(writer, tmp_path)
    assert "these clips travel far and make the figure small, see root_motion='remove': Straight" in lines
    assert [line for line in lines if line.startswith("these clips roam far") and line.endswith(": Back")]


def test_probes_move_as_far_as_any_vertex(tmp_path):
    """Of a bent strip with 60 vertices, a fraction stands for all: two joints, one of which turns."""
    count = 30
    grid = np.stack(np.meshgrid(np.linspace(0, 2, count), [0, 0.2]), axis=-1).reshape(-1, 2)
    places = np.c_[grid, 0 * grid[:, :1]].astype(np.float32)
    low = np.arange(count - 1)
    corners = np.concatenate([[i, i + 1, i + count, i + 1, i + count + 1, i + count] for i in low]).astype(np.uint16)
    writer = Writer()
    share = np.clip(places[:, 0] - 0.5, 0, 1)
    attributes = {
        "POSITION": writer.accessor(places),
        "JOINTS_0": writer.accessor(np.tile(np.array([0, 1, 0, 0], np.uint8), (2 * count, 1))),
        "WEIGHTS_0": writer.accessor(np.c_[1 - share, share, 0 * share, 0 * share].astype(np.float32)),
    }
    primitive = {"attributes": attributes, "indices": writer.accessor(corners)}
    writer.add("meshes", {"primitives": [primitive]})
    for entry in ({"mesh": 0, "skin": 0}, {"children": [2]}, {"name": "tip"}):
        writer.add("nodes", entry)
    writer.add("skins", {"joints": [1, 2]})
    writer.clip("Bend", 2, "rotation", [0.0, 1.0], np.array(HALF_TURN))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    probes, (clip,) = choose_probes(scene), scene.clips
    assert probes.num_vertices < 20
    vertices, _, _ = pose_clip(scene, clip, timing=Timing(num_frames=9))
    most = np.linalg.norm(vertices - vertices[:1], axis=-1).max() / np.ptp(vertices, axis=1).max()
    sway = measure_sway(probes, clip, np.linspace(0, 1, 9), in_place=False)
    assert 0.8 * most < sway.moved < 1.25 * most
    poses = pose_nodes(scene, clip, np.linspace(0, 1, 3))
    several = np.stack([pose_vertices(scene, poses, frame) for frame in range(3)])
    np.testing.assert_array_equal(pose_vertices(scene, poses, slice(None)), several)


def test_long_clips_are_measured_in_pieces(tmp_path):
    writer = moving_square()
    writer.clip("Long", 0, "translation", *wave(2 * AT_ONCE, 0.5))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    times = key_times(scene.clips[1])
    assert len(times) > 8 * AT_ONCE
    assert (np.diff(times) > 0).all()
    sway = measure_sway(choose_probes(scene), scene.clips[1], times[[0, -1]], in_place=True)
    assert sway.moved == pytest.approx(0.5 / 2)
    assert sway.missed == pytest.approx(1)
