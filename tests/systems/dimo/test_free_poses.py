"""The third stage: poses that move by themselves, and a decoder that learns them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, held_out_frames
from dimo_jax.geometry import quaternion
from dimo_jax.runs.build import make_trainer
from dimo_jax.systems.dimo import checks, fit_decoder, free_poses, stages, step
from dimo_jax.systems.dimo.model import build_components, decode
from dimo_jax.systems.dimo.state import TrainState

pytestmark = pytest.mark.usefixtures("quick_compile")
SIZE = dict(num_motions=3, num_frames=6)


def make_config(num_steps=3):
    config = get_config("smoke")
    config.stage1.num_steps = config.stage2.num_steps = 1
    config.stage3.update(num_steps=num_steps, phases=((0, 16),))
    config.stage3.fit.num_steps = 5
    config.stage1.phases = config.stage2.phases = ((0, 16),)
    config.batch.update(motions=2, views=2, frames=2)
    config.data.held_out_every = 5
    return config


@pytest.fixture(scope="module")
def taken():
    """Trainer and states of the third stage: as it begins, after each step but the last, and what it ends with."""
    config = make_config()
    frames = np.random.default_rng(0).integers(0, 256, size=(3, 3, 6, 16, 16, 4), dtype=np.uint8)
    cameras = orbit((0, 120, 240), (0, 0, 0), radius=2.0, fov_deg=33.9, height=16, width=16)
    names = ("a", "b", "c")
    dataset = Dataset(frames, cameras, names, names, ("train",) * 3, ("x", "y", "z"), ("train",) * 3, 12.0, "noise")
    trainer = make_trainer(config, dataset)
    state, states = trainer.init(), []
    while trainer.count < trainer.num_steps:
        state, metrics = trainer.step(state, trainer.next_batch())
        assert np.isfinite(metrics.loss)
        states.append(jax.device_get(state))
    trainer.close()
    return trainer, states[1:]


def test_poses_move_where_pictures_show_them_and_nothing_else_does(taken):
    trainer, (begun, _, last, _) = taken
    held_out = held_out_frames(trainer.dataset, 5)
    assert len(held_out) == 1
    assert isinstance(begun, free_poses.FreeState)
    for name in ("translations", "rotations"):
        moved = np.abs(getattr(last.free, name) - getattr(begun.free, name)).max(axis=(2, 3))
        assert moved.max() > 1e-5, name
        np.testing.assert_array_equal(moved[:, held_out], 0.0, err_msg="a held-out frame")
    assert np.abs(last.free.gaussians.means - begun.free.gaussians.means).max() > 1e-5
    for a, b in zip(jax.tree.leaves(last.params), jax.tree.leaves(begun.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(last.optimizer), jax.tree.leaves(begun.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_ends_as_a_model_of_two_stages_does(taken):
    trainer, (_, _, last, ended) = taken
    assert type(ended) is TrainState
    assert int(ended.step) == trainer.num_steps == 5
    for a, b in zip(jax.tree.leaves(ended.params.decoder), jax.tree.leaves(last.params.decoder), strict=True):
        assert np.abs(a - b).max() > 1e-6
    # Its Gaussians are those that were freed, a step further, and not those that waited.
    for name in ("means", "log_scales", "sh"):
        before, free, after = (
            getattr(g, name) for g in (last.params.gaussians, last.free.gaussians, ended.params.gaussians)
        )
        assert np.abs(after - before).max() > 1.2 * np.abs(after - free).max() > 0, name
    np.testing.assert_array_equal(ended.params.latents.log_sigma, last.params.latents.log_sigma)
    for state, count in ((last, 4), (ended, 5)):
        wanted = trainer.system.template(count)
        assert jax.tree.structure(wanted) == jax.tree.structure(state)
        assert [x.shape for x in jax.tree.leaves(wanted)] == [x.shape for x in jax.tree.leaves(state)]


def test_no_state_within_it_can_be_the_best(taken, monkeypatch):
    trainer, _ = taken
    monkeypatch.setattr(trainer.tracker, "notes", lambda: {"score": [3, 16, 20.0]})
    assert "score" in trainer.notes()  # it has ended
    monkeypatch.setattr(trainer, "count", 4)
    assert "score" not in trainer.notes()
    monkeypatch.setattr(trainer, "count", 2)
    trainer._enter_stage()
    assert "score" not in trainer.notes()


def test_free_poses_begin_where_the_decoder_puts_them(taken):
    trainer, (begun, *_) = taken
    begun = jax.device_put(begun)
    batch = jax.device_put(trainer._sampler(16).sample(0))
    components, options = trainer.system.components, trainer.system.options(trainer.system.stages[2])
    params = step.visible_params(begun.params, begun.alive, options)
    near = jax.tree.map(lambda x: x[batch.motions], begun.neighbors)
    codes = params.latents.mu[batch.motions]
    free = free_poses._move(begun.free, components, params, near, codes, batch)
    decoded = step._move_by_codes(components, params, near, codes, batch, move=options.move)
    for a, b in zip(jax.tree.leaves(free), jax.tree.leaves(decoded), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_the_error_of_a_pose_is_how_far_it_carries_points_wrong(batch):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        reach = jnp.asarray(rng.uniform(0.1, 2.0, size=4))
        rotations = jnp.asarray(rng.normal(size=(*batch, 4, 4)))
        shift = jnp.asarray(rng.normal(size=(*batch, 4, 3)))
        axis = rng.normal(size=(*batch, 4, 3))
        axis = jnp.asarray(axis / np.linalg.norm(axis, axis=-1, keepdims=True))
        angle = 1e-4
        turn = jnp.concatenate([jnp.full((*batch, 4, 1), np.cos(angle / 2)), np.sin(angle / 2) * axis], axis=-1)
        turned = -3.0 * quaternion.multiply(turn, rotations)  # of another sign and length, which do not count
        zeros = jnp.zeros_like(shift)
        error = fit_decoder.pose_error(shift, turned, zeros, rotations, reach)
        expected = np.mean(np.sum(shift**2, axis=-1) + (angle * reach) ** 2)
        np.testing.assert_allclose(error, expected, rtol=1e-9)
        turns_alone = fit_decoder.pose_error(zeros, turned, zeros, rotations, reach)
        np.testing.assert_allclose(turns_alone, np.mean((angle * np.asarray(reach)) ** 2), rtol=1e-6)


def test_a_decoder_learns_the_poses_that_another_gives():
    config = make_config()
    components = build_components(config)
    key = jax.random.key(0)
    state = stages.begin_first(config, components, **SIZE, key=key)
    positions = jax.random.normal(key, (16, 3))
    key_points = state.params.key_points.replace(positions=positions)
    params = state.params.replace(
        key_points=key_points, latents=state.params.latents.replace(log_sigma=jnp.full((3, 32), -9.0))
    )
    codes, times = params.latents.mu, stages.frame_times(6)
    teacher = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape), params.decoder)
    taught = params.replace(decoder=teacher)
    motions = jnp.array([0, 2])
    poses = [
        jnp.stack([jnp.stack([decode(components, taught, codes[m], positions, t)[i] for t in times]) for m in motions])
        for i in (0, 1)
    ]
    learn = jax.jit(
        lambda num_moments: fit_decoder.fit_decoder(
            components, params, key, motions=motions, times=times, translations=poses[0], rotations=poses[1],
            num_steps=300, decoder_rate=1e-2, code_rate=1e-2, num_moments=num_moments,
        ),
        static_argnums=0,
    )  # fmt: skip
    for num_moments in (5, 1_000):
        fitted, losses = learn(num_moments)
        assert losses.shape == (300,)
        assert np.mean(losses[-20:]) < 0.1 * np.mean(losses[:5])
        np.testing.assert_array_equal(fitted.latents.mu[1], codes[1])  # of a motion that was not asked for
        np.testing.assert_array_equal(fitted.gaussians.means, params.gaussians.means)
        np.testing.assert_array_equal(fitted.key_points.positions, positions)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_steps": -1}, r"config.stage3.num_steps: found -1"),
        ({"phases": ()}, r"config.stage3.phases"),
        ({"adam_b2": 1.0}, r"config.stage3.adam_b2: found 1.0"),
        ({"fit": {"num_steps": 0}}, r"config.stage3.fit.num_steps: found 0"),
        ({"fit": {"num_moments": 0}}, r"config.stage3.fit.num_moments: found 0"),
        ({"fit": {"decoder_rate": 0.0}}, r"config.stage3.fit.decoder_rate: found 0.0"),
        ({"fit": {"code_rate": -1.0}}, r"config.stage3.fit.code_rate: found -1.0"),
        ({"fit": {"fn": "dimo_jax.nowhere:fit"}}, r"config.stage3.fit"),
        ({"rates": {"means": {"fn": "dimo_jax.nowhere:rate"}}}, r"config.stage3.rates.means"),
        ({"losses": {"rgb": {"fn": "dimo_jax.losses.terms:nothing"}}}, r"config.stage3.losses.rgb"),
    ],
)
def test_what_it_cannot_do_is_said_before_training(changes, said):
    config = get_config("demo")
    with config.unlocked():
        config.stage3.update(changes)
    with pytest.raises(UserError, match=said):
        checks.check(config)


def test_only_what_key_points_move_can_be_freed():
    config = get_config("demo")
    checks.check(config)
    config.stage2.move = dict(fn="dimo_jax.systems.dimo.model:move_without_key_points")
    with pytest.raises(UserError, match=r"config.stage2.move: found .*move_without_key_points beside stage3"):
        checks.check(config)
    config.stage3.num_steps = 0
    checks.check(config)


def test_a_run_of_before_there_was_a_third_stage_has_two():
    config = get_config("demo")
    with config.unlocked():
        del config.stage3
    checks.check(config)
    assert len(stages.build_stages(config)) == 2
