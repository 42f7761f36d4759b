"""The video model around ImageDream's UNet, at tiny size: step 0, its module, training, drawing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.imagedream_files import TINY as WITH_LEVELS
from support.imagedream_files import TINY_VAE, random_arrays

from dimo_jax.core.errors import UserError
from dimo_jax.data.articulated.categories import make_shape
from dimo_jax.data.articulated.videos import film
from dimo_jax.networks.imagedream.unet import build_params, list_transformers, predict_noise
from dimo_jax.networks.imagedream.vae import build_params as build_vae
from dimo_jax.networks.imagedream.vae import encode as encode_pictures
from dimo_jax.systems.atop.generator.model import Condition, init_params, predict_video
from dimo_jax.systems.atop.generator.motion import pass_motion, shrink_masks
from dimo_jax.systems.atop.generator.reference import make_batch, over_white
from dimo_jax.systems.atop.generator.sampling import draw, guided_prediction
from dimo_jax.systems.atop.generator.training import MotionBatch, motion_loss, trained
from dimo_jax.third_party.imagedream.unet import UNetConfig, expected_shapes
from dimo_jax.third_party.imagedream.vae import expected_shapes as vae_shapes
from dimo_jax.training.optimizer import freeze

TINY = dataclasses.replace(WITH_LEVELS, multiples=(1,), looks=(True,))
VIEWS, FRAMES, SIDE = 2, 3, 4


@pytest.fixture(scope="module")
def model():
    return init_params(jax.random.key(0), build_params(random_arrays(expected_shapes(TINY)), TINY), TINY)


@pytest.fixture(scope="module")
def given():
    """Noisy latents, a time and a condition of one video."""
    keys = jax.random.split(jax.random.key(1), 6)
    latents = jax.random.normal(keys[0], (1, VIEWS, FRAMES, SIDE, SIDE, 4))
    masks = jnp.zeros((1, VIEWS, 8, 8)).at[:, :, :4].set(1.0)
    condition = Condition(
        text=jax.random.normal(keys[1], (1, 5, TINY.text_dim)),
        image=jax.random.normal(keys[2], (1, VIEWS, 6, TINY.image_dim)),
        masks=masks,
        cameras=jax.random.normal(keys[3], (1, VIEWS, TINY.camera_dim)),
    )
    return latents, jnp.array([300]), condition


def stir(model, seed=5):
    """The model with all of its module's arrays away from zero."""
    leaves, tree = jax.tree.flatten(model.motion)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
    return model.replace(motion=jax.tree.unflatten(tree, moved))


def test_at_step_0_each_frame_is_what_the_image_model_makes_of_it(model, given, quick_compile):
    latents, times, condition = given
    found = predict_video(model, latents, times, condition, config=TINY, image_weight=0.7)
    assert found.shape == latents.shape
    for frame in range(FRAMES):
        expected = predict_noise(
            model.backbone,
            latents[:, :, frame],
            times,
            condition.text,
            condition.image,
            condition.cameras,
            config=TINY,
            image_weight=0.7,
        )
        np.testing.assert_allclose(found[:, :, frame], expected, atol=1e-5)


def test_a_picture_is_a_view_more_as_imagedream_has_it(model, given, quick_compile):
    latents, times, condition = given
    picture = jax.random.normal(jax.random.key(7), (1, SIDE, SIDE, 4))
    found = predict_video(model, latents, times, condition.replace(picture=picture), config=TINY)
    assert found.shape == latents.shape
    expected = predict_noise(
        model.backbone,
        jnp.concatenate([latents[:, :, 1], picture[:, None]], axis=1),
        times,
        condition.text,
        jnp.concatenate([condition.image, condition.image[:, :1]], axis=1),
        jnp.concatenate([condition.cameras, jnp.zeros((1, 1, TINY.camera_dim))], axis=1),
        config=TINY,
    )
    np.testing.assert_allclose(found[:, :, 1], expected[:, :VIEWS], atol=1e-5)


