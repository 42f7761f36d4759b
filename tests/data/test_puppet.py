"""The embedded character: kinematics, pictures against truth, captions, and the cache."""

from __future__ import annotations

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.data.puppet import body as puppet_body
from dimo_jax.data.puppet import raycast
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.dataset import choose_motions, make_puppet, make_views, pose_motions

NUM_FRAMES = 21


@pytest.fixture(scope="module")
def poses() -> list[puppet_body.Pose]:
    return pose_motions(MOTIONS, NUM_FRAMES)


def test_bones_keep_their_length_in_every_motion(poses):
    # Every offset but the root's stands in the parent's frame, so its length is the bone's.
    for index, joint in enumerate(puppet_body.JOINTS):
        if joint.parent is not None:
            parent = puppet_body.JOINT_NAMES.index(joint.parent)
            expected = puppet_body.SIZE * np.linalg.norm(joint.offset)
            for pose in poses:
                lengths = np.linalg.norm(pose.joints[:, index] - pose.joints[:, parent], axis=-1)
                np.testing.assert_allclose(lengths, expected, rtol=1e-9, err_msg=joint.name)


def test_rotations_are_proper(poses):
    for pose in poses[:20]:
        product = pose.rotations @ pose.rotations.swapaxes(-1, -2)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(pose.rotations), 1.0)


def test_every_motion_starts_from_the_rest_pose_and_moves(poses):
    rest = puppet_body.pose({}, 1)
    for motion, pose in zip(MOTIONS, poses):
        np.testing.assert_allclose(pose.positions[0], rest.positions[0], atol=1e-9, err_msg=motion.name)
        np.testing.assert_allclose(pose.rotations[0], rest.rotations[0], atol=1e-9, err_msg=motion.name)
        turned = np.abs(pose.rotations - pose.rotations[:1]).max()
        assert turned > 0.4, motion.name


def test_motions_are_smooth(poses):
    for motion, pose in zip(MOTIONS, poses):
        step = np.linalg.norm(np.diff(pose.joints, axis=0), axis=-1).max()
        assert step < 0.45 * puppet_body.SIZE, motion.name


def test_motions_differ_pairwise(poses):
    surfaces = puppet_body.surface_points(poses, num_points=64).reshape(len(poses), -1, 3)
    for index in range(len(poses) - 1):
        # Somewhere on the body, at some time, any two are a tenth of the height apart.
        gaps = np.linalg.norm(surfaces[index + 1 :] - surfaces[index], axis=-1).max(axis=-1)
        closest = index + 1 + int(gaps.argmin())
        assert gaps.min() > 0.1 * puppet_body.SIZE, (MOTIONS[index].name, MOTIONS[closest].name)


def test_the_body_stands_on_the_floor(poses):
    floor = -puppet_body.ORIGIN_HEIGHT * puppet_body.SIZE
    cones = puppet_body.round_cones()
    for motion, pose in zip(MOTIONS, poses):
        lowest = puppet_body.lowest_points(cones, pose.positions, pose.rotations).min(axis=1)
        lift = motion.curves(np.linspace(0, 1, NUM_FRAMES)).get("root.lift", 0.0)
        np.testing.assert_allclose(lowest, floor + puppet_body.SIZE * np.broadcast_to(lift, NUM_FRAMES), atol=1e-9)


def test_left_is_on_plus_x_and_forward_is_plus_z():
    names = puppet_body.JOINT_NAMES
    rest = puppet_body.pose({}, 1).joints[0]
    assert rest[names.index("left_hand"), 0] > 0.05 > -0.05 > rest[names.index("right_hand"), 0]
    assert rest[names.index("left_toe"), 2] > rest[names.index("left_ankle"), 2]
    raised = puppet_body.pose({"left_shoulder.flex": np.asarray([90.0])}, 1).joints[0]
    assert raised[names.index("left_hand"), 2] > 0.15
    np.testing.assert_allclose(raised[names.index("right_hand")], rest[names.index("right_hand")], atol=1e-9)
    turned = puppet_body.pose({"root.twist": np.asarray([90.0])}, 1).joints[0]
    assert turned[names.index("left_toe"), 0] - turned[names.index("left_ankle"), 0] > 0.05
    with pytest.raises(KeyError, match=r"left_shoulder\.bend"):
        puppet_body.pose({"left_shoulder.bend": np.zeros(1)}, 1)


def reach(pose: puppet_body.Pose, cams) -> np.ndarray:
    """How far, in pixels from the middle, bounding spheres of the body reach in views [V] and frames [T]."""
    cones = puppet_body.round_cones()
    tips = pose.positions + pose.rotations[..., 1] * (cones.length * cones.scale[:, 1])[:, None]
    ends = np.stack([pose.positions, tips], axis=2)
    matrices = cams.world_to_camera.astype(float)
    local = np.einsum("vij,tpej->vtpei", matrices[:, :3, :3], ends) + matrices[:, None, None, None, :3, 3]
    radii = cones.radii * cones.scale.max(axis=-1, keepdims=True)
    pixels = (np.abs(local[..., :2]).max(axis=-1) + 1.05 * radii) / local[..., 2] * cams.focal[0, 0]
    return pixels.max(axis=(-1, -2))


