"""What is read as a motion, and what is refused in one line."""

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.systems.atop.seen.motion import CloudMotion, read_motion


def test_points_of_an_archive(tmp_path):
    points = np.random.default_rng(0).normal(size=(3, 20, 3))
    np.savez(tmp_path / "a.npz", points=points)
    motion = read_motion(tmp_path / "a.npz")
    assert isinstance(motion, CloudMotion)
    np.testing.assert_array_equal(motion.points, points)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": np.zeros((3, 4, 3))}, "no such array"),
        ({"points": np.zeros((3, 4))}, r"\(3, 4\)"),
        ({"points": np.zeros((1, 4, 3))}, "at least two frames"),
        ({"points": np.full((2, 4, 3), np.nan)}, "NaN"),
        ({"points": np.full((2, 4, 3), "a")}, "<U1"),
        ({"points": np.full((2, 4, 3), 1j)}, "complex128"),
    ],
)
def test_other_archives_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=said):
        read_motion(tmp_path / "a.npz")


def test_what_is_no_motion_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_motion(tmp_path / "none")
    with pytest.raises(UserError, match="found none of"):
        read_motion(tmp_path)
    (tmp_path / "one.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(UserError, match="has one mesh"):
        read_motion(tmp_path)