def test_the_module_is_equation_4_on_scaled_and_shifted_tokens(model):
    """Against a plain loop in float64."""
    module = jax.tree.map(lambda x: np.asarray(x, np.float64), stir(model).motion[0])
    dim, head = module.query.kernel.shape[0], TINY.head_dim
    rng = np.random.default_rng(0)
    x, masks = rng.normal(size=(1, 2, FRAMES, 4, dim)), rng.uniform(size=(1, 2, 4, 4))
    found = pass_motion(
        jax.tree.map(jnp.float32, module), jnp.float32(x), jnp.float32(masks), (2, 2), head_dim=head, attend="xla"
    )

    def dense(layer, value):
        return value @ layer.kernel + (0 if layer.bias is None else layer.bias)

    def silu(value):
        return value / (1 + np.exp(-value))

    for view in range(2):
        covered = masks[0, view].reshape(2, 2, 2, 2).mean(axis=(1, 3)).reshape(4, 1)
        gamma, beta = (dense(outer, silu(dense(inner, covered))) for inner, outer in (module.scale, module.shift))
        z = []
        for frame in range(FRAMES):
            tokens = x[0, view, frame]
            normal = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
            rates = np.exp(-np.log(10000) * np.arange(16) / 16) * frame
            number = dense(module.frame, np.concatenate([np.cos(rates), np.sin(rates)]))
            z.append((1 + gamma) * (normal * module.norm.scale + module.norm.bias) + beta + number)
        key, value = dense(module.key, z[0]), dense(module.value, z[0])
        for frame in range(FRAMES):
            query, heads = dense(module.query, z[frame]), []
            for start in range(0, dim, head):
                part = slice(start, start + head)
                scores = query[:, part] @ key[:, part].T / np.sqrt(head)
                share = np.exp(scores - scores.max(-1, keepdims=True))
                heads.append(share / share.sum(-1, keepdims=True) @ value[:, part])
            expected = x[0, view, frame] + dense(module.out, np.concatenate(heads, axis=-1))
            np.testing.assert_allclose(found[0, view, frame], expected, atol=2e-4)


def test_a_mask_changes_what_its_views_show_and_frames_are_told_apart(model, given, quick_compile):
    latents, times, condition = given
    stirred = stir(model)
    still = jnp.broadcast_to(latents[:, :, :1], latents.shape)
    found = predict_video(stirred, still, times, condition, config=TINY)
    other = predict_video(stirred, still, times, condition.replace(masks=condition.masks[..., ::-1, :]), config=TINY)
    assert float(jnp.abs(found - other).max()) > 1e-3
    assert float(jnp.abs(found[:, :, 1] - found[:, :, 2]).max()) > 1e-3
    np.testing.assert_array_equal(shrink_masks(condition.masks, 2, 2)[0, 0, :, 0], [1, 1, 0, 0])
    with pytest.raises(ValueError, match="expected multiples of 3 x 3"):
        shrink_masks(condition.masks, 3, 3)
    with pytest.raises(ValueError, match="masks of"):
        predict_video(model, still, times, condition.replace(masks=condition.masks[:, :1]), config=TINY)


def test_training_moves_the_motion_module_alone_and_learns(model, given, quick_compile):
    """One picture becomes another in the later frames; half precision of the frozen arrays is kept."""
    latents, _, condition = given
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.backbone)
    model = model.replace(backbone=frozen)
    batch = MotionBatch(latents, condition)
    optimizer = freeze(optax.adam(5e-3), trained(model))
    state = optimizer.init(model)
    chosen = jax.tree.leaves(trained(model))
    assert sum(chosen) == len(jax.tree.leaves(model.motion))

    @jax.jit
    def step(model, state, key):
        loss, slopes = jax.value_and_grad(lambda each: motion_loss(each, batch, key, config=TINY, remat=True))(model)
        changes, state = optimizer.update(slopes, state, model)
        return optax.apply_updates(model, changes), state, loss

    key, losses, now = jax.random.key(3), [], model
    for _ in range(100):
        now, state, loss = step(now, state, key)
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, now.backbone, model.backbone)
    changed = [not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(now.motion), jax.tree.leaves(model.motion))]
    assert all(changed)