def test_no_frame_touches_the_border(poses):
    cams, _, _ = make_views(9, 6, 64)
    cones = puppet_body.round_cones()
    for motion, pose in zip(MOTIONS, poses):
        frames = np.flatnonzero(reach(pose, cams).max(axis=0) > 30.5)
        if len(frames):  # too near for the bound: look at the pictures
            images, _ = raycast.cast(cones, pose.positions[frames], pose.rotations[frames], cams)
            alpha = images[..., 3]
            touching = alpha[..., [0, -1], :].any(axis=(-1, -2)) | alpha[..., [0, -1]].any(axis=(-1, -2))
            assert not touching.any(), (motion.name, frames, touching.any(axis=0))


def test_surface_points_lie_on_the_surface_that_the_ray_caster_sees(poses):
    cams, _, _ = make_views(9, 0, 256)
    cones = puppet_body.round_cones()
    chosen = [MOTIONS.index(motion) for motion in MOTIONS if motion.name in ("star_jump", "punches", "collapse_left")]
    points = puppet_body.surface_points([poses[index] for index in chosen], num_points=400)
    seen = np.zeros(400, bool)
    for index, surface in zip(chosen, points):
        frame = 9
        pose = poses[index]
        positions, rotations = pose.positions[[frame]], pose.rotations[[frame]]
        _, depths = raycast.cast(cones, positions, rotations, cams, with_depth=True)
        for view, depth in enumerate(depths[:, 0]):
            matrix = cams.world_to_camera[view]
            local = surface[frame] @ matrix[:3, :3].T + matrix[:3, 3]
            pixel = local[:, :2] / local[:, 2:] * cams.focal[view] + cams.center[view]
            column, row = np.floor(pixel).astype(int).T
            around = np.stack([depth[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
            # A point is never nearer than what the ray caster sees there.
            assert (local[:, 2] > around.min(axis=0) - 0.004).all()
            seen |= np.abs(around - local[:, 2]).min(axis=0) < 0.004
    # All but those hidden in folds are seen from somewhere.
    assert seen.mean() > 0.97


def test_no_surface_point_hides_inside_the_resting_body():
    parts, local = puppet_body.attach_points(500, 0)
    cones, rest = puppet_body.round_cones(), puppet_body.pose({}, 1)
    world = rest.positions[0, parts] + np.einsum("nij,nj->ni", rest.rotations[0, parts], local)
    for index, part in enumerate(puppet_body.PARTS):
        within = puppet_body.inside(cones, index, (world - rest.positions[0, index]) @ rest.rotations[0, index])
        assert not within[parts != index].any(), part.name
    gaps = np.linalg.norm(world[:, None] - world, axis=-1) + np.eye(500)
    assert gaps.min() > 0.02


def test_names_captions_and_paraphrases_are_distinct():
    assert len(MOTIONS) >= 60
    assert len({motion.name for motion in MOTIONS}) == len(MOTIONS)
    sentences = [sentence for motion in MOTIONS for sentence in motion.sentences]
    assert len(set(sentences)) == len(sentences)
    for motion in MOTIONS:
        assert len(motion.sentences) >= 4, motion.name
        assert all(
            sentence[0].isupper() and sentence.endswith(".") and "{" not in sentence for sentence in motion.sentences
        )


def test_a_small_subset_takes_one_motion_of_each_family():
    for count in (4, 16, 40):
        assert len({motion.family for motion in choose_motions(count)}) == count
    with pytest.raises(UserError, match=r"num_motions: found 500, expected 1 to \d+"):
        choose_motions(500)


OPTIONS = {"num_motions": 3, "num_frames": 2, "size": 32, "num_train_views": 3, "num_test_motions": 1}


def test_the_dataset_has_the_asked_shape_and_splits(tmp_path):
    dataset = make_puppet(**OPTIONS, cache_dir=tmp_path)
    assert dataset.frames.shape == (3, 5, 2, 32, 32, 4)
    assert dataset.splits == ("train", "train", "test")
    assert dataset.view_splits == ("train",) * 3 + ("test",) * 2
    assert dataset.captions[0] == MOTIONS[0].sentences[0]
    assert dataset.joints.shape == (3, 2, len(puppet_body.JOINTS), 3)
    assert dataset.height == pytest.approx(puppet_body.SIZE, rel=0.03)
    assert 0.05 < (dataset.frames[..., 3] > 0).mean() < 0.4
    np.testing.assert_array_equal(dataset.frames[:, :, 0], np.broadcast_to(dataset.frames[:1, :, 0], (3, 5, 32, 32, 4)))


def test_the_cache_is_used_and_a_damaged_one_is_rebuilt_and_said(tmp_path, caplog, monkeypatch):
    options = OPTIONS | {"cache_dir": tmp_path, "num_motions": 1, "num_test_motions": 0}
    frames = np.array(make_puppet(**options).frames)
    (folder,) = tmp_path.glob("puppet-*")
    with monkeypatch.context() as patch:
        patch.setattr(raycast, "cast", None)
        np.testing.assert_array_equal(make_puppet(**options).frames, frames)
    data = bytearray((folder / "frames.npy").read_bytes())
    data[-100] ^= 255
    damages = {"frames.npy": (bytes(data), bytes(data[:500]), b""), "meta.json": (b"{", b"[]")}
    for name, contents in damages.items():
        for content in contents:
            (folder / name).write_bytes(content)
            np.testing.assert_array_equal(make_puppet(**options).frames, frames)
            assert "is damaged" in caplog.text
            caplog.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{folder.name}.lock", folder.name]


def test_bad_options_are_named():
    for key, value in {"num_frames": 0, "size": 2, "num_test_views": -1, "num_test_motions": 60}.items():
        with pytest.raises(UserError, match=rf"config\.data\.source\.{key}: found {value}"):
            make_puppet(**{key: value})
