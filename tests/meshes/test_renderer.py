"""The z-buffer renderer against analytic projections and a brute-force ray caster."""

import numpy as np
import pytest

from dimo_jax.core.types import Camera
from dimo_jax.meshes.renderer import (
    AMBIENT,
    SKY,
    SUN,
    SUN_DIRECTION,
    Material,
    Mesh,
    draw_backdrop,
    look_at,
    render_mesh,
)
from dimo_jax.meshes.textures import (
    CLAMP,
    MIRROR,
    REPEAT,
    choose_levels,
    decode_srgb,
    encode_srgb,
    make_texture,
    sample_mipmaps,
    sample_texture,
)

SIZE = 32


def _camera(size=SIZE, focal=32.0, distance=2.0):
    pose = np.diag([1.0, -1.0, -1.0, 1.0])  # on +Z, looking to -Z, upright
    pose[2, 3] = distance
    return Camera(world_to_camera=pose, focal=np.full(2, focal), center=np.full(2, size / 2), height=size, width=size)


def _mesh(triangles, *, materials=None, triangle_materials=None, texcoords=None, colors=None):
    triangles = np.asarray(triangles, np.int32)
    count = int(triangles.max()) + 1 if triangles.size else 0
    return Mesh(
        triangles=triangles.reshape(-1, 3),
        triangle_materials=np.zeros(len(triangles), np.int32) if triangle_materials is None else triangle_materials,
        materials=materials or (Material(np.ones(4)),),
        texcoords=np.zeros((count, 2)) if texcoords is None else texcoords,
        colors=np.ones((count, 4)) if colors is None else colors,
        smooth_groups=np.arange(count, dtype=np.int32),
    )


def _square(half, z=0.0):
    return np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]], float)


FACING_LIGHT = AMBIENT + 0.5 * SKY + SUN * SUN_DIRECTION[2]  # of a surface whose normal is +Z
SQUARE_FACES = [[0, 1, 2], [0, 2, 3]]


def test_square_covers_exactly_its_projection():
    # half 0.5 at depth 2 and focal 32 reaches 8 pixels from the centre: pixels 8..23
    image = render_mesh(_square(0.5), _mesh(SQUARE_FACES), _camera())
    expected = np.zeros((SIZE, SIZE, 4), np.uint8)
    expected[8:24, 8:24] = [*[int(encode_srgb(np.array(FACING_LIGHT)))] * 3, 255]
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("samples", "shares"), [(1, (0, 1)), (2, (0, 0.5, 1)), (4, (0, 0.25, 0.5, 0.75, 1))])
def test_alpha_is_the_share_of_covered_samples(samples, shares):
    half = 0.5 + 0.5 / 16  # half a pixel more on every side
    alpha = render_mesh(_square(half), _mesh(SQUARE_FACES), _camera(), samples=samples)[..., 3]
    expected = np.zeros(SIZE)
    expected[8:24] = 1
    centers = (np.arange(samples) + 0.5) / samples
    expected[7], expected[24] = (centers >= 0.5).mean(), (centers < 0.5).mean()
    assert set(np.unique(np.outer(expected, expected))) <= {a * b for a in shares for b in shares}
    np.testing.assert_array_equal(alpha, np.rint(255 * np.outer(expected, expected)))


def test_edges_keep_their_straight_colour():
    image = render_mesh(_square(0.5 + 0.5 / 16), _mesh(SQUARE_FACES), _camera())
    assert 0 < image[7, 16, 3] < 255
    np.testing.assert_array_equal(image[7, 16, :3], image[16, 16, :3])


def test_nearer_triangles_hide_farther_ones_whatever_their_order():
    vertices = np.concatenate([_square(0.5, 0.0), _square(0.2, 0.3)])
    faces = [*SQUARE_FACES, [4, 5, 6], [4, 6, 7]]
    materials = (Material(np.array([1.0, 0, 0, 1])), Material(np.array([0, 1.0, 0, 1])))
    for order in (np.arange(4), np.arange(4)[::-1]):
        mesh = _mesh(np.array(faces)[order], materials=materials, triangle_materials=np.array([0, 0, 1, 1])[order])
        image = render_mesh(vertices, mesh, _camera())
        assert (image[16, 16, :3] > 0).tolist() == [False, True, False]
        assert (image[9, 9, :3] > 0).tolist() == [True, False, False]


