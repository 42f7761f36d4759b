"""The joint model of AnimaX: what it starts as, what its halves and views share, and what each stage trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.wan_files import TINY

from dimo_jax.networks.wan import transformer
from dimo_jax.networks.wan.layers import rotary_table
from dimo_jax.systems.animax import model, multi_view, rays, sampling, sequence, stages
from dimo_jax.systems.animax.loss import JointBatch, flow_loss
from dimo_jax.training.optimizer import freeze

FRAMES, VIEWS, SIDE = 6, 2, 4  # 2 f + 4 with f = 1

pytestmark = pytest.mark.usefixtures("quick_compile")
predict = functools.partial(model.predict_joint, config=TINY)


@pytest.fixture(scope="module")
def backbone():
    return transformer.init_params(jax.random.key(0), TINY)


@pytest.fixture(scope="module")
def at_start(backbone):
    return model.init_params(jax.random.key(1), backbone, TINY, rank=2, alpha=2.0, multi_view_layers=True)


@pytest.fixture(scope="module")
def trained(at_start):
    """Every array that starts at zero is something else."""

    def move(path, leaf):
        zero = not np.any(leaf)
        return leaf + 0.3 * jax.random.normal(jax.random.key(len(str(path))), leaf.shape) if zero else leaf

    return jax.tree_util.tree_map_with_path(move, at_start)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1, VIEWS, FRAMES, SIDE, SIDE, 4)).astype(np.float32)
    text = rng.normal(size=(1, 3, 10)).astype(np.float32)
    ray_maps = rng.normal(size=(1, VIEWS, SIDE, SIDE, 6)).astype(np.float32)
    return latents, np.array([700.0]), text, ray_maps


def in_half_precision(backbone):
    """As `build_params` has it in bfloat16."""

    def shorten(path, leaf):
        kept = ("time_inner", "time_outer", "modulation", "norm", "lora")
        name = jax.tree_util.keystr(path)
        stays = any(part in name for part in kept) and "time_modulation" not in name
        return leaf if stays else leaf.astype(jnp.bfloat16)

    return jax.tree_util.tree_map_with_path(shorten, backbone)


def run_backbone(backbone, latents, times, text, frames):
    """The backbone alone, on each view as if there were no other: latents [N,F,h,w,C]."""
    words = np.repeat(text, len(latents), axis=0)
    times = np.repeat(times, len(latents), axis=0)
    return transformer.predict_velocity(backbone, latents, times, words, config=TINY, frames=frames)


def test_at_step_0_every_view_is_what_the_backbone_makes_of_its_sequence(backbone, at_start, inputs):
    """With the clean frames at time 0 and the positions of Eq. 4: no addition shows, and no view sees another."""
    latents, _, text, _ = inputs
    frames = sequence.shared_positions(FRAMES)
    expected = run_backbone(backbone, latents[0], np.array([[0, 700, 700, 0, 700, 700]]), text, frames)
    np.testing.assert_allclose(predict(at_start, *inputs)[0], expected, atol=1e-5)


def test_at_step_0_the_rgb_half_is_the_backbone_on_the_rgb_half_alone(backbone, at_start, inputs):
    """Where both halves hold the same: attention over two copies of every token is attention over one."""
    latents, times, text, ray_maps = inputs
    half = latents[:, :, : FRAMES // 2]
    twice = np.concatenate([half, half], axis=2)
    expected = run_backbone(backbone, half[0], np.array([[0, 700, 700]]), text, None)
    found = predict(at_start, twice, times, text, ray_maps)[0]
    np.testing.assert_allclose(found[:, : FRAMES // 2], expected, atol=1e-5)
    np.testing.assert_allclose(found[:, FRAMES // 2 :], expected, atol=1e-5)


def test_half_precision_comes_near_and_other_shapes_are_refused(backbone, trained, inputs):
    latents, times, text, ray_maps = inputs
    short = trained.replace(backbone=in_half_precision(trained.backbone))
    assert short.backbone.blocks.inner.kernel.dtype == jnp.bfloat16
    assert short.backbone.blocks.modulation.dtype == jnp.float32
    assert model.add_views(short).views.query.kernel.dtype == jnp.float32  # what is trained
    found, expected = (predict(params, *inputs) for params in (short, trained))
    assert found.dtype == jnp.float32
    assert jnp.sqrt(jnp.mean((found - expected) ** 2) / jnp.mean(expected**2)) < 0.05
    with pytest.raises(ValueError, match=r"rays \(1, 1, 4, 4, 6\), expected \(1, 2, 4, 4, 6\)"):
        predict(trained, latents, times, text, ray_maps[:, :1])
    with pytest.raises(ValueError, match="2 texts, 1 times, 6 frames, expected 1, 1 and"):
        predict(trained, latents, times, np.concatenate([text, text]), ray_maps)


def test_halves_share_positions_and_differ_by_their_modality_alone(at_start, trained, inputs):
    latents, times, text, ray_maps = inputs
    swap = [3, 4, 5, 0, 1, 2]
    for params, same in ((at_start, True), (trained, False)):
        found = predict(params, latents, times, text, ray_maps)
        swapped = predict(params, latents[:, :, swap], times, text, ray_maps)[:, :, swap]
        assert np.allclose(found, swapped, atol=1e-5) == same


def test_views_are_told_apart_by_their_rays_and_see_each_other(trained, inputs):
    latents, times, text, ray_maps = inputs
    found = predict(trained, latents, times, text, ray_maps)
    turned = predict(trained, latents[:, ::-1], times, text, ray_maps[:, ::-1])
    np.testing.assert_allclose(turned[:, ::-1], found, atol=1e-4)
    assert not np.allclose(predict(trained, latents, times, text, ray_maps[:, ::-1]), found, atol=1e-3)
    other = latents.copy()
    other[:, 1] += 1
    assert not np.allclose(predict(trained, other, times, text, ray_maps)[:, 0], found[:, 0], atol=1e-3)


def test_multi_view_attention_looks_at_all_views_of_its_own_frame_alone(trained):
    layer = jax.tree.map(lambda x: x[0], trained.views)
    x = np.random.default_rng(1).normal(size=(2 * VIEWS, 3, 4, TINY.dim)).astype(np.float32)
    attend = functools.partial(
        multi_view.attend_across_views, rotary=rotary_table((0,), 2, 2, TINY.head_dim), num_views=VIEWS, config=TINY,
        attend="xla",
    )  # fmt: skip
    changed = x.copy()
    changed[0, 1] = np.random.default_rng(2).normal(size=(4, TINY.dim))  # of the first sample's first view
    moved = np.abs(np.asarray(attend(layer, changed)) - np.asarray(attend(layer, x))).max(axis=(2, 3)) > 1e-4
    expected = np.zeros((2 * VIEWS, 3), bool)
    expected[:VIEWS, 1] = True
    np.testing.assert_array_equal(moved, expected)


def test_views_are_gathered_frame_by_frame():
    x = np.random.default_rng(0).normal(size=(2 * VIEWS, 3, 4, 5))
    rows = multi_view.gather_views(x, VIEWS)
    assert rows.shape == (2 * 3, VIEWS * 4, 5)
    np.testing.assert_allclose(rows[1 * 3 + 2], np.concatenate([x[VIEWS, 2], x[VIEWS + 1, 2]]), rtol=1e-6)
    np.testing.assert_allclose(multi_view.scatter_views(rows, VIEWS, 3), x, rtol=1e-6)


def test_ray_channels_are_those_of_a_wider_patch_embedding(trained, inputs):
    """Rays concatenated to the latents' channels, as the paper has it, under one kernel of C + 6 channels."""
    latents, _, _, ray_maps = inputs
    wide = np.concatenate([latents[0], np.repeat(ray_maps[0][:, None], FRAMES, axis=1)], axis=-1)
    places = np.arange(4 * (4 + rays.NUM_CHANNELS)).reshape(4, -1)
    kernel = np.zeros((places.size, TINY.dim), np.float32)
    kernel[places[:, :4].ravel()] = trained.backbone.patch.kernel
    kernel[places[:, 4:].ravel()] = trained.camera.kernel
    expected = transformer.patchify(jnp.asarray(wide), TINY.patch) @ kernel
    found = transformer.patchify(jnp.asarray(latents[0]), TINY.patch) @ trained.backbone.patch.kernel
    found = found + trained.camera(transformer.patchify(jnp.asarray(ray_maps[0][:, None]), TINY.patch))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def make_batch(inputs):
    latents, _, text, ray_maps = inputs
    condition, video = sequence.split(jnp.asarray(latents))
    return JointBatch(condition=condition, video=video, text=jnp.asarray(text), ray_maps=jnp.asarray(ray_maps))


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_stage_trains_what_is_its_own_and_the_loss_falls(stage, at_start, inputs):
    params = at_start if stage == stages.MULTI_VIEW else at_start.replace(views=None)
    batch, key = make_batch(inputs), jax.random.key(5)
    optimizer = freeze(optax.adam(3e-2), stages.trained(params, stage))

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(flow_loss)(params, batch, key, config=TINY, drop=0.0, remat=True)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, moved, losses = optimizer.init(params), params, []
    for _ in range(8):
        moved, state, loss = step(moved, state)
        losses.append(float(loss))
    assert losses[-1] < 0.95 * losses[0]
    chosen = jax.tree_util.tree_leaves_with_path(stages.trained(params, stage))
    assert 0 < sum(flag for _, flag in chosen) < len(chosen)
    for (path, flag), before, after in zip(chosen, jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        assert np.array_equal(before, after) != flag, jax.tree_util.keystr(path)


def test_what_no_stage_trains_is_refused(at_start):
    with pytest.raises(ValueError, match="stage is 'all', expected one of joint, multi_view"):
        stages.trained(at_start, "all")
    with pytest.raises(ValueError, match="without multi-view layers"):
        stages.trained(at_start.replace(views=None), stages.MULTI_VIEW)
    added = model.add_views(at_start.replace(views=None))
    assert jax.tree.map(jnp.shape, added) == jax.tree.map(jnp.shape, at_start)


def test_guidance_goes_from_no_condition_past_the_condition(trained, inputs):
    latents, _, text, ray_maps = inputs
    condition, video = sequence.split(jnp.asarray(latents))
    ask = functools.partial(
        sampling.guided_velocity, trained, video, jnp.asarray(400.0), text=text, ray_maps=ray_maps, config=TINY,
        attend="xla",
    )  # fmt: skip
    with_it, without = (ask(c, guidance=1.0) for c in (condition, jnp.zeros_like(condition)))
    np.testing.assert_allclose(ask(condition, guidance=3.0), without + 3 * (with_it - without), atol=1e-4)


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
def test_a_draw_is_the_same_for_a_key_and_ends_where_small_steps_do(trained, inputs, sampler):
    latents, _, text, ray_maps = inputs
    condition, _ = sequence.split(jnp.asarray(latents))
    draw = functools.partial(
        sampling.draw, trained, condition=condition, text=text, ray_maps=ray_maps, config=TINY, num_latents=2
    )
    found = draw(jax.random.key(0), num_steps=20, sampler=sampler)
    assert found.shape == (1, VIEWS, 2, 2, SIDE, SIDE, 4)
    np.testing.assert_array_equal(found, draw(jax.random.key(0), num_steps=20, sampler=sampler))
    assert not np.allclose(found, draw(jax.random.key(1), num_steps=20, sampler=sampler), atol=0.1)
    small = draw(jax.random.key(0), num_steps=200, sampler="euler")
    error = float(jnp.sqrt(jnp.mean((found - small) ** 2) / jnp.mean(small**2)))
    assert error < 0.2  # of another key it is above 1
    with pytest.raises(ValueError, match="sampler is 'ddim', expected one of unipc, euler"):
        draw(jax.random.key(0), sampler="ddim")
