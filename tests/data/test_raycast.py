"""The ray caster against other ways of finding the same surface."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.data.puppet.raycast import AMBIENT, DIFFUSE, LIGHT, RoundCones, cast, intersect


def sweep(origins: np.ndarray, directions: np.ndarray, low: float, high: float, length: float) -> np.ndarray:
    """Entry [n] of rays into the union of 4,001 spheres that sweep a round cone; inf where they miss all."""
    first = np.full(len(origins), np.inf)
    for along in np.array_split(np.linspace(0, 1, 4001)[:, None], 20):
        relative = origins - np.stack([0 * along, along * length, 0 * along], axis=-1)
        a = np.sum(directions**2, axis=-1)
        b = np.sum(relative * directions, axis=-1)
        c = np.sum(relative**2, axis=-1) - (low + (high - low) * along) ** 2
        discriminant = b * b - a * c
        t = np.where(discriminant > 0, (-b - np.sqrt(np.maximum(discriminant, 0))) / a, np.inf)
        first = np.minimum(first, t.min(axis=0))
    return first


@pytest.mark.parametrize(
    ("low", "high", "length"), [(0.5, 0.5, 0.0), (0.3, 0.3, 1.0), (0.5, 0.2, 0.8), (0.1, 0.6, 0.7), (0.2, 0.21, 2.0)]
)
def test_rays_enter_the_spheres_that_sweep_the_cone(low, high, length):
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(300, 3))
    origins = 4 * origins / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = np.asarray([0, length / 2, 0]) + 0.5 * rng.normal(size=(300, 3)) - origins
    expected = sweep(origins, directions, low, high, length)
    parts = [tuple(np.float32(values).T) for values in (origins, directions)]
    found = np.asarray(jax.jit(intersect)(*parts, (np.float32(low), np.float32(high)), np.float32(length)))
    assert 60 < np.isfinite(expected).sum() < 290
    # Rays that graze fall either way: what differs must lie on the outline, where a slightly thicker or thinner cone
    # decides otherwise.
    differ = np.isfinite(found) != np.isfinite(expected)
    thicker, thinner = (np.isfinite(sweep(origins, directions, low + e, high + e, length)) for e in (2e-4, -2e-4))
    assert (thicker & ~thinner)[differ].all()
    both = np.isfinite(found) & thinner
    # float32 loses about 1e-6 of the squared distance under the root; near the outline the root magnifies it.
    np.testing.assert_allclose(found[both], expected[both], atol=3e-4)


def sphere(radius: float, scale=(1.0, 1.0, 1.0), **changes) -> RoundCones:
    none = np.full((1, 1, 3), np.inf)
    fields = {
        "scale": np.asarray([scale]), "radii": np.full((1, 2), radius), "length": np.zeros(1),
        "colors": np.full((1, 3), 0.6), "stripe_colors": np.zeros((1, 3)), "stripe_waves": np.zeros((1, 3)),
        "decal_centers": none, "decal_radii": np.ones((1, 1, 3)), "decal_colors": np.zeros((1, 1, 3)),
    }  # fmt: skip
    return RoundCones(**fields | changes)


def test_an_ellipsoids_outline_depth_and_shade_are_analytic():
    camera = orbit([0.0], 0.0, radius=2.0, fov_deg=33.9, height=96, width=96)
    cones = sphere(0.2, scale=(1.0, 2.0, 1.0))
    frames, depth = cast(cones, np.zeros((1, 1, 3)), np.eye(3)[None, None], camera, with_depth=True)
    image, depth = frames[0, 0], depth[0, 0]
    focal = 48 / np.tan(np.deg2rad(33.9) / 2)
    # A ray (x, y, 1) meets the ellipsoid where its discriminant is positive.
    steps = (np.arange(96) + 0.5 - 48) / focal
    x, y = np.meshgrid(steps, steps)
    a, b, c = x**2 + (y / 2) ** 2 + 1, -2.0, 4 - 0.04
    discriminant = b * b - a * c
    inside = discriminant > 0
    edge = np.abs(discriminant) < 0.008
    np.testing.assert_array_equal((image[..., 3] == 255)[~edge], inside[~edge])
    np.testing.assert_array_equal((image[..., 3] == 0)[~edge], ~inside[~edge])
    expected = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    well = discriminant > 0.05
    # The nearest of a pixel's five rays lies up to 0.4 pixels nearer the middle.
    np.testing.assert_allclose(depth[well], expected[well], atol=6e-3)
    shade = AMBIENT + DIFFUSE * (0.5 + 0.5 * LIGHT[2])
    np.testing.assert_allclose(image[47:49, 47:49, :3], round(255 * 0.6 * shade), atol=2)


def test_alpha_at_an_edge_is_the_covered_share():
    camera = orbit([0.0], 0.0, radius=2.0, fov_deg=33.9, height=64, width=64)
    frames, _ = cast(sphere(0.3), np.zeros((1, 1, 3)), np.eye(3)[None, None], camera)
    focal = 32 / np.tan(np.deg2rad(33.9) / 2)
    outline = focal * 0.3 / np.sqrt(4 - 0.09)
    assert frames[0, 0, ..., 3].sum() / 255 == pytest.approx(np.pi * outline**2, rel=0.01)
    assert set(np.unique(frames[..., 3])) == {0, 51, 102, 153, 204, 255}
    assert not frames[frames[..., 3] == 0].any()


def test_texture_moves_with_the_primitive_and_light_does_not():
    decal = {
        "decal_centers": np.asarray([[[0.0, 0.0, 0.3]]]), "decal_radii": np.full((1, 1, 3), 0.15),
        "decal_colors": np.asarray([[[1.0, 0.0, 0.0]]]),
    }  # fmt: skip
    camera = orbit([0.0, 180.0], 0.0, radius=2.0, fov_deg=33.9, height=64, width=64)
    half_turn = np.diag([-1.0, 1.0, -1.0])
    rotations = np.stack([np.eye(3), half_turn])[:, None]
    frames, _ = cast(sphere(0.3, **decal), np.zeros((2, 1, 3)), rotations, camera)
    middle = frames[:, :, 32, 32].astype(int)  # [view, frame, 4]
    red = middle[..., 0] - middle[..., 1] > 100
    np.testing.assert_array_equal(red, [[True, False], [False, True]])
    side = frames[:, :, 32, 24].astype(int)
    assert abs(side[0, 0, 2] - side[0, 1, 2]) <= 2 or red[0, 0]
    np.testing.assert_allclose(frames[0, 0, 14, 32], frames[0, 1, 14, 32], atol=2)


def test_the_nearer_primitive_hides_the_farther():
    two = RoundCones(*(np.concatenate([getattr(sphere(0.2), f)] * 2) for f in RoundCones.__dataclass_fields__))
    two.colors[:] = [[1, 0, 0], [0, 0, 1]]
    camera = orbit([0.0, 180.0], 0.0, radius=2.0, fov_deg=33.9, height=40, width=56)
    positions = np.asarray([[[0, 0, 0.3], [0, 0, -0.3]]])
    frames, _ = cast(two, positions, np.tile(np.eye(3), (1, 2, 1, 1)), camera)
    assert frames.shape == (2, 1, 40, 56, 4)
    assert frames[0, 0, 20, 28, 0] > 100 > frames[0, 0, 20, 28, 2]
    assert frames[1, 0, 20, 28, 2] > 80 > frames[1, 0, 20, 28, 0]


def test_radii_that_leave_no_cone_are_refused():
    with pytest.raises(ValueError, match="radii differ"):
        sphere(0.2, radii=np.asarray([[0.5, 0.1]]), length=np.asarray([0.3]))
