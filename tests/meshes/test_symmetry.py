import numpy as np

from dimo_jax.meshes.objects import join_objects
from dimo_jax.meshes.sampling import sample_surface
from dimo_jax.meshes.symmetry import find_mirrors
from tests.support.objects import make_box, make_cylinder


def test_mirrors_halfway_between_principal_axes_are_found():
    plate = make_box((-0.5, -0.5, -0.1), (0.5, 0.5, 0.1))
    stick = make_cylinder((0.4, 0.4, 0), (0.58, 0.58, 0), 0.05)  # turns the principal axes by 45 degrees
    points = sample_surface(join_objects([plate, stick]).corners, 2000).points
    mirrors = find_mirrors(points, between=True)
    for normal in ([1, 0, 0], [0, 1, 0], [np.sqrt(0.5), -np.sqrt(0.5), 0]):
        assert max(abs(mirror.normal @ normal) for mirror in mirrors) > 0.995, normal
    residuals = [mirror.residual for mirror in mirrors]
    assert residuals == sorted(residuals)
