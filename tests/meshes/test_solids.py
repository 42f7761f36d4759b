import numpy as np
import pytest
import trimesh
from support.cabinet_links import cabinet_links

from dimo_jax.meshes.convex import find_pieces, hull_of
from dimo_jax.meshes.solids import PIECES, SHEET, SHEET_THICKNESS, VOLUME, is_closed, measure_mass, weld

BOX = trimesh.creation.box((0.2, 0.3, 0.5))


def place(mesh, *, shift=(0.3, -0.2, 0.9), angle=0.7):
    turn = trimesh.transformations.rotation_matrix(angle, [0.3, 0.5, 0.8])[:3, :3]
    return np.asarray(mesh.vertices) @ turn.T + shift, np.asarray(mesh.faces)


def as_trimesh(vertices, triangles, density):
    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    mesh.density = density
    return mesh


@pytest.mark.parametrize("mesh", [BOX, trimesh.creation.icosphere(subdivisions=2), trimesh.creation.torus(1, 0.3)])
def test_a_closed_surface_has_the_mass_that_trimesh_says(mesh):
    vertices, triangles = place(mesh)
    found = measure_mass(vertices, triangles, [], density=700)
    truth = as_trimesh(vertices, triangles, 700)
    assert found.source == VOLUME
    assert found.mass == pytest.approx(truth.mass)
    np.testing.assert_allclose(found.center, truth.center_mass, atol=1e-9)
    np.testing.assert_allclose(found.inertia, truth.moment_inertia, rtol=1e-5, atol=1e-6 * truth.moment_inertia.max())


def test_seams_of_textures_do_not_open_a_surface():
    vertices, triangles = place(BOX)
    split = vertices[triangles].reshape(-1, 3)
    found = measure_mass(split, np.arange(len(split)).reshape(-1, 3), [], density=1000)
    assert (found.source, found.mass) == (VOLUME, pytest.approx(30.0))
    assert not is_closed(np.arange(len(split)).reshape(-1, 3))
    assert all(is_closed(weld(link.vertices, link.mesh.triangles)[1]) for link in cabinet_links().links)


def test_an_open_box_has_the_mass_of_its_pieces():
    vertices, triangles = place(BOX)
    lid = np.abs(trimesh.Trimesh(vertices, triangles, process=False).face_normals @ [0.3, 0.5, 0.8]).argmax()
    opened = np.delete(triangles, lid, axis=0)
    found = measure_mass(vertices, opened, [hull_of(vertices, thickness=1e-4)], density=1000)
    assert (found.source, found.mass) == (PIECES, pytest.approx(30.0))


def test_a_sheet_has_a_thickness():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], float)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    found = measure_mass(vertices, triangles, find_pieces(vertices, triangles), density=1000)
    thickness = SHEET_THICKNESS * np.sqrt(5)
    mass = 1000 * 2 * thickness
    assert (found.source, found.mass) == (SHEET, pytest.approx(mass))
    plate = mass / 12 * np.diag([1 + thickness**2, 4 + thickness**2, 5])
    np.testing.assert_allclose(found.inertia, plate, rtol=1e-2)


def test_inertia_about_a_line_follows_steiner():
    vertices, triangles = place(BOX, shift=(0, 0, 0), angle=0)
    mass = measure_mass(vertices, triangles, [], density=1000)
    edge = mass.about(np.array([0.1, 0.15, 7.0]), np.array([0, 0, 1.0]))
    assert edge == pytest.approx(30.0 / 3 * (0.2**2 + 0.3**2))


def test_a_part_without_surface_is_an_error():
    with pytest.raises(ValueError, match="no surface"):
        measure_mass(np.zeros((3, 3)), np.array([[0, 1, 2]]), [], density=1)
