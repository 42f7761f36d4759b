"""Animated GLBs of Gaussians: the Khronos validator has nothing to say, and VTK plays Eq. 7."""

import dataclasses

import numpy as np
import pytest
from support.made_motion import make_motion
from support.outside import Player, read_array, read_attributes, validate

from dimo_jax.io.gltf.skinned import OCTAHEDRON, SPREAD, find_shown, write_skinned_glb
from dimo_jax.io.motion import limit_influences, measure_skin, write_motion
from dimo_jax.rigs.sampling import keep_sign

scipy_rotation = pytest.importorskip("scipy.spatial.transform")


def skin_by_hand(path, frame):
    """Vertices at key `frame` from the file's numbers, all sets of influences, by the glTF specification's formula."""
    document, found = read_attributes(path)
    joints = document.skins[0].joints
    inverse_bind = read_array(document, document.skins[0].inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2)
    posed = np.tile(np.eye(4), (len(joints), 1, 1))
    for channel in document.animations[0].channels:
        values = read_array(document, document.animations[0].samplers[channel.sampler].output)[frame]
        matrix = posed[joints.index(channel.target.node)]
        if channel.target.path == "rotation":
            matrix[:3, :3] = scipy_rotation.Rotation.from_quat(values).as_matrix()
        else:
            matrix[:3, 3] = values
    chosen = np.concatenate([found[name] for name in sorted(found) if name.startswith("JOINTS")], axis=1)
    weights = np.concatenate([found[name] for name in sorted(found) if name.startswith("WEIGHTS")], axis=1)
    blended = np.einsum("nj,njab->nab", weights, (posed @ inverse_bind)[chosen])
    return np.einsum("nab,nb->na", blended[:, :3, :3], found["POSITION"]) + blended[:, :3, 3]


@pytest.mark.parametrize("geometry", ["points", "ellipsoids"])
def test_vtk_shows_the_skinned_gaussians_at_key_times(tmp_path, geometry):
    motion = make_motion(num_neighbors=4)  # VTK reads one set of four influences
    written = write_skinned_glb(motion, tmp_path / "a.glb", geometry=geometry, num_influences=4)
    shown = find_shown(motion.canonical, geometry=geometry)
    player = Player(tmp_path / "a.glb")
    assert player.names == ["walk"]
    for frame in (0, 1, 4):
        (vertices,) = player.vertices(0, frame / 10)
        centers = vertices if geometry == "points" else vertices.reshape(-1, 6, 3).mean(axis=1)
        np.testing.assert_allclose(centers, motion.means[frame, shown], atol=2e-5)
        np.testing.assert_allclose(vertices, skin_by_hand(tmp_path / "a.glb", frame), atol=2e-5)
    assert measure_skin(motion, *written) < 1e-5


def test_eight_influences_are_exact_and_four_of_them_are_not(tmp_path):
    motion = make_motion()
    exact = write_skinned_glb(motion, tmp_path / "a.glb", geometry="points")
    for frame in (0, 2, 4):
        np.testing.assert_allclose(skin_by_hand(tmp_path / "a.glb", frame), motion.means[frame, :-2], atol=1e-5)
    assert measure_skin(motion, *exact) < 1e-5
    few = write_skinned_glb(motion, tmp_path / "b.glb", geometry="points", num_influences=4)
    away = measure_skin(motion, *few)
    assert away > 1e-2
    found = np.stack([skin_by_hand(tmp_path / "b.glb", frame) for frame in range(5)])
    extent = np.ptp(motion.means[:, :-2].reshape(-1, 3), axis=0).max()
    assert away == pytest.approx(np.linalg.norm(found - motion.means[:, :-2], axis=-1).max() / extent, rel=1e-3)


def test_between_key_times_rotations_are_slerped_and_places_lie_on_lines(tmp_path):
    motion = make_motion(num=4, num_key_points=1, num_neighbors=1)
    write_skinned_glb(motion, tmp_path / "a.glb", geometry="points")
    (found,) = Player(tmp_path / "a.glb").vertices(0, 0.23)
    turns = scipy_rotation.Rotation.from_quat(motion.turns[:, 0], scalar_first=True)
    turn = scipy_rotation.Slerp(np.arange(5) / 10, turns)(0.23)
    place = 0.7 * motion.tracks[2, 0] + 0.3 * motion.tracks[3, 0]
    np.testing.assert_allclose(found, turn.apply(motion.canonical.means[:2] - motion.rest[0]) + place, atol=1e-5)