def test_a_backdrop_drawn_before_gives_the_same_picture_as_all_at_once():
    glass = Material(np.array([1.0, 0.2, 0.2, 0.5]), blend=True)
    red = Material(np.array([1.0, 0, 0, 1]))
    vertices = np.concatenate(
        [_square(0.3, -0.5), _square(0.5), _square(0.2, 0.3), _square(0.6, 0.5), _square(0.1, 0.6)]
    )
    faces = np.concatenate([np.array(SQUARE_FACES) + 4 * layer for layer in range(5)])
    materials = np.array([0, 0, 0, 0, 2, 2, 1, 1, 0, 0], np.int32)
    mesh = _mesh(faces, materials=(Material(np.ones(4)), glass, red), triangle_materials=materials)
    still = np.repeat([True, True, False, False, True], 2)  # behind, in the middle and in front; glass moves
    behind, moved = (
        _mesh(faces[chosen], materials=mesh.materials, triangle_materials=materials[chosen])
        for chosen in (still, ~still)
    )
    whole = render_mesh(vertices, mesh, _camera())
    backdrop = draw_backdrop(vertices, behind, _camera())
    np.testing.assert_array_equal(render_mesh(vertices, moved, _camera(), backdrop=backdrop), whole)
    with pytest.raises(ValueError, match="blends"):
        draw_backdrop(vertices, mesh, _camera())


def test_pixels_look_at_places_of_the_mesh_unless_something_hides_them():
    vertices = np.concatenate([_square(0.5), _square(0.2, 0.3)])
    backdrop = draw_backdrop(vertices, _mesh(np.array(SQUARE_FACES) + 4), _camera(), samples=1)
    places, seen, there = look_at(vertices, _mesh(SQUARE_FACES), _camera(), vertices, backdrop=backdrop)
    assert [seen[16, 16], there[16, 16], there[1, 1]] == [False, True, False]
    assert (there & ~seen).sum() > 10
    rows, columns = np.nonzero(seen)
    ones = np.ones(len(rows))
    camera = _camera()
    seen_from = np.c_[places[rows, columns], ones] @ np.asarray(camera.world_to_camera).T
    pixels = seen_from[:, :2] / seen_from[:, 2:3] * np.asarray(camera.focal) + np.asarray(camera.center)
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1) + 0.5, atol=1e-3)


def test_intersecting_triangles_match_a_ray_caster():
    rng = np.random.default_rng(3)
    vertices = rng.uniform(-0.8, 0.8, (36, 3))
    colors = np.c_[rng.uniform(0.2, 1, (36, 3)), np.ones(36)]
    triangles = np.arange(36).reshape(12, 3)
    camera = _camera()
    image = render_mesh(vertices, _mesh(triangles, colors=colors), camera, samples=1)
    expected_color, expected_hit = _cast(vertices, triangles, colors, camera)
    hit = image[..., 3] > 0
    assert expected_hit.sum() > 200
    np.testing.assert_array_equal(hit, expected_hit)
    np.testing.assert_allclose(image[hit][:, :3], encode_srgb(expected_color[hit]), atol=1)


def _cast(vertices, triangles, colors, camera):
    """One ray through every pixel centre against every triangle, by solving a 3x3 system (Moller-Trumbore)."""
    eye = np.array([0, 0, camera.world_to_camera[2, 3]])
    color, hit = np.zeros((SIZE, SIZE, 3)), np.zeros((SIZE, SIZE), bool)
    for row in range(SIZE):
        for column in range(SIZE):
            ray = np.array([(column + 0.5 - 16) / 32, -(row + 0.5 - 16) / 32, -1.0])
            nearest = np.inf
            for triangle in triangles:
                a, b, c = vertices[triangle]
                u, v, distance = np.linalg.solve(np.stack([b - a, c - a, -ray], axis=1), eye - a)
                if u >= 0 and v >= 0 and u + v <= 1 and 0 < distance < nearest:
                    nearest = distance
                    normal = np.cross(b - a, c - a)
                    normal *= -np.sign(normal @ ray) / np.linalg.norm(normal)
                    light = AMBIENT + SKY * (0.5 + 0.5 * normal[1]) + SUN * max(normal @ SUN_DIRECTION, 0)
                    color[row, column] = light * (np.array([1 - u - v, u, v]) @ colors[triangle])[:3]
                    hit[row, column] = True
    return color, hit


