"""The engine knows nothing of a system: it trains a static object in memory, and goes on where it stood, to the bit."""

import jax
import numpy as np
import pytest
from support.engine import take_steps

from dimo_jax.configs.static import get_config
from dimo_jax.data.sources import load
from dimo_jax.runs.build import make_trainer

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def setting():
    config = get_config("smoke")
    config.static.num_steps = 6
    config.static.densify_every = config.static.densify_from = 2
    config.static.phases = ((0, 16), (3, 32))
    config.log_every = 2
    return config, load(config.data)


@pytest.fixture(scope="module")
def unbroken(setting):
    trainer = make_trainer(*setting)
    state, losses = take_steps(trainer, trainer.init(), trainer.num_steps)
    trainer.close()
    return jax.device_get(state), losses


def test_a_trainer_needs_no_folder_and_learns(unbroken):
    state, losses = unbroken
    assert int(state.step) == 6
    assert losses[2] < losses[0]  # of one resolution
    assert int(state.alive.sum()) > 32  # densified


def test_another_trainer_goes_on_to_the_bit(setting, unbroken):
    first = make_trainer(*setting)
    state, before = take_steps(first, first.init(), 4)  # in the middle of a resolution
    kept, notes = jax.device_get(first.on_host(state)), first.notes()
    first.close()
    second = make_trainer(*setting)
    state, after = take_steps(second, second.resume(kept, notes), 2)
    second.close()
    assert before + after == unbroken[1]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), unbroken[0])


def test_the_batch_of_a_step_can_be_seen_again(setting):
    trainer = make_trainer(*setting)
    assert trainer.batch_of(1).images.shape == (1, 2, 1, 16, 16, 4)
    assert trainer.resolution == 16
    np.testing.assert_array_equal(trainer.batch_of(2).images, trainer.batch_of(2).images)
