"""A static object is learnt from posed pictures, seen from where it was not, and by several devices alike."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit, select_cameras
from dimo_jax.configs.static import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Gaussians
from dimo_jax.data.dataset import Dataset
from dimo_jax.render.frames import FrameRenderer
from dimo_jax.runs.build import build_system, make_trainer
from dimo_jax.systems.static.system import Static

pytestmark = pytest.mark.usefixtures("quick_compile")
SIDE, AZIMUTHS = 32, tuple(range(0, 360, 40))


def make_dataset(side=SIDE):
    """Three coloured balls seen by nine cameras, of which the last is kept back."""
    balls = Gaussians(
        means=jnp.asarray([[-0.3, 0, 0], [0.3, 0.1, 0], [0, -0.1, 0.3]]),
        log_scales=jnp.full((3, 3), jnp.log(0.1)),
        quats=jnp.zeros((3, 4)).at[:, 0].set(1),
        logit_opacities=jnp.full(3, 4.0),
        sh=jnp.asarray([[[1.5, -1, -1]], [[-1, 1.5, -1]], [[-1, -1, 1.5]]]),
    )
    cameras = orbit(AZIMUTHS, 15, radius=2.0, fov_deg=33.9, height=side, width=side)
    renderer = FrameRenderer(background=(0, 0, 0), implementation="xla", capacity=None, num_gaussians=3)
    rgb, alpha = renderer.render(balls[None], cameras)
    straight = rgb / np.maximum(alpha[..., None], 1e-3)
    frames = np.concatenate([straight, alpha[..., None]], axis=-1).clip(0, 1)[None] * 255
    views = tuple(f"v{azimuth}" for azimuth in AZIMUTHS)
    splits = ("train",) * (len(views) - 1) + ("test",)
    return Dataset(
        np.rint(frames).astype(np.uint8), cameras, ("still",), ("",), ("train",), views, splits, 12.0, "balls"
    )


def make_config(num_steps):
    config = get_config("smoke")
    config.batch.views = 4
    config.static.update(num_steps=num_steps, capacity=256, num_points=64, scale=0.06, phases=((0, SIDE),))
    config.static.update(densify_from=40, densify_every=40, densify_until=num_steps)
    config.log_every = 50
    return config


def test_a_view_kept_back_is_seen():
    dataset, config = make_dataset(), make_config(200)
    trainer = make_trainer(config, dataset)
    state = trainer.init()
    while trainer.count < trainer.num_steps:
        state, _ = trainer.step(state, trainer.next_batch())
    trainer.close()
    reached = trainer.on_host(state)
    renderer = FrameRenderer(**config.render, num_gaussians=256)
    seen = renderer.render(reached.visible[None], select_cameras(dataset.cameras, [len(AZIMUTHS) - 1]))[0][0, 0]
    raw = dataset.frames[0, -1, 0].astype(np.float32) / 255
    truth = raw[..., :3] * raw[..., 3:] + 1 - raw[..., 3:]
    nothing = -10 * np.log10(np.mean((1 - truth) ** 2))
    assert -10 * np.log10(np.mean((seen - truth) ** 2)) > max(24, nothing + 8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(num_steps=0), r"config\.static\.num_steps: found 0, expected an integer of at least 1"),
        (dict(opacity=1.5), r"config\.static\.opacity: found 1\.5, expected a number above 0 and below 1"),
        (dict(phases=((5, 32),)), r"config\.static\.phases: found"),
        (dict(rates=dict(means=1e-3)), r"config\.static\.rates: no learning rate for"),
    ],
)
def test_mistakes_are_named_by_their_key(changes, says):
    config = get_config("smoke")
    if "rates" in changes:
        config.static.rates = changes.pop("rates")
    config.static.update(changes)
    with pytest.raises(UserError, match=says):
        Static.check(config)


def test_shapes_of_a_state_are_known_beforehand():
    config = make_config(2)
    system = build_system(config, make_dataset())
    told = system.template(0)
    made = system.init(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), told) == jax.tree.map(lambda x: (x.shape, x.dtype), made)


DEVICES = """
import json, sys
sys.path.insert(0, {here!r})
import jax
from test_system import make_config, make_dataset
from dimo_jax.runs.build import make_trainer
losses = []
for count in (1, 2):
    config = make_config(3)
    config.num_devices, config.log_every, config.static.densify_every = count, 1, 0
    trainer = make_trainer(config, make_dataset(16))
    assert trainer.layout.num_devices == count
    state, own = trainer.init(), []
    while trainer.count < trainer.num_steps:
        state, metrics = trainer.step(state, trainer.next_batch())
        own.append(float(trainer.on_host(metrics).loss))
    trainer.check_equal(state)
    losses.append(own)
print(json.dumps(losses))
"""


@pytest.mark.slow
def test_two_devices_train_what_one_does(monkeypatch):
    import json

    flags = "--xla_force_host_platform_device_count=2 --xla_llvm_disable_expensive_passes=true"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    code = DEVICES.format(here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one[0] != one[-1]
