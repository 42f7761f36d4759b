"""The examples of docs/extending.md: each a function outside the package and a flag."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.apps import sample
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from examples.extending.cosine_curves import cosine_curves
from examples.extending.skinning import inverse_distance_weights

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--config.skinning.fn=examples.extending.skinning:inverse_distance_weights",
    "--config.decoder.fn=examples.extending.cosine_curves:cosine_curves",
)


def test_weights_are_inverse_distances():
    points, positions = np.zeros((1, 3)), np.asarray([[[1.0, 0, 0], [0, 2.0, 0], [0, 0, 4.0]]])
    weights = inverse_distance_weights(points, positions, jnp.zeros((1, 3)), power=2.0)
    np.testing.assert_allclose(weights[0], np.asarray([1, 1 / 4, 1 / 16]) / (1 + 1 / 4 + 1 / 16), rtol=1e-4)
    on_top = inverse_distance_weights(positions[0, :1], positions, jnp.zeros((1, 3)))
    np.testing.assert_allclose(on_top[0], [1, 0, 0], atol=1e-6)
    gradient = jax.grad(lambda p: inverse_distance_weights(p, positions, jnp.zeros((1, 3)))[0, 0])(positions[0, :1])
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_curves_start_canonical_and_move_afterwards():
    decoder = cosine_curves(num_cosines=4, width=16, depth=2, num_position_bands=2, skip=1)
    z, positions = jnp.ones(5), jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
    variables = decoder.init(jax.random.key(0), z, positions, jnp.zeros([]))
    for time in (0.0, 0.7):
        translations, rotations = decoder.apply(variables, z, positions, jnp.asarray(time))
        np.testing.assert_array_equal(translations, np.zeros((6, 3)))
        np.testing.assert_array_equal(rotations, np.tile([1.0, 0, 0, 0], (6, 1)))
    trained = jax.tree.map(lambda x: x + 0.1, variables)
    translations, rotations = decoder.apply(trained, z, positions, jnp.asarray(0.0))
    np.testing.assert_array_equal(translations, np.zeros((6, 3)))
    translations, _ = decoder.apply(trained, z, positions, jnp.asarray(0.5))
    assert float(jnp.abs(translations).max()) > 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_flags_train_with_the_functions_and_the_run_finds_them_again(tmp_path):
    """Both in one run, whose decoder and skinning know nothing of each other."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "DIMO_JAX_CACHE": str(tmp_path / "cache")}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # `quick_compile` of the other process
    command = [sys.executable, str(ROOT / "launch.py"), f"--config={ROOT}/configs/dimo.py:smoke", *FLAGS]
    command.append(f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["skinning"]["fn"] == "examples.extending.skinning:inverse_distance_weights"
    assert config["decoder"]["fn"] == "examples.extending.cosine_curves:cosine_curves"
    sample.run(workdir=str(tmp_path / "run"), out=str(tmp_path), num_samples=1)
    assert (tmp_path / "samples_0.mp4").stat().st_size > 500


def test_an_option_that_a_function_does_not_take_is_refused():
    spec = dict(fn="examples.extending.skinning:inverse_distance_weights", powr=2.0)
    with pytest.raises(UserError, match=r"config.skinning.powr: not an option of .*\(options: power\)"):
        resolve(spec, key="skinning")


@pytest.mark.parametrize("name", ["skinning", "cosine_curves"])
def test_docs_show_the_examples_as_they_are(name):
    assert (ROOT / f"examples/extending/{name}.py").read_text() in (ROOT / "docs/extending.md").read_text()