def test_octahedra_span_the_axes_of_their_gaussians(tmp_path):
    motion = make_motion()
    write_skinned_glb(motion, tmp_path / "a.glb")
    _, found = read_attributes(tmp_path / "a.glb")
    shown = find_shown(motion.canonical, geometry="ellipsoids")
    assert 0 < shown.sum() < 28  # faint ones are left out
    axes = scipy_rotation.Rotation.from_quat(motion.canonical.quats[shown], scalar_first=True).as_matrix()
    corners = np.einsum("nab,nb,cb->nca", axes, SPREAD * np.exp(motion.canonical.log_scales[shown]), OCTAHEDRON)
    expected = corners + motion.canonical.means[shown, None]
    np.testing.assert_allclose(found["POSITION"].reshape(-1, 6, 3), expected, atol=1e-5)


def test_validator_is_content(tmp_path):
    paths = []
    for name, options in {
        "points": dict(geometry="points"),
        "ellipsoids": dict(),
        "four": dict(num_influences=4),
    }.items():
        paths.append(tmp_path / f"{name}.glb")
        write_skinned_glb(make_motion(), paths[-1], **options)
    paths.append(tmp_path / "many.glb")  # more joints than a byte counts, one frame
    write_skinned_glb(make_motion(num_key_points=300, num_frames=1), paths[-1], geometry="points")
    assert validate(*paths) == []


def test_influences_are_the_largest_in_falling_order_and_sum_to_one():
    neighbors, weights = np.array([[3, 1, 2]]), np.array([[0.2, 0.0, 0.8]])
    assert limit_influences(neighbors, weights, 4)[0].tolist() == [[2, 3, 0, 0]]
    np.testing.assert_allclose(limit_influences(neighbors, weights, 4)[1], [[0.8, 0.2, 0, 0]])
    assert limit_influences(neighbors, weights, 1)[1].tolist() == [[1.0]]
    motion = make_motion(num=500)
    assert np.abs(limit_influences(motion.neighbors, motion.weights, 4)[1].sum(1) - 1).max() < 1e-6


def test_signs_along_time_are_kept():
    quats = make_motion().turns
    flipped = quats * np.where(np.arange(5) % 2, -1, 1)[:, None, None]
    np.testing.assert_array_equal(keep_sign(flipped), quats)
    np.testing.assert_array_equal(keep_sign(quats[:1]), quats[:1])


def test_a_skin_that_misses_the_model_is_measured():
    motion = make_motion()
    extent = np.ptp(motion.means[:, :-2].reshape(-1, 3), axis=0).max()
    moved = dataclasses.replace(motion, means=motion.means + np.float32([0.5, 0, 0]))
    assert measure_skin(moved, moved.neighbors, moved.weights) == pytest.approx(0.5 / extent, rel=0.1)


def test_npz_has_the_documented_fields(tmp_path):
    motion = make_motion()
    with np.load(write_motion(motion, tmp_path / "a.npz"), allow_pickle=False) as data:
        fields = {name: data[name] for name in data.files}
    documented = (write_motion.__doc__ or "").split("Fields:")[1].split("Args:")[0]
    assert all(f"`{name}`" in documented for name in fields)
    assert (fields["version"], str(fields["name"])) == (1, "walk")
    assert fields["means"].shape == (5, 28, 3)
    np.testing.assert_array_equal(fields["key_points"], motion.tracks)
    np.testing.assert_array_equal(fields["key_point_rotations"], motion.turns)
    np.testing.assert_allclose(fields["seconds"], [0, 0.1, 0.2, 0.3, 0.4])
    # The fields are enough to repeat Eq. 7.
    turns = scipy_rotation.Rotation.from_quat(fields["key_point_rotations"][3], scalar_first=True).as_matrix()
    near = fields["neighbors"]
    local = fields["canonical_means"][:, None] - fields["canonical_key_points"][near]
    posed = np.einsum("njab,njb->nja", turns[near], local) + fields["key_points"][3][near]
    np.testing.assert_allclose(np.einsum("nj,nja->na", fields["weights"], posed), fields["means"][3], atol=1e-5)