def test_neighbouring_triangles_leave_no_gap_between_them():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 12), np.linspace(-0.4, 0.4, 12)), axis=-1).reshape(-1, 2)
    inner = (np.abs(grid) < 0.39).all(axis=1)
    grid[inner] += rng.uniform(-0.03, 0.03, (inner.sum(), 2))
    index = np.arange(144).reshape(12, 12)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    alpha = render_mesh(np.c_[grid, np.zeros(144)], _mesh(faces), _camera(), samples=3)[..., 3]
    covered = slice(10, 22)  # 0.4 at depth 2 and focal 32 reaches 6.4 pixels from the centre
    assert (alpha[covered, covered] == 255).all()


def test_texture_is_perspective_correct():
    texture = make_texture(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 4, axis=2) // 2 + 64)
    vertices = _square(0.8)
    vertices[[1, 2], 2], vertices[[0, 3], 2] = 0.7, -0.7  # turned about the vertical axis
    texcoords = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float)
    mesh = _mesh(SQUARE_FACES, materials=(Material(np.ones(4), texture),), texcoords=texcoords)
    row = render_mesh(vertices, mesh, _camera(), samples=1)[16]
    columns = np.flatnonzero(row[:, 3])
    slope = (columns + 0.5 - 16) / 32  # x / (2 - z) with z = 0.875 x
    u = 0.5 + 2 * slope / (1 + 0.875 * slope) / 1.6
    normal = np.array([-1.4, 0, 1.6]) / np.hypot(1.4, 1.6)
    light = AMBIENT + 0.5 * SKY + SUN * max(normal @ SUN_DIRECTION, 0)
    texel = decode_srgb(((u * 256 - 0.5) / 2 + 64) / 255)
    assert len(columns) > 20
    np.testing.assert_allclose(row[columns, 0], encode_srgb(light * texel), atol=1.5)


def test_both_sides_are_lit_towards_the_camera():
    front = render_mesh(_square(0.5), _mesh(SQUARE_FACES), _camera())
    back = render_mesh(_square(0.5), _mesh([[2, 1, 0], [3, 2, 0]]), _camera())
    np.testing.assert_array_equal(front, back)


def test_cutouts_show_what_is_behind_and_blends_mix_with_it():
    vertices = np.concatenate([_square(0.5, 0.0), _square(0.5, 0.2), _square(0.5, 0.4)])
    faces = [*SQUARE_FACES, [4, 5, 6], [4, 6, 7], [8, 9, 10], [8, 10, 11]]
    red, glass = Material(np.array([1.0, 0, 0, 1])), Material(np.array([0, 1.0, 0, 0.25]), blend=True)
    cut = Material(np.array([0, 0, 1.0, 0.4]), cutoff=0.5)
    mesh = _mesh(faces, materials=(red, glass, cut), triangle_materials=np.array([0, 0, 1, 1, 2, 2]))
    expected = encode_srgb(FACING_LIGHT * np.array([0.75, 0.25, 0]))
    np.testing.assert_allclose(render_mesh(vertices, mesh, _camera())[16, 16], [*expected, 255], atol=1)
    alone = _mesh(SQUARE_FACES, materials=(glass,))
    full = encode_srgb(FACING_LIGHT * np.array([0, 1.0, 0]))
    np.testing.assert_allclose(render_mesh(_square(0.5), alone, _camera())[16, 16], [*full, 64], atol=1)
    double = _mesh([*SQUARE_FACES, [4, 5, 6], [4, 6, 7]], materials=(glass,))
    assert render_mesh(vertices[:8], double, _camera())[16, 16, 3] == round(255 * (1 - 0.75**2))


def test_nothing_and_triangles_seen_edge_on_draw_nothing():
    assert not render_mesh(np.zeros((0, 3)), _mesh(np.zeros((0, 3))), _camera()).any()
    edge_on = np.array([[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0, 0.5]], float)
    assert not render_mesh(edge_on, _mesh([[0, 1, 2]]), _camera()).any()


def test_triangles_beyond_the_picture_are_cut_at_its_border():
    image = render_mesh(_square(50.0), _mesh(SQUARE_FACES), _camera())
    assert (image[..., 3] == 255).all()
    shifted = _square(0.5) + np.array([1.0, 0, 0])
    alpha = render_mesh(shifted, _mesh(SQUARE_FACES), _camera())[..., 3]
    assert (alpha[8:24, 24:] == 255).all()
    assert alpha[8:24, :24].max() == 0


