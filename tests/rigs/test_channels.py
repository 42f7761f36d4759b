"""Poses as vectors and back, what hangs on joints, loops, feet, and motion in place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.puppet_rig import puppet_scene
from support.small_rig import write_small_rig
from support.travelling import walk_on

from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.bodies import compare_places, compare_turns, make_bodies, place_bodies
from dimo_jax.rigs.channels import find_carriers, find_channels, place_vectors, to_pose, to_vector
from dimo_jax.rigs.clip_set import collect_clips, find_rate, is_loop
from dimo_jax.rigs.feet import Feet, find_feet, find_spans, hold_feet, measure_slide
from dimo_jax.rigs.forward import make_rig, place_nodes, prune_rig
from dimo_jax.rigs.markers import find_joints, place_markers
from dimo_jax.rigs.posing import pose_nodes, pose_vertices
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.skeleton import LINEAR, Channel, Clip
from dimo_jax.rigs.travel import find_tops, find_way, follow_ways, stay_in_place, take_way, travel

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    scene = load_scene(write_small_rig(tmp_path_factory.mktemp("rig") / "small.glb"))
    rig, joints = make_rig(scene), find_joints(scene)
    return scene, rig, joints, sample_clip(rig, scene.clips[0], np.linspace(0, 2, 7))


def test_vectors_hold_what_clips_move_and_give_it_back(small):
    _, rig, joints, pose = small
    matrices = np.asarray(place_nodes(rig, rig.rest), np.float64)
    channels = find_channels(rig, joints, pose, matrices, size=2.0, least_slide=0.01)
    assert channels.turning
    assert set(channels.sliding) <= {0, 1}  # what hangs on nothing that deforms
    vectors = to_vector(channels, pose)
    assert vectors.shape == (7, channels.size)
    back = to_pose(channels, rig, vectors)
    np.testing.assert_allclose(place_nodes(rig, back), place_nodes(rig, pose), atol=2e-6)
    np.testing.assert_allclose(place_vectors(channels, rig, vectors), place_nodes(rig, pose)[..., :3, :], atol=2e-6)
    torn = to_pose(channels, rig, vectors + 0.3)
    lengths = np.linalg.norm(np.asarray(torn.translations - rig.rest.translations), axis=-1)
    assert lengths[:, [node for node in range(rig.num_nodes) if node not in channels.sliding]].max() == 0
    np.testing.assert_allclose(np.linalg.norm(torn.rotations, axis=-1), 1, atol=1e-6)
    shaken = pose.replace(translations=pose.translations + 0.05)
    assert find_channels(rig, joints, shaken, matrices, size=2.0,
                         least_slide=0.01).sliding == find_carriers(rig, joints)  # fmt: skip


def test_pruned_rigs_place_their_nodes_alike(small):
    _, rig, joints, pose = small
    carriers = find_carriers(rig, joints)
    inner = prune_rig(rig, carriers)
    some = jax.tree.map(lambda x: x[:, np.array(carriers)], pose.replace(morphs=pose.scales))
    found = place_nodes(inner, some.replace(morphs=jnp.zeros((7, 0))))
    np.testing.assert_allclose(found, place_nodes(rig, pose)[:, np.array(carriers)], atol=1e-6)
    with pytest.raises(ValueError, match="parents"):
        prune_rig(rig, (2, 3))


def test_bodies_tell_how_far_vertices_are(small):
    """For vertices that follow one joint each the squared errors add up to those of the vertices."""
    scene, rig, joints, pose = small
    bodies = make_bodies(scene, joints, np.asarray(place_nodes(rig, rig.rest)), size=1e-6)
    still = place_bodies(bodies, place_nodes(rig, rig.rest)[:3])
    moved = place_bodies(bodies, place_nodes(rig, pose))
    assert moved.shape == (7, len(joints.deforming), 3, 4)
    still = place_bodies(bodies, place_nodes(rig, rig.rest))
    even = bodies.replace(shares=jnp.full(len(joints.deforming), 1 / len(joints.deforming)))
    found = np.asarray(compare_places(even, moved, still) + compare_turns(even, moved, still))
    vertices = pose_vertices(scene, pose_nodes(scene, scene.clips[0], np.linspace(0, 2, 7)), slice(None))
    rest = pose_vertices(scene, pose_nodes(scene, None, np.zeros(1)), 0)
    np.testing.assert_allclose(found, np.square(vertices - rest).sum(-1).mean(-1), rtol=1e-4, atol=1e-6)


def test_clips_of_any_length_become_one_shape():
    scene = puppet_scene()
    rig = make_rig(scene)
    turn = np.array([[0, 0, 0, 1], [0.6, 0, 0, 0.8]])
    once = Clip("once", 0.5, 2.5, (Channel(4, "rotation", LINEAR, np.array([0.5, 2.5]), turn),))
    round_trip = Clip("round", 0.0, 1.0, (Channel(4, "rotation", LINEAR, np.array([0, 0.25, 1.0]), turn[[0, 1, 0]]),))
    still = Clip("still", 0.0, 0.0, (Channel(4, "rotation", LINEAR, np.zeros(1), turn[1:]),))
    clips = collect_clips(scene, rig, [once, round_trip, still], find_joints(scene), 8)
    assert clips.loops.tolist() == [False, True, True]
    assert clips.seconds.tolist() == [2.0, 1.0, 0.0]
    assert clips.poses.rotations.shape[:2] == (3, 8)
    np.testing.assert_allclose(np.roll(clips.poses.rotations[0, -1, 4], -1), turn[1], atol=1e-6)
    assert not np.allclose(clips.poses.rotations[1, 0], clips.poses.rotations[1, -1])  # a loop's end is its beginning
    assert [find_rate(clip) for clip in (once, still)] == [1.0, 30.0]
    assert is_loop(scene, still, (0, 4))
    assert is_loop(scene, once, (0, 1))  # the node that moves does not count


def test_motion_stays_in_place(small):
    _, rig, _, pose = small
    walking = pose.replace(translations=pose.translations.at[:, 0].add(jnp.linspace(0, 3, 7)[:, None]))
    still = stay_in_place(rig, (0, 5), walking)
    assert find_tops(rig, (0, 5)) == [0]
    places = np.asarray(place_nodes(rig, still))[:, 0, :3, 3]
    np.testing.assert_allclose(places[-1, [0, 2]], places[0, [0, 2]], atol=1e-6)
    before = np.asarray(place_nodes(rig, walking))[:, 0, :3, 3]
    assert np.abs(before[-1] - before[0]).min() > 2
    steps = np.diff(places - before, axis=0)  # a straight way was taken, in equal steps
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-5)
    np.testing.assert_allclose(still.translations[:, 0, 1], walking.translations[:, 0, 1], atol=1e-6)
    assert stay_in_place(rig, (), walking) is walking


@pytest.mark.parametrize("way", [(1.2, -0.7, 0.0), (0.5, 0.3, 2.2), (0.0, 0.0, -3.0)])
def test_ways_are_found_taken_and_followed(way, small):
    _, rig, _, pose = small
    times = np.linspace(0, 1, 7)
    gone = travel(rig, (0,), pose, np.array(way), times)
    before, after = (np.asarray(place_nodes(rig, each), np.float64) for each in (pose, gone))
    np.testing.assert_allclose(after[:, 1:8], follow_ways(np.array(way), times)[:, None] @ before[:, 1:8], atol=2e-6)
    points = before[-1, :8, :3, 3]
    np.testing.assert_allclose(find_way(points, after[-1, :8, :3, 3]), way, atol=1e-5)
    back = take_way(rig, (0,), gone, np.array(way), times)
    np.testing.assert_allclose(place_nodes(rig, back), place_nodes(rig, pose), atol=2e-6)
    np.testing.assert_allclose(follow_ways(np.tile(way, (7, 1)), times), follow_ways(np.array(way), times), atol=1e-9)


@pytest.mark.parametrize("way", [(0.1, 0.9, 0.0), (0.2, 0.8, 1.5)])
def test_a_walk_that_moves_on_is_a_loop_with_a_way(way):
    scene = puppet_scene()
    rig, clip = walk_on(scene, way)
    plain = next(each for each in scene.clips if each.name == "walk")
    clips = collect_clips(scene, rig, [clip, plain], find_joints(scene), 10)
    assert clips.loops.tolist() == [True, True]
    np.testing.assert_allclose(clips.ways, [way, (0, 0, 0)], atol=2e-3)
    still, own = (place_nodes(rig, jax.tree.map(lambda x, i=i: x[i], clips.poses)) for i in (0, 1))
    np.testing.assert_allclose(still, own, atol=5e-3)  # keys of a turn are bent by interpolation between
    shares = clip.start + (clip.end - clip.start) * np.arange(10) / 10
    gone = place_nodes(rig, clips.travelled(0))
    np.testing.assert_allclose(gone, place_nodes(rig, sample_clip(rig, clip, shares)), atol=1e-5)


def test_what_only_slides_or_ends_otherwise_is_no_loop():
    scene = puppet_scene()
    rig, clip = walk_on(scene, (0.1, 0.9, 0.3), still=True)
    half = dataclasses.replace(walk_on(scene, (0.1, 0.9, 0.0))[1], end=clip.start + 0.3 * (clip.end - clip.start))
    clips = collect_clips(scene, rig, [clip, half], find_joints(scene), 8)
    assert clips.loops.tolist() == [False, False]
    assert not clips.ways.any()


def test_feet_are_found_and_held():
    scene = puppet_scene()
    rig, joints = make_rig(scene), find_joints(scene)
    poses = [sample_clip(rig, clip, np.arange(0, 1.01, 1 / 20)) for clip in scene.clips]
    tracks = [place_markers(joints, place_nodes(rig, pose)) for pose in poses]
    feet = find_feet(joints, tracks, [20.0] * len(tracks), 1.0)
    assert feet is not None
    assert {name.removesuffix(" (tip)") for name in feet.names} == {"left_ankle", "right_ankle"}
    slide = poses[3].replace(translations=poses[3].translations.at[:, 0, 0].add(0.02 * jnp.sin(jnp.arange(21.0) / 3)))
    held = hold_feet(rig, joints, feet, slide, 20.0)
    before, after = (measure_slide(feet, place_markers(joints, place_nodes(rig, p)), 20.0) for p in (slide, held))
    assert before > 0.05
    assert after < 0.2 * before
    heads = np.asarray(place_nodes(rig, held))[..., :3, 3]
    bones = [(node, rig.parents[node]) for node in joints.solved if rig.parents[node] >= 0]
    first, second = np.array(bones).T
    lengths = np.linalg.norm(heads[:, first] - heads[:, second], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:1], lengths.shape), atol=1e-5)
    lying = [np.zeros((9, len(joints.names), 3))]
    assert find_feet(joints, lying, [20.0], 1.0) is None
    assert hold_feet(rig, joints, Feet((), (), np.zeros(0), 1.0), slide, 20.0) is slide
    assert find_spans(np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)) == [(3, 6)]
