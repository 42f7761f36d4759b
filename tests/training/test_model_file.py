"""Model files hold what a model has, and name what does not fit."""

import flax.serialization
import jax
import numpy as np
import pytest

from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.training.config_file import to_plain
from dimo_jax.training.model_file import load_model_file, restore_params, write_model

LIGHTS = (None, (0.0, 1.0, 0.0))


def make_template(light):
    config = get_config("smoke")
    config.stage2.light = light
    step = stages.build_stages(config)[1].span.last_step
    return config, step, stages.template(config, build_components(config), step=step, num_motions=2, num_frames=4)


def write(path, light):
    config, step, template = make_template(light)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), template.params)
    alive = rng.uniform(size=template.alive.shape) < 0.9
    write_model(params, alive, path, config=to_plain(config), facts={}, step=step)
    return params, alive


@pytest.mark.parametrize("light", LIGHTS)
def test_a_model_comes_back_as_it_was(tmp_path, light):
    params, alive = write(tmp_path / "model.npz", light)
    file = load_model_file(tmp_path / "model.npz")
    back, usable = restore_params(file, make_template(light)[2].params, tmp_path / "model.npz")
    assert (back.light is None) == (light is None)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(usable, alive)


def test_a_model_without_a_light_is_stored_as_before_there_were_any():
    """Runs of then are read with a template of now, and the reader of checkpoints takes no other keys than its own."""
    state = make_template(None)[2]
    for tree in (state.params, state.optimizer[0].mu):
        assert set(flax.serialization.to_state_dict(tree)) == {"latents", "decoder", "key_points", "gaussians"}
    assert "light" in flax.serialization.to_state_dict(make_template(LIGHTS[1])[2].params)


def test_a_projector_and_a_light_go_together():
    config = get_config("smoke")
    config.text.joint = True
    step = stages.build_stages(config)[1].span.last_step
    how = dict(num_motions=2, num_frames=4, num_text_features=8)
    params = stages.template(config, build_components(config), step=step, **how).params
    assert params.light.shape == (3,)
    assert jax.tree.leaves(params.projector)


@pytest.mark.parametrize(("has", "wants"), [LIGHTS, LIGHTS[::-1]])
def test_a_light_too_many_or_too_few_is_named(tmp_path, has, wants):
    write(tmp_path / "model.npz", has)
    file = load_model_file(tmp_path / "model.npz")
    with pytest.raises(UserError, match=r"gaussians/sh|light"):
        restore_params(file, make_template(wants)[2].params, tmp_path / "model.npz")
