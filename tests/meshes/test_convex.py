import numpy as np
import pytest
import trimesh
from support.cabinet_links import cabinet_links

from dimo_jax.meshes.convex import MAX_PIECES, find_pieces, volume_of


def is_inside(points, piece, *, tolerance):
    vertices, triangles = piece
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return ((points @ normals.T - (normals * a).sum(1)) <= tolerance).all(1)


def turned(vertices):
    turn = trimesh.transformations.rotation_matrix(0.9, [0.2, 0.7, -0.5])[:3, :3]
    return vertices @ turn.T + [1.0, 2.0, -0.5], lambda point: turn @ point + [1.0, 2.0, -0.5]


@pytest.mark.parametrize("index", range(4))
def test_pieces_are_convex_and_cover_the_surface(index):
    link = cabinet_links().links[index]
    vertices, _ = turned(link.vertices)
    pieces = find_pieces(vertices, link.mesh.triangles)
    assert 1 <= len(pieces) <= MAX_PIECES
    for piece in pieces:
        assert volume_of(piece) > 0
        assert is_inside(piece[0], piece, tolerance=1e-6).all()
    points, _ = trimesh.sample.sample_surface(
        trimesh.Trimesh(vertices, link.mesh.triangles, process=False), 2000, seed=0
    )
    assert np.any([is_inside(points, piece, tolerance=1e-4) for piece in pieces], axis=0).all()


def test_a_hollow_body_stays_open_and_its_boards_thin():
    link = cabinet_links().links[0]
    vertices, move = turned(link.vertices)
    pieces = find_pieces(vertices, link.mesh.triangles)
    hollow = np.array(
        [move(point) for point in ([0, 0.3, 0.1], [0, 0.75, 0.0], [0.25, 0.05, 0.19], [-0.27, 0.3, -0.1])]
    )
    assert not np.any([is_inside(hollow, piece, tolerance=0) for piece in pieces])
    boards = sum(map(volume_of, pieces))
    whole = trimesh.Trimesh(link.vertices, link.mesh.triangles)
    assert boards == pytest.approx(whole.volume, rel=0.02)


def test_a_convex_part_is_one_piece_and_a_hull_is_one_always():
    door = cabinet_links().links[1]
    assert len(find_pieces(door.vertices, door.mesh.triangles)) == 1
    body = cabinet_links().links[0]
    (piece,) = find_pieces(body.vertices, body.mesh.triangles, hull_only=True)
    assert volume_of(piece) == pytest.approx(0.6 * 0.9 * 0.4)


def test_a_flat_part_gets_a_thickness():
    (piece,) = find_pieces(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]]))
    assert 0 < volume_of(piece) < 0.01
    assert find_pieces(np.zeros((3, 3)), np.array([[0, 1, 2]])) == []


def test_pieces_around_one_centre_are_told_apart():
    bars = [trimesh.creation.box(np.roll([2.0, 0.5, 0.5], axis)) for axis in range(3)]
    cross = trimesh.util.concatenate(bars)
    pieces = find_pieces(np.asarray(cross.vertices), np.asarray(cross.faces))
    sizes = sorted(np.ptp(vertices, axis=0).tolist() for vertices, _ in pieces)
    np.testing.assert_allclose(sizes, [[0.5, 0.5, 2], [0.5, 2, 0.5], [2, 0.5, 0.5]])
