"""The static baseline sees the model's losses and batches, in the model's parts, with buffers that grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.dataset import Dataset
from dimo_jax.losses.terms import load_networks
from dimo_jax.losses.total import build_terms
from dimo_jax.runs import baseline
from dimo_jax.runs.baseline import static_config, train_static
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.static import system as static
from dimo_jax.training import parallel
from dimo_jax.training.optimizer import GAUSSIANS
from dimo_jax.training.system import Metrics
from dimo_jax.training.tracker import LossNotFinite

pytestmark = pytest.mark.usefixtures("quick_compile")

SIDE = 16
NAMES = ("a", "b", "c", "d")


def make_config():
    config = get_config("smoke")
    config.num_key_points, config.stage2.num_per_key_point = 8, 4
    config.batch = dict(motions=4, views=2, frames=1, accumulate=1)
    config.num_devices = 1
    config.evaluation.baseline_steps = 4
    config.log_every = 2
    return config


@pytest.fixture(scope="module")
def scene():
    """A model as the second stage begins, and four motions of a red square, as long as no test asks for another."""
    config = make_config()
    frames = np.zeros((4, 3, 4, SIDE, SIDE, 4), np.uint8)
    frames[..., 4:12, 4:12, :] = (220, 30, 30, 255)
    cameras = orbit((0, 120, 240), (0, 0, 0), radius=2.0, fov_deg=33.9, height=SIDE, width=SIDE)
    splits = dict(splits=("train",) * 4, view_names=("x", "y", "z"), view_splits=("train",) * 3)
    dataset = Dataset(frames, cameras, NAMES, NAMES, **splits, frame_rate=12.0, object_name="square")
    components = build_components(config)

    @jax.jit
    def begin(key):
        first = stages.begin_first(config, components, num_motions=4, num_frames=4, key=key)
        return stages.begin_second(first, key, config=config, components=components, num_frames=4)

    state = begin(jax.random.key(0))
    return dataset, state.replace(step=jnp.int32(config.stage1.num_steps + config.stage2.num_steps))


def terms_of(preset):
    return {term.name: term for term in build_terms(static_config(get_config(preset)).static.losses, key="losses")}


def test_losses_are_those_of_the_model_but_for_its_motion():
    paper = terms_of("paper")
    assert set(paper) == {"rgb", "mask", "ssim", "lpips", "depth", "normal"}
    model = {term.name: term for term in stages.build_stages(get_config("paper"))[1].options.terms}
    for name, term in paper.items():
        own = model[name]
        # What waits for the end of the model counts: a baseline that counted anew from 0 would not see depth.
        assert (term.weight, term.start, term.stop, term.options) == (own.weight, 0, own.stop, own.options)
    assert set(load_networks(tuple(paper.values()))) == {"lpips_vgg"}
    assert set(terms_of("official")) >= {"ssim", "lpips"}
    assert set(terms_of("demo")) == {"rgb", "mask", "opacity"}


def stay_near(inputs, *, size=1.0):
    """A user's own term, of key points."""
    return size * jnp.mean(inputs.controls**2)


def be_dark(inputs):
    """A user's own term, of pictures."""
    return jnp.mean(inputs.rgb)


def test_a_users_own_term_counts_where_it_sees_pictures_alone(monkeypatch):
    config = get_config("demo")
    for function in (stay_near, be_dark):
        monkeypatch.setattr(f"dimo_jax.systems.dimo.terms.{function.__name__}", function, raising=False)
        name = f"dimo_jax.systems.dimo.terms:{function.__name__}"
        with config.unlocked():
            config.stage2.losses[function.__name__] = dict(fn=name, weight=1.0)
    assert set(static_config(config).static.losses) == {"rgb", "mask", "opacity", "be_dark"}


def test_parts_one_after_the_other_train_the_same_model(scene):
    dataset, state = scene
    before = jax.tree.map(np.asarray, state.params.gaussians)
    whole = train_static(make_config(), dataset, state)
    shapes = []
    original = static.build_step

    def spy(*args, **options):
        step = original(*args, **options)

        def run(state, batch, *rest):
            shapes.append(batch.images.shape)
            return step(state, batch, *rest)

        return run

    config = make_config()
    config.batch.accumulate = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, "build_step", spy)
        parts = train_static(config, dataset, state)
    assert shapes[0][:4] == (4, 1, 2, 1)  # four parts of one motion, two views and a frame
    for name in ("means", "sh", "logit_opacities"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=2e-3, atol=2e-4, err_msg=name)
        assert np.max(np.abs(np.asarray(getattr(whole, name)) - getattr(before, name))) > 1e-4, name
    jax.tree.map(np.testing.assert_array_equal, before, state.params.gaussians)  # the model is not touched


class Stub:
    """Steps that lose pairs while their buffers are small, without rendering anything."""

    def __init__(self, *, loss=1.0, needed=4):
        self.rooms, self.loss, self.needed = [], loss, needed

    def parallelize(self, build, layout):
        _, buffers = build.args
        pairs = buffers.pairs
        self.rooms.append(pairs)

        def step(state, batch, fixed, key):
            lost = jnp.int32(max(self.needed - pairs, 0))
            return state, Metrics(jnp.float32(self.loss), {}, jnp.float32(0), lost, jnp.zeros(()))

        return step


def run_stub(scene, stub, monkeypatch):
    dataset, state = scene
    config = make_config()
    config.render.implementation, config.render.capacity = "xla", 2
    monkeypatch.setattr(parallel, "parallelize", stub.parallelize)
    return train_static(config, dataset, state)


def test_buffers_that_overflow_grow_and_are_named(scene, monkeypatch, caplog):
    stub = Stub(needed=4)
    run_stub(scene, stub, monkeypatch)
    assert stub.rooms == [2, 3, 4]  # half as much again, looked at after the second and the fourth step
    assert "step 2: 4 Gaussian-tile pairs found no room" in caplog.text
    assert "step 4: 2 Gaussian-tile pairs" in caplog.text


def test_a_loss_that_is_not_finite_is_raised(scene, monkeypatch):
    with pytest.raises(LossNotFinite, match="step 1: the loss is nan"):
        run_stub(scene, Stub(loss=np.nan, needed=0), monkeypatch)


def test_rates_end_where_the_models_did():
    config = get_config("demo")
    rates = baseline._rates(config)
    steps = config.evaluation.baseline_steps
    assert rates["means"] == dict(fn=baseline.LOG_LINEAR, initial=1e-3, final=pytest.approx(1e-4), num_steps=steps)
    assert rates["logit_opacities"]["final"] == rates["logit_opacities"]["initial"] == 5e-2  # constant in the model
    assert set(rates) == set(GAUSSIANS)
