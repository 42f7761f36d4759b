"""Made articulated objects: what they are made of, how their parts move, and what is filmed of them."""

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, SHOWN, make_shape
from dimo_jax.data.articulated.shapes import PART
from dimo_jax.data.articulated.videos import film, settle
from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, move_points
from dimo_jax.meshes.objects import bounds, split_object
from dimo_jax.meshes.parts import connected_pieces, find_part
from dimo_jax.meshes.solids import is_closed, weld

SEEDS = (0, 1, SHOWN - 1, HELD_OUT, HELD_OUT + 1)


def test_there_are_ten_categories_of_both_kinds_of_joint():
    kinds = {name: make_shape(name, 0).joint.type for name in CATEGORIES}
    assert len(kinds) == 10
    assert set(kinds.values()) == {REVOLUTE, PRISMATIC}
    with pytest.raises(UserError, match="category: found 'boat', expected one of cabinet, drawer"):
        make_shape("boat", 0)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_object_is_closed_upright_and_moves_from_rest(category):
    for seed in SEEDS:
        made = make_shape(category, seed)
        thing, joint = made.thing, made.joint
        assert joint.range[0] == 0
        assert joint.range[1] > 0
        assert category in made.sentence or category == "bin"
        assert abs(thing.vertices[:, 1].min()) < 1e-6
        pieces = connected_pieces(thing.vertices, thing.triangles)
        for piece in range(pieces.max() + 1):
            assert is_closed(weld(thing.vertices, thing.triangles[pieces == piece])[1]), (seed, piece)
        corners = thing.corners
        volume = np.einsum("fd,fd->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        assert min(volume[pieces == piece].sum() for piece in range(pieces.max() + 1)) > 0  # corners turn outwards


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_part_moves_clear_of_its_body(category):
    """Points of the part that are outside of the body's box at rest, or at its rim, do not enter it on their way."""
    for seed in SEEDS[1:4]:
        made = make_shape(category, seed)
        body, part = split_object(made.thing, find_part(made.thing, f"node:{PART}"))
        low, high, diagonal = bounds(body.vertices)
        way = move_points(made.joint, np.linspace(*made.joint.range, 9)[1:], part.vertices)
        margin = 0.02 * diagonal
        outside = ((part.vertices < low + 1e-9) | (part.vertices > high - 1e-9)).any(axis=1)
        assert outside.any()
        entered = ((way > low + margin) & (way < high - margin)).all(axis=-1)[:, outside]
        assert entered.mean() < 0.02


def test_seeds_make_others_and_the_same_again():
    one, again, other = (make_shape("oven", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.thing.vertices, again.thing.vertices)
    assert one.thing.vertices.shape != other.thing.vertices.shape or (
        not np.allclose(one.thing.vertices, other.thing.vertices)
    )
    assert one.joint.range != other.joint.range


@pytest.mark.parametrize("category", ["drawer", "laptop"])
def test_a_film_shows_the_part_where_its_joint_has_it(category):
    found = film(make_shape(category, 1), num_frames=3, side=48)
    assert found.frames.shape == (4, 3, 48, 48, 4)
    assert found.masks.shape == found.frames.shape[:-1]
    assert set(np.unique(found.masks)) == {0, 255}
    assert (found.frames[..., 3][found.masks == 255] > 0).all()
    assert found.masks[0].any(axis=(1, 2)).all()  # the first view sees the front
    assert not np.array_equal(found.frames[0, 0], found.frames[0, 2])
    np.testing.assert_allclose(found.values, np.linspace(0, found.joint.range[1], 3))
    low, high, diagonal = bounds(found.thing.vertices)
    np.testing.assert_allclose([diagonal, *(low + high)], [1, 0, 0, 0], atol=1e-9)
    # The mask's middle follows the part's own, through the camera.
    part = found.thing.vertices[np.unique(found.thing.triangles[found.thing.triangle_nodes == 1])]
    pose = found.cameras.world_to_camera[0]
    for frame, value in enumerate(found.values):
        places = move_points(found.joint, value, part) @ pose[:3, :3].T + pose[:3, 3]
        seen = places[:, :2] / places[:, 2:] * found.cameras.focal[0] + found.cameras.center[0]
        rows, columns = np.nonzero(found.masks[0, frame])
        assert columns.min() >= seen[:, 0].min() - 1.5
        assert columns.max() <= seen[:, 0].max() + 0.5
        assert rows.min() >= seen[:, 1].min() - 1.5
        assert rows.max() <= seen[:, 1].max() + 0.5


def test_settling_keeps_what_a_joint_does():
    made = make_shape("fridge", 2)
    thing, joint = settle(made)
    scale = bounds(made.thing.vertices)[2]
    moved = move_points(made.joint, 0.7, made.thing.vertices)
    low, high, _ = bounds(made.thing.vertices)
    np.testing.assert_allclose(move_points(joint, 0.7, thing.vertices), (moved - (low + high) / 2) / scale, atol=1e-9)
