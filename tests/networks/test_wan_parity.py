"""The networks of Wan against diffusers and transformers, with tiny random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.wan_files import (
    TEXT,
    TINY,
    TINY_TEXT,
    TINY_VAE,
    authors_name,
    authors_text_name,
    authors_vae_name,
    random_arrays,
)

from dimo_jax.networks.wan import umt5
from dimo_jax.networks.wan import vae as vae_network
from dimo_jax.networks.wan.tiles import decode_tiled, encode_tiled
from dimo_jax.networks.wan.transformer import build_params, predict_velocity
from dimo_jax.third_party.wan import transformer as transformer_files
from dimo_jax.third_party.wan import umt5 as text_files
from dimo_jax.third_party.wan import vae as vae_files
from dimo_jax.third_party.wan.transformer import WanConfig

torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no second opinion")


def to_theirs(config):
    """Arguments of diffusers' WanTransformer3DModel."""
    sizes = dataclasses.asdict(config)
    names = {"num_heads": "num_attention_heads", "head_dim": "attention_head_dim", "patch": "patch_size"}
    return {names.get(name, name): value for name, value in sizes.items()}


def draw(model):
    """Normal weights for every array, as NumPy; norms and tables that start at 1 or 0 would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
    return {name: value.numpy() for name, value in model.eval().state_dict().items()}


@pytest.fixture(scope="module")
def transformer():
    model = diffusers.WanTransformer3DModel(**to_theirs(TINY))
    return model, draw(model)


@pytest.mark.parametrize("per_frame", [False, True])
def test_velocity_matches_diffusers(transformer, per_frame):
    model, arrays = transformer
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2, 3, 4, 6, 4)).astype(np.float32)
    text = rng.normal(size=(2, 5, 10)).astype(np.float32)
    times = np.array([[0, 700, 41], [0, 999, 3]]) if per_frame else np.array([700, 3])
    theirs = torch.from_numpy(np.repeat(times, 6, axis=1) if per_frame else times)  # theirs: a time per token
    with torch.no_grad():
        expected = model(torch.from_numpy(latents).permute(0, 4, 1, 2, 3), theirs, torch.from_numpy(text)).sample
    found = predict_velocity(build_params(arrays, TINY), latents, times, text, config=TINY)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 4, 1).numpy(), atol=1e-4, rtol=1e-4)


def test_every_array_of_the_1_3b_layout_is_known():
    with torch.device("meta"):
        theirs = diffusers.WanTransformer3DModel(**to_theirs(WanConfig())).state_dict()
    shapes = transformer_files.expected_shapes(WanConfig())
    assert {name: tuple(value.shape) for name, value in theirs.items()} == shapes
    assert len(shapes) == 825


def test_the_1_3b_network_takes_480p():
    shapes = transformer_files.expected_shapes(WanConfig())
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    params = jax.eval_shape(lambda arrays: build_params(arrays, WanConfig(), jnp.bfloat16), arrays)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == sum(int(np.prod(shape)) for shape in shapes.values()) == 1_418_996_800
    latents, times, text = jnp.zeros((1, 21, 60, 104, 16)), jnp.zeros(1), jnp.zeros((1, 512, 4096))
    run = lambda *each: predict_velocity(*each, config=WanConfig())  # noqa: E731
    assert jax.eval_shape(run, params, latents, times, text).shape == latents.shape


def make_autoencoder(config):
    sizes = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    halves, factor = sizes.pop("halves_time"), config.space_factor
    model = diffusers.AutoencoderKLWan(temperal_downsample=halves, scale_factor_spatial=factor, **sizes)
    return model, vae_network.build_params(draw(model), config)


def to_video(tensor):
    return tensor.permute(0, 2, 3, 4, 1).numpy()


def normalize(latents):
    return (latents - np.asarray(TINY_VAE.latents_mean)) / np.asarray(TINY_VAE.latents_std)


def test_latents_and_videos_match_diffusers_in_pieces_and_at_once(quick_compile):
    model, params = make_autoencoder(TINY_VAE)
    video = np.random.default_rng(1).uniform(-1, 1, (1, 9, 16, 24, 3)).astype(np.float32)
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(video).permute(0, 4, 1, 2, 3)).latent_dist
        expected = posterior.mode()
        shown = to_video(model.decode(expected).sample)
    found = vae_network.encode(params, video, config=TINY_VAE)
    np.testing.assert_allclose(found, normalize(to_video(expected)), atol=1e-4, rtol=1e-4)
    decoded = vae_network.decode(params, found)
    assert np.mean(np.abs(shown) < 1) > 0.5  # else clipping would hide what differs
    np.testing.assert_allclose(decoded, shown, atol=1e-4)
    np.testing.assert_allclose(vae_network.encode(params, video, config=TINY_VAE, chunked=False), found, atol=1e-5)
    np.testing.assert_allclose(vae_network.decode(params, found, chunked=False), decoded, atol=1e-5)


def test_tiles_match_diffusers(quick_compile):
    small = dataclasses.replace(TINY_VAE, dim_mult=(1, 2), halves_time=(True,))
    model, params = make_autoencoder(small)
    video = np.random.default_rng(2).uniform(-1, 1, (1, 1, 12, 20, 3)).astype(np.float32)
    model.enable_tiling(8, 8, 4, 4)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(video).permute(0, 4, 1, 2, 3)).latent_dist.mode()
        shown = to_video(model.decode(expected).sample)
    tiling = dict(config=small, tile=8, stride=4)
    found = encode_tiled(params, video, **tiling)
    np.testing.assert_allclose(found, normalize(to_video(expected)), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(decode_tiled(params, found, **tiling), shown, atol=1e-4)


def test_authors_autoencoder_in_a_pth_file_of_half_precision(tmp_path):
    arrays = random_arrays(vae_files.expected_shapes(TINY_VAE))
    theirs = {authors_vae_name(name, TINY_VAE): torch.from_numpy(value).bfloat16() for name, value in arrays.items()}
    torch.save(theirs, tmp_path / "Wan2.1_VAE.pth")
    found = vae_files.read_vae(tmp_path / "Wan2.1_VAE.pth", TINY_VAE)
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        assert found[name].dtype == "bfloat16"
        np.testing.assert_array_equal(found[name], value.astype(found[name].dtype), err_msg=name)


def test_every_array_of_the_autoencoder_is_known():
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKLWan().state_dict()
    shapes = vae_files.expected_shapes(vae_files.VaeConfig())
    assert {name: tuple(value.shape) for name, value in theirs.items()} == shapes


def test_sentences_match_transformers_in_either_layout(tmp_path, quick_compile):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: no second opinion")
    model = transformers.UMT5EncoderModel(transformers.UMT5Config(**TEXT))
    state = draw(model)
    arrays = {name: state[name] for name in text_files.expected_shapes(TINY_TEXT)}
    assert set(state) == {*arrays, "encoder.embed_tokens.weight"}
    tokens, lengths = np.random.default_rng(3).integers(0, 60, (2, 70)), np.array([[70], [9]])
    mask = np.arange(70) < lengths
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens), torch.from_numpy(mask).int()).last_hidden_state.numpy()
    theirs = {name: torch.from_numpy(value) for name, value in arrays.items()}
    torch.save({authors_text_name(name): value for name, value in theirs.items()}, tmp_path / "models_t5.pth")
    read = text_files.read_umt5(tmp_path / "models_t5.pth", TINY_TEXT)
    found = umt5.encode(umt5.build_params(read, TINY_TEXT), tokens, mask, config=TINY_TEXT)
    np.testing.assert_allclose(found, np.where(mask[..., None], expected, 0), atol=1e-4, rtol=1e-4)


def test_distances_fall_into_transformers_buckets():
    pytest.importorskip("transformers", reason="transformers is not installed: no second opinion")
    from transformers.models.umt5.modeling_umt5 import UMT5Attention, UMT5Config

    layer = UMT5Attention(UMT5Config(**TEXT), has_relative_attention_bias=True)
    places = torch.arange(512)
    expected = layer._relative_position_bucket(places[None, :] - places[:, None])
    np.testing.assert_array_equal(umt5.bucket_distances(512, TINY_TEXT), expected.numpy())


def test_every_array_of_umt5_xxl_is_known():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: no second opinion")
    sizes = dict(num_layers=24, num_heads=64, d_kv=64, d_model=4096, d_ff=10240, vocab_size=256384)
    with torch.device("meta"):
        theirs = transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes)).state_dict()
    theirs.pop("encoder.embed_tokens.weight")  # the same as shared.weight
    shapes = text_files.expected_shapes(text_files.Umt5Config())
    assert {name: tuple(value.shape) for name, value in theirs.items()} == shapes


def test_prompts_are_cleaned_as_in_diffusers():
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    for text in ("  a &lt;b&gt;  cat\t walks \n on ", "it&amp;quot;s", ""):
        assert text_files.clean_prompt(text) == prompt_clean(text)


def test_authors_names_are_those_that_diffusers_converts():
    from diffusers.loaders import single_file_utils as converters

    shapes = transformer_files.expected_shapes(WanConfig())
    theirs = {authors_name(name): name for name in shapes}
    assert converters.convert_wan_transformer_to_diffusers(dict(theirs)) == {name: name for name in shapes}
    assert all(transformer_files.rename(name) == ours for name, ours in theirs.items())

    config = vae_files.VaeConfig()
    shapes = vae_files.expected_shapes(config)
    theirs = {authors_vae_name(name, config): name for name in shapes}
    assert converters.convert_wan_vae_to_diffusers(dict(theirs)) == {name: name for name in shapes}
    assert all(vae_files.rename(name, config) == ours for name, ours in theirs.items())
