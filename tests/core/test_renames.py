"""Names from before the package was laid out for several systems still lead somewhere."""

import importlib.util

import pytest

from dimo_jax.core.renames import FUNCTIONS, MODULES, current_name
from dimo_jax.core.resolve import resolve


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("dimo_jax.model.skinning:rbf_weights", "dimo_jax.skinning.weights:rbf_weights"),
        ("dimo_jax.losses.terms:arap", "dimo_jax.systems.dimo.terms:arap"),
        ("dimo_jax.data.puppet:make_puppet", "dimo_jax.data.puppet.dataset:make_puppet"),
        ("dimo_jax.train.density:prune", "dimo_jax.training.density:prune"),
        ("dimo_jax.systems.dimo.latents:plain_code", "dimo_jax.training.latents:plain_code"),
        ("dimo_jax.render:render", "dimo_jax.render:render"),
        ("mylab.skin:rbf_weights", "mylab.skin:rbf_weights"),
    ],
)
def test_old_names(before, now):
    assert current_name(before) == now
    assert current_name(now) == now


def test_every_old_module_leads_to_one_that_is_there():
    assert len(MODULES) > 100
    missing = [now for now in MODULES.values() if importlib.util.find_spec(f"dimo_jax.{now}") is None]
    assert not missing
    names = [(before, f"dimo_jax.{before}") for before in FUNCTIONS]
    assert all(callable(resolve({"fn": name}, key=key)) for key, name in names)
