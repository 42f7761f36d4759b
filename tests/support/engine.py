"""Steps of a trainer, and what has to hold of every system that draws batches of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from dimo_jax.data.sources import load
from dimo_jax.runs.build import make_trainer

SCRIPT = """
import importlib, json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from support.engine import step_on_devices
module = importlib.import_module({module!r})
print(json.dumps(step_on_devices(module.make_config(Path(sys.argv[1]), **{changes!r}), module.watch, {count})))
"""


def make(config):
    """A trainer on the data of a config."""
    return make_trainer(config, load(config.data))


def take_steps(trainer, state, count):
    """The state after `count` steps, and their losses."""
    losses = []
    for _ in range(count):
        state, metrics = trainer.step(state, trainer.next_batch())
        losses.append(float(trainer.on_host(metrics).loss))
    return state, losses


def go_on_to_the_bit(config):
    """Asserts that two steps and two of another trainer are four; returns the states at the start, middle and end."""
    whole = make(config)
    state, losses = take_steps(whole, whole.init(), 4)
    expected = jax.device_get(state)
    whole.close()
    first = make(config)
    begun = first.init()
    start = jax.device_get(begun)
    state, before = take_steps(first, begun, 2)
    kept, notes = jax.device_get(first.on_host(state)), first.notes()
    first.close()
    second = make(config)
    assert jax.tree.map(np.shape, kept) == jax.tree.map(lambda x: x.shape, second.system.template(2))
    state, after = take_steps(second, second.resume(kept, notes), 2)
    second.close()
    assert before + after == losses
    end = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, end, expected)
    return start, kept, end


def step_on_devices(config, watch, count):
    """Losses on one device and on two, and how far what `watch` sees of the states is apart."""
    losses, seen = [], []
    for devices, accumulate in ((1, 2), (2, 1)):
        config.num_devices, config.batch.accumulate = devices, accumulate
        trainer = make(config)
        state, found = take_steps(trainer, trainer.init(), count)
        trainer.check_equal(state)
        losses.append(found)
        seen.append(np.asarray(watch(trainer.on_host(state))))
        trainer.close()
    return losses, float(np.abs(seen[0] - seen[1]).max())


def compute_the_same_on_two_devices(module, folder, *, count, **changes):
    """Asserts it of `make_config(folder, **changes)` and `watch` of a test's module."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as `quick_compile`
    tests = str(Path(__file__).resolve().parents[1])
    script = SCRIPT.format(tests=tests, module=module, changes=changes, count=count)
    found = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    (one, two), away = json.loads(found.stdout.splitlines()[-1])
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert away < 1e-5