def test_guidance_is_towards_the_condition_and_drawing_has_its_shape(model, given, quick_compile):
    latents, _, condition = given
    empty = jax.random.normal(jax.random.key(9), (5, TINY.text_dim))
    stirred, options = stir(model), dict(config=TINY)
    found = guided_prediction(stirred, latents, 300, condition, empty, guidance=5.0, **options)
    sure = guided_prediction(stirred, latents, 300, condition, empty, guidance=1, **options)
    without = condition.replace(text=empty[None], image=jnp.zeros_like(condition.image))
    unsure = guided_prediction(stirred, latents, 300, without, empty, guidance=1, **options)
    np.testing.assert_allclose(found, unsure + 5 * (sure - unsure), atol=1e-3)
    drawn = draw(model, jax.random.key(0), condition, empty, shape=(FRAMES, SIDE, SIDE), num_steps=2, **options)
    assert drawn.shape == latents.shape
    assert bool(jnp.isfinite(drawn).all())


def test_the_paper_s_size_takes_four_views_of_ten_frames():
    config = UNetConfig()
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in expected_shapes(config).items()}
    build = lambda arrays: init_params(jax.random.key(0), build_params(arrays, config, jnp.bfloat16), config)  # noqa: E731
    params = jax.eval_shape(build, arrays)
    assert len(params.motion) == len(list_transformers(config)) == 16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params.motion))
    condition = Condition(
        jnp.zeros((1, 77, 1024)), jnp.zeros((1, 4, 257, 1280)), jnp.zeros((1, 4, 256, 256)), jnp.zeros((1, 4, 16))
    )
    run = lambda *each: predict_video(*each, config=config)  # noqa: E731
    latents = jnp.zeros((1, 4, 10, 32, 32, 4))
    assert jax.eval_shape(run, params, latents, jnp.zeros(1), condition).shape == latents.shape


def test_a_film_of_a_made_object_is_what_the_model_learns_from(model, quick_compile):
    """Through tiny encoders: latents, tokens, masks and cameras of one object, and one loss."""
    vae = build_vae(random_arrays(vae_shapes(TINY_VAE)), TINY_VAE)
    found = film(make_shape("drawer", 0), num_frames=2, side=16)
    text = jnp.ones((5, TINY.text_dim))
    encode = lambda frames: encode_pictures(vae, over_white(frames) / 127.5 - 1, config=TINY_VAE)  # noqa: E731
    look = lambda pictures: jnp.ones((len(pictures), 6, TINY.image_dim)) * pictures.mean()  # noqa: E731
    batch = make_batch(found.frames, found.masks[:, 0], found.cameras, text, encode=encode, look=look)
    assert batch.video.shape == (1, 4, 2, 8, 8, 4)
    white = found.frames.copy()
    white[found.frames[..., 3] == 0] = 255
    np.testing.assert_array_equal(over_white(found.frames)[0, 0, 0, 0], white[0, 0, 0, 0, :3])
    expected = encode(found.frames[2, 1][None])
    np.testing.assert_allclose(batch.video[0, 2, 1], expected[0], atol=1e-4)
    np.testing.assert_array_equal(batch.condition.masks[0] > 0, found.masks[:, 0] > 0)
    assert batch.condition.cameras.shape == (1, 4, 16)
    assert batch.condition.image.shape == (1, 4, 6, TINY.image_dim)
    assert np.isfinite(motion_loss(model, batch, jax.random.key(0), config=TINY))
    with pytest.raises(UserError, match="masks: no view sees the part"):
        make_batch(found.frames, 0 * found.masks[:, 0], found.cameras, text, encode=encode, look=look)
