"""AnimaX in the engine's loop: it learns, goes on to the bit, and computes the same however its batch is dealt out."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.bert_folder import write_folder
from support.engine import compute_the_same_on_two_devices, go_on_to_the_bit, make, take_steps
from support.tiny_clips import write_tiny_clips
from support.wan_files import TINY, diffusers_config, random_arrays, write_transformer

from dimo_jax.configs.animax import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.clips import ClipShards
from dimo_jax.data.sources import load
from dimo_jax.networks.wan.vae import build_params
from dimo_jax.runs.build import build_system
from dimo_jax.systems.animax.batches import encode_batch
from dimo_jax.systems.animax.loss import LEAST_NOISE, flow_errors
from dimo_jax.systems.animax.parts import wan_codec
from dimo_jax.systems.animax.stages import trained
from dimo_jax.systems.animax.system import Animax
from dimo_jax.third_party.wan.transformer import expected_shapes
from dimo_jax.third_party.wan.vae import VaeConfig
from dimo_jax.third_party.wan.vae import expected_shapes as vae_shapes
from dimo_jax.training.parallel import Layout
from dimo_jax.training.partial import averaged

pytestmark = pytest.mark.usefixtures("quick_compile")


def make_config(folder, **changes):
    """The tiny preset on the clips and by the text encoder in `folder`."""
    config = get_config("tiny")
    config.data.path = str(folder / "clips")
    config.animax.text.bert = str(folder / "bert")
    config.animax.backbone.text_dim = 12
    config.animax.update(changes)
    config.log_every = 2
    config.num_devices = 1
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("animax")
    write_tiny_clips(root / "clips")
    write_folder(root / "bert")
    return root


def test_another_trainer_goes_on_to_the_bit(folder):
    go_on_to_the_bit(make_config(folder))


def test_it_learns_and_at_first_says_the_still(folder):
    config = make_config(folder, num_steps=120, rate=3e-3, drop=0.0, augment=False, average=0.9)
    config.animax.backbone.update(num_heads=2, head_dim=24)
    trainer = make(config)
    state = trainer.init()
    begun = jax.device_get(state.params)
    batch = trainer.next_batch()
    still = np.asarray(batch.clips.stills)[0, 0, 0] / 255.0
    state, metrics = trainer.step(state, batch)
    np.testing.assert_allclose(np.asarray(metrics.preview)[1], still, atol=1 / 255)
    state, _ = take_steps(trainer, state, 119)
    trainer.close()
    state, system = jax.device_get(state), trainer.system
    joint, keys = encode_batch(batch.clips, system.codec, {}), jax.random.split(jax.random.key(7), 2)
    how = dict(config=system.backbone.config, predicts="change", shift=1.0, drop=0.0)
    smoothed = averaged(state, trained(state.params, "whole"))
    before, after, smooth = (
        float(flow_errors(params, joint, keys, **how).halves.mean()) for params in (begun, state.params, smoothed)
    )
    assert max(after, smooth) < 0.5 * before
    away = [np.abs(a - b).max() for a, b in zip(state.average, jax.tree.leaves(state.params), strict=True)]
    assert 0 < max(away) < 0.5


def test_a_sample_with_hardly_any_noise_counts_no_more_than_others(folder):
    """What the still is off by is divided by the squared level, and by .09 at least."""
    trainer = make(make_config(folder))
    params, clips, system = trainer.init().params, trainer.next_batch().clips, trainer.system
    joint = jax.tree.map(lambda x: x[:1], encode_batch(clips, system.codec, {}))
    how = dict(config=system.backbone.config, predicts="change", shift=1.0, drop=0.0)
    measure = jax.jit(lambda key: flow_errors(params, joint, key[None], **how)[:2])
    found = [measure(key) for key in jax.random.split(jax.random.key(0), 24)]
    trainer.close()
    ratios = np.array([halves / data for halves, data in found])
    assert ratios.max() == pytest.approx(1 / LEAST_NOISE**2, rel=1e-3)
    assert 1 < ratios.min() < 2


def test_the_papers_two_stages_around_a_backbone_from_files(folder, tmp_path):
    sizes = dataclasses.replace(TINY, text_dim=12, in_channels=3, out_channels=3, patch=(1, 8, 8))
    write_transformer(tmp_path, config=diffusers_config(sizes), arrays=random_arrays(expected_shapes(sizes)))
    config = make_config(folder, stages=("joint", "multi_view"), num_steps=2, rank=2, predicts="velocity")
    config.animax.backbone = dict(fn="dimo_jax.systems.animax.parts:wan", weights=str(tmp_path))
    trainer = make(config)
    begun = trainer.init()
    assert begun.params.views is None
    start = jax.device_get(begun.params)
    state, _ = take_steps(trainer, begun, 2)
    assert trainer.stage.name == "multi_view"
    middle = jax.device_get(state)
    assert middle.params.backbone.blocks.inner.kernel.dtype == jnp.bfloat16
    assert jax.tree.map(np.shape, middle) == jax.tree.map(lambda x: x.shape, trainer.system.template(2))
    np.testing.assert_array_equal(middle.params.backbone.patch.kernel, start.backbone.patch.kernel)
    assert np.abs(middle.params.backbone.blocks.attention.query.lora.up).max() > 0
    state, _ = take_steps(trainer, state, 2)
    trainer.close()
    end = jax.device_get(state)
    assert np.abs(end.params.views.out.kernel).max() > 0
    assert len(end.average) < len(jax.tree.leaves(end.params))
    np.testing.assert_array_equal(
        end.params.backbone.blocks.attention.query.lora.up, middle.params.backbone.blocks.attention.query.lora.up
    )


def watch(state):
    """What two devices are compared by."""
    return state.params.backbone.patch.kernel


def test_two_devices_compute_what_one_does(folder):
    compute_the_same_on_two_devices("systems.animax.test_animax_system", folder, count=3)


def test_what_does_not_fit_is_said_by_its_key(folder, tmp_path):
    for changes, match in (
        (dict(stages=("multi_view",)), r"config\.animax\.stages: found .*expected \(whole\)"),
        (dict(stages=("joint", "multi_view")), r"config\.animax\.rank: found 0, expected at least 1"),
        (dict(predicts="noise"), r"config\.animax\.predicts: found 'noise'"),
        (dict(drop=1.0), r"config\.animax\.drop: found 1\.0, expected a number below 1"),
        (dict(rate=-1.0), r"config\.animax\.rate: found -1\.0, expected a number above 0"),
    ):
        with pytest.raises(UserError, match=match):
            Animax.check(make_config(folder, **changes))
    config = make_config(folder)
    config.batch.views = 2
    with pytest.raises(UserError, match=r"config\.batch\.views: found 2, expected 1"):
        Animax.check(config)
    for part, changes, match in (
        ("backbone", dict(text_dim=384), r"features of 12 numbers, expected 384 \(text_dim\)"),
        ("backbone", dict(channels=4), r"has 4 channels, expected 3 \(as animax\.codec\)"),
        ("backbone", dict(patch=64), r"pictures of 32 pixels, expected a multiple of 64"),
    ):
        config = make_config(folder)
        config.animax[part].update(changes)
        with pytest.raises(UserError, match=match):
            build_system(config, load(config.data))
    config = make_config(folder)
    config.data.path = str(tmp_path)
    with pytest.raises(UserError, match=r"found no index\.json"):
        load(config.data)
    config.data.path = ""
    with pytest.raises(UserError, match=r"config\.data\.path: not given"):
        load(config.data)


def test_full_size_asks_for_its_files(folder):
    config = get_config("wan")
    config.data.path = str(folder / "clips")
    with pytest.raises(UserError, match=r"config\.animax\.codec\.weights: not given, expected Wan 2\.1's autoencoder"):
        build_system(config, load(config.data))
    config.animax.codec.weights = str(folder / "absent")
    with pytest.raises(UserError, match=r"config\.animax\.codec\.weights: no such file or folder \(.*absent\)"):
        build_system(config, load(config.data))


def test_a_sample_has_its_noise_wherever_it_is_computed(folder):
    config = make_config(folder)
    system = build_system(config, load(config.data))
    one = system.source(Layout(accumulate=1)).sample(5)
    two = system.source(Layout(accumulate=2)).sample(5)
    assert one.seeds.shape == (1, 2)
    assert two.seeds.shape == (2, 1)
    order = np.argsort(two.seeds.ravel())
    np.testing.assert_array_equal(two.clips.videos[:, 0][order], one.clips.videos[0])
    assert isinstance(system.shards, ClipShards)
    assert json.dumps(system.facts())


def test_clips_become_latents_of_wans_autoencoder(folder, tmp_path):
    """By shapes alone; its numbers are checked in tests/networks."""
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    codec = wan_codec(weights=str(tmp_path))
    shards = ClipShards(folder / "clips", embed=lambda sentences: np.zeros((len(sentences), 7, 5)))
    clips = shards.collect(shards.select("train"))
    clips = clips.replace(videos=np.repeat(clips.videos, 3, axis=3)[:, :, :, :5])
    arrays = jax.eval_shape(
        lambda: build_params({name: jnp.zeros(shape) for name, shape in vae_shapes(VaeConfig()).items()}, VaeConfig())
    )
    found = jax.eval_shape(lambda arrays: encode_batch(clips, codec, arrays), arrays)
    assert found.video.shape == (2, 2, 2, 2, 4, 4, 16)
    assert found.condition.shape == (2, 2, 2, 4, 4, 16)
    assert found.ray_maps.shape == (2, 2, 4, 4, 6)
    assert found.text.shape == (2, 7, 5)