def test_vertices_behind_the_camera_are_refused():
    with pytest.raises(ValueError, match="expected at least"):
        render_mesh(_square(0.5, 2.5), _mesh(SQUARE_FACES), _camera())


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [(REPEAT, [10, 20, 30, 10, 20]), (CLAMP, [30, 30, 30, 10, 10]), (MIRROR, [30, 20, 10, 30, 20])],
)
def test_texture_wrapping(wrap, expected):
    pixels = np.repeat(np.array([10, 20, 30], np.uint8)[None, :, None], 4, axis=2)
    texture = make_texture(pixels, wrap=(wrap, REPEAT))
    texels = np.array([3, 4, 5, -3, -2]) + 0.5
    found = sample_texture(texture, texels / 3, np.full(5, 0.5))
    np.testing.assert_allclose(found[3] * 255, expected, atol=1e-3)


def test_nearest_texels_are_not_mixed():
    pixels = np.repeat(np.array([10, 20, 30], np.uint8)[None, :, None], 4, axis=2)
    texture = make_texture(pixels, nearest=True)
    found = sample_texture(texture, np.array([0, 0.9, 1.1, 2.9, 3.0, -0.1]) / 3, np.full(6, 0.5))
    np.testing.assert_allclose(found[3] * 255, [10, 10, 20, 30, 10, 30], atol=1e-3)


def test_mipmaps_are_means_in_linear_light():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 4), dtype=np.uint8)
    texture = make_texture(pixels, mipmaps=True)
    assert [level.shape for level in texture.smaller] == [(6, 4, 4), (3, 2, 4)]  # 3 is odd: the last
    linear = np.concatenate([decode_srgb(pixels[..., :3] / 255), pixels[..., 3:] / 255], axis=-1)
    blocks = linear.reshape(3, 4, 2, 4, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(texture.smaller[1], blocks, atol=1e-6)
    centers = np.array([0.25, 0.75])  # of the texels of the last level's first row
    found = sample_mipmaps(texture, np.r_[centers, 1 / 16], np.r_[1 / 6, 1 / 6, 1 / 24], np.array([9, 2, 0]))
    np.testing.assert_allclose(found.T, [*blocks[0], linear[0, 0]], atol=1e-6)


def test_mipmaps_have_texels_of_the_size_of_samples():
    triangle = np.array([[[0, 0], [1, 0], [0, 1]]], float)
    sizes = np.array([0.5, 1, 1.9, 2.1, 4, 8])
    found = choose_levels(sizes[:, None, None] * triangle, np.repeat(triangle, 6, axis=0))
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 3])
    assert choose_levels(triangle, 0 * triangle) > 8


def test_fine_textures_seen_from_afar_are_their_mean():
    stripes = np.zeros((64, 64, 4), np.uint8)
    stripes[:, ::2] = 255
    stripes[..., 3] = 255
    texcoords = np.array([[0, 8], [8, 8], [8, 0], [0, 0]]) + 0.5 / 64  # so that samples hit the middle of a stripe
    images = []
    for mipmaps in (False, True):
        material = Material(np.ones(4), make_texture(stripes, mipmaps=mipmaps), unlit=True)
        mesh = _mesh(SQUARE_FACES, materials=(material,), texcoords=texcoords)
        images.append(render_mesh(_square(0.5), mesh, _camera(), samples=1)[8:24, 8:24, 0])
    assert set(np.unique(images[0])) <= {0, 255}
    np.testing.assert_array_equal(images[1], int(encode_srgb(np.array(0.5))))


def test_unlit_materials_show_their_own_colour():
    plain = Material(np.array([0.2, 0.4, 0.6, 1]))
    bright = Material(np.array([0.2, 0.4, 0.6, 1]), unlit=True)
    mesh = _mesh(SQUARE_FACES, materials=(plain, bright), triangle_materials=np.array([0, 1]))
    image = render_mesh(_square(0.5), mesh, _camera())
    color = np.array([0.2, 0.4, 0.6])
    np.testing.assert_array_equal(image[10, 14, :3], encode_srgb(color))  # above the diagonal
    np.testing.assert_array_equal(image[20, 18, :3], encode_srgb(FACING_LIGHT * color))


def test_srgb_round_trip():
    levels = np.arange(256)
    np.testing.assert_array_equal(encode_srgb(decode_srgb(levels / 255)), levels)
