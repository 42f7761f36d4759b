"""What the authors' presets ask of the terms: ARAP over random times."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.configs.dimo import get_config
from dimo_jax.systems.dimo import terms


def slow_rigid(nodes, alive, radius, num_neighbors):
    """Of nodes [R,P,3] in float64, loop by loop."""
    total, num_edges = 0.0, 0
    for k in np.flatnonzero(alive):
        order = [j for j in np.argsort(np.linalg.norm(nodes[0] - nodes[0, k], axis=-1)) if j != k and alive[j]]
        lengths = np.linalg.norm(nodes - nodes[:, k, None], axis=-1)
        near = [j for j in order[:num_neighbors] if np.all(lengths[:, j] <= radius)]
        num_edges += len(near)
        for pose in nodes[1:]:
            if near:
                before, after = nodes[0, near] - nodes[0, k], pose[near] - pose[k]
                rotation = Rotation.align_vectors(after, before)[0]
                total += np.sum((after - rotation.apply(before)) ** 2)
    return total, num_edges


def test_arap_over_random_times_is_the_authors():
    rng = np.random.default_rng(1)
    rest = rng.uniform(-0.2, 0.2, size=(2, 1, 30, 3))
    nodes = rest + 0.02 * rng.normal(size=(2, 5, 30, 3))
    alive = np.arange(30) % 7 != 3
    inputs = SimpleNamespace(
        canonical=jnp.asarray(rest[0, 0], jnp.float32),
        control_alive=jnp.asarray(alive),
        random_controls=jnp.asarray(nodes, jnp.float32),
    )
    found = terms.arap_rigid(inputs, radius=0.15, num_neighbors=4, num_times=5)
    slow = [slow_rigid(motion, alive, 0.15, 4) for motion in nodes]
    assert 30 < slow[0][1] < 4 * alive.sum()  # some neighbours count, some go out of reach at times
    np.testing.assert_allclose(found, np.mean([total for total, _ in slow]), rtol=1e-4)


def test_the_authors_preset_asks_for_both_and_the_paper_for_none():
    for preset, weight, times in (("official", 0.5, 8), ("paper", 1.0, None), ("demo", 1.0, None)):
        config = get_config(preset)
        for stage in (config.stage1, config.stage2):
            assert stage.losses.rgb.novel_weight == weight
            assert stage.losses.arap.get("num_times") == times
