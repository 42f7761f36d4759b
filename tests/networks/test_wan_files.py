"""Checkpoints of Wan in every layout that is read, and those that are not: one line each."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.wan_files import (
    TINY,
    TINY_VAE,
    authors_name,
    authors_vae_name,
    diffusers_config,
    random_arrays,
    write_text_encoder,
    write_tokenizer,
    write_transformer,
)

from dimo_jax.core.errors import UserError
from dimo_jax.networks.wan.transformer import build_params, init_params, load_transformer
from dimo_jax.networks.wan.umt5 import encode as encode_text
from dimo_jax.networks.wan.umt5 import load_text_encoder
from dimo_jax.networks.wan.vae import load_vae
from dimo_jax.third_party.wan.transformer import WanConfig, expected_shapes, read_config, read_transformer
from dimo_jax.third_party.wan.umt5 import clean_prompt, read_tokenizer
from dimo_jax.third_party.wan.vae import VaeConfig, read_vae
from dimo_jax.third_party.wan.vae import expected_shapes as vae_shapes
from dimo_jax.third_party.wan.vae import read_config as read_vae_config


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("shards", [0, 3])
def test_diffusers_layout_in_one_file_and_in_shards(tmp_path, shards):
    arrays = write_transformer(tmp_path, shards=shards)
    assert read_config(tmp_path / "config.json") == TINY
    assert_same(read_transformer(tmp_path, TINY), arrays)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_authors_layout(tmp_path, prefix):
    arrays = random_arrays(expected_shapes(TINY))
    theirs = {prefix + authors_name(name): value for name, value in arrays.items()}
    assert f"{prefix}blocks.1.self_attn.norm_q.weight" in theirs
    assert f"{prefix}blocks.0.norm3.bias" in theirs
    assert f"{prefix}head.modulation" in theirs
    config = dict(num_heads=2, dim=24, num_layers=2, ffn_dim=20, freq_dim=16, text_dim=10, in_dim=4, out_dim=4)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel", "model_type": "t2v", **config}))
    save_file(theirs, tmp_path / "diffusion_pytorch_model.safetensors")
    assert read_config(tmp_path / "config.json") == TINY
    assert_same(read_transformer(tmp_path / "diffusion_pytorch_model.safetensors", TINY), arrays)


def test_the_published_config_of_1_3b_is_the_default(tmp_path):
    authors = {"_class_name": "WanModel", "dim": 1536, "eps": 1e-06, "ffn_dim": 8960, "freq_dim": 256, "in_dim": 16,
               "model_type": "t2v", "num_heads": 12, "num_layers": 30, "out_dim": 16, "text_len": 512}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(authors))
    assert read_config(tmp_path / "config.json") == WanConfig()
    (tmp_path / "config.json").write_text(json.dumps(diffusers_config(WanConfig())))
    assert read_config(tmp_path / "config.json") == WanConfig()


def test_half_precision_is_read_and_what_needs_it_stays_float32(tmp_path):
    arrays = random_arrays(expected_shapes(TINY))
    write_transformer(tmp_path, arrays={name: value.astype(ml_dtypes.bfloat16) for name, value in arrays.items()})
    params, config = load_transformer(tmp_path)
    assert config == TINY
    assert params.blocks.attention.query.kernel.dtype == jnp.bfloat16
    kept = (params.time_outer.kernel, params.head_modulation, params.blocks.modulation, params.blocks.cross_norm.scale)
    assert {each.dtype for each in kept} == {jnp.dtype("float32")}
    exact = build_params(arrays, TINY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), params, exact)


KEY = "blocks.1.attn2.to_k.weight"
OTHER_LAYOUT = {f"transformer.layers.{index}.weight": np.zeros((2, 2), np.float32) for index in range(3)}
BAD = {
    "another layout": (
        dict(arrays=OTHER_LAYOUT),
        r"69 of 69 arrays are missing, such as patch_embedding.weight \(others are there, such as transformer.layers.0",
    ),
    "image to video": (
        dict(arrays=random_arrays(expected_shapes(TINY)) | {"img_emb.proj.0.weight": np.zeros(3, np.float32)}),
        "array img_emb.proj.0.weight is not known, expected the transformer of Wan 2.1 text-to-video",
    ),
    "fp8": (
        dict(arrays=random_arrays(expected_shapes(TINY)) | {KEY: np.zeros((24, 24), ml_dtypes.float8_e4m3fn)}),
        "to_k.weight is F8_E4M3, expected one of F64, F32, F16, BF16",
    ),
    "another size": (
        dict(arrays=random_arrays(expected_shapes(TINY)) | {KEY: np.zeros((24, 20), np.float32)}),
        r"to_k.weight has shape \[24, 20\], expected \[24, 24\]",
    ),
    "another model": (dict(config={"_class_name": "FluxTransformer"}), "_class_name is 'FluxTransformer', expected"),
    "its image model": (dict(config=diffusers_config(image_dim=1280)), "image_dim 1280, expected text to video alone"),
    "no size": (dict(config={"_class_name": "WanModel", "num_heads": 2, "dim": 24}), "num_layers is None, expected"),
    "heads": (dict(config={"_class_name": "WanModel", "num_heads": 5, "dim": 24}), "expected a multiple of num_heads"),
    "patch": (dict(config=diffusers_config(patch_size=[2, 2, 2])), "expected 1 latent frame a patch"),
    "eps": (dict(config=diffusers_config(eps="no")), "eps is 'no', expected a number from 0 to 1"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=list(BAD))
def test_what_does_not_fit_is_one_line(tmp_path, arguments, says):
    write_transformer(tmp_path, **arguments)
    with pytest.raises(UserError, match=says) as caught:
        load_transformer(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_files_and_shards_are_named(tmp_path):
    write_transformer(tmp_path, shards=2)
    second = tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors"
    whole = second.read_bytes()
    for data in (whole[:-100], whole[:20], b"", b"\x80\x04not safetensors"):
        second.write_bytes(data)
        with pytest.raises(UserError, match=r"00002-of-00002.safetensors: cannot be read as safetensors"):
            load_transformer(tmp_path)
    save_file({"x": np.zeros(2)}, second)
    with pytest.raises(UserError, match=r"00002.safetensors: has no array .*, which .*index.json places there"):
        load_transformer(tmp_path)
    second.unlink()
    with pytest.raises(UserError, match=r"00002.safetensors: not found, expected the shard that .*index.json names"):
        load_transformer(tmp_path)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    for bad, says in (
        ({"weight_map": {"a": "../outside.safetensors"}}, "names the shard '../outside.safetensors'"),
        ({"weight_map": {"a": 3}}, "expected names of arrays"),
        ({}, "weight_map is NoneType"),
    ):
        index.write_text(json.dumps(bad))
        with pytest.raises(UserError, match=says):
            load_transformer(tmp_path)
    index.unlink()
    write_transformer(tmp_path)
    with pytest.raises(UserError, match="found 2 safetensors files and 0 indices"):
        load_transformer(tmp_path)
    with pytest.raises(UserError, match=r"none.safetensors: not found"):
        load_transformer(tmp_path / "none.safetensors", tmp_path / "config.json")


def test_a_network_from_nothing_has_the_same_arrays():
    made = init_params(jax.random.key(0), TINY)
    read = build_params(random_arrays(expected_shapes(TINY)), TINY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(lambda x: (x.shape, x.dtype), read)
    deviation = float(jnp.std(made.blocks.inner.kernel) * np.sqrt(TINY.dim))
    assert 0.9 < deviation < 1.1
    np.testing.assert_array_equal(made.blocks.attention.key_norm, 1)


VAE = {"_class_name": "AutoencoderKLWan", "base_dim": 4, "z_dim": 3, "latents_mean": [0.1, -0.2, 0.3]}
VAE |= {"latents_std": [0.9, 1.1, 1.3], "num_res_blocks": 1, "dim_mult": [1, 2, 2, 2]}
VAE |= {"temperal_downsample": [False, True, True]}


def write_vae(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**VAE, **changes}))
    arrays = random_arrays(vae_shapes(TINY_VAE))
    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    return arrays


@pytest.mark.parametrize("rename", [lambda name, config: name, authors_vae_name], ids=["diffusers", "authors"])
def test_an_autoencoder_is_read_by_either_names(tmp_path, rename):
    arrays = write_vae(tmp_path)
    save_file({rename(name, TINY_VAE): value for name, value in arrays.items()}, tmp_path / "Wan2.1_VAE.safetensors")
    assert_same(read_vae(tmp_path / "Wan2.1_VAE.safetensors", TINY_VAE), arrays)
    params, config = load_vae(tmp_path / "Wan2.1_VAE.safetensors")
    assert config == TINY_VAE
    kernel = arrays["decoder.up_blocks.1.upsamplers.0.time_conv.weight"]
    np.testing.assert_array_equal(params.decoder.levels[1].resample.time.kernel, kernel.transpose(2, 3, 4, 1, 0))


def test_the_published_config_of_the_autoencoder_is_the_default(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    config = read_vae_config(tmp_path / "config.json")
    assert config == VaeConfig()
    assert (config.time_factor, config.space_factor, config.dims) == (4, 8, (96, 96, 192, 384, 384))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL', expected 'AutoencoderKLWan'"),
        ({"is_residual": True}, "is_residual is True, expected False, as in Wan 2.1"),
        ({"patch_size": 2}, "patch_size is 2, expected None, as in Wan 2.1"),
        ({"latents_std": [1.0, 0.0, 1.0]}, "latents_std is .*, expected 3 numbers"),
        ({"latents_mean": [0.0]}, "latents_mean is .*, expected 3 numbers"),
        ({"dim_mult": [1, 0]}, "dim_mult is .*, expected positive integers"),
        ({"temperal_downsample": [1, 2, 3]}, "temperal_downsample is .*, expected 3 of true or false"),
        ({"base_dim": 6}, r"has shape \[.*\], expected \["),
        ({"num_res_blocks": 2}, "arrays are missing"),
    ],
)
def test_an_autoencoder_that_does_not_fit_is_one_line(tmp_path, changes, says):
    write_vae(tmp_path, **changes)
    with pytest.raises(UserError, match=says) as caught:
        load_vae(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_text_encoder(folder)
    return folder


def test_prompts_are_cleaned_and_end(text_folder):
    assert clean_prompt("  It &amp;amp; walks\n\n on ") == "It & walks on"
    tokenize, count = read_tokenizer(text_folder / "tokenizer")
    assert count == 35
    assert tokenize("it walks.") == [32, 33, 30, 1]
    assert tokenize("") == [1]


def test_padding_and_company_change_no_embedding(text_folder, quick_compile):
    encoder = load_text_encoder(text_folder / "text_encoder", text_folder / "tokenizer", dtype=jnp.float32)
    together = encoder.embed(["it walks.", "a", "it walks walks walks walks"], length=8)
    assert together.shape == (3, 8, 8)
    alone = encoder.embed(["it walks."], length=12)[0]
    np.testing.assert_allclose(together[0, :4], alone[:4], atol=1e-5)
    assert (together[0, 4:] == 0).all()
    assert (together[0, :4] != 0).any(axis=-1).all()
    cut = encoder.tokenizer("it walks walks")
    tokens, mask = np.array([[*cut[:3], 1]]), np.ones((1, 4), bool)
    expected = encode_text(encoder.params, tokens, mask, config=encoder.config)
    np.testing.assert_allclose(encoder.embed(["it walks walks walks walks"], length=4), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "t5"}, "model_type is 't5', expected 'umt5'"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu', expected 'gated-gelu'"),
        ({"vocab_size": 30}, "tokenizer: has 35 tokens, expected at most 30"),
        ({"vocab_size": 61}, r"shared.weight has shape \[60, 8\], expected \[61, 8\]"),
        ({"relative_attention_max_distance": 4}, "found 32 buckets to a distance of 4"),
        ({"d_kv": None}, "d_kv is None, expected a positive integer"),
    ],
)
def test_a_text_encoder_that_does_not_fit_is_one_line(tmp_path, changes, says):
    write_text_encoder(tmp_path, **changes)
    with pytest.raises(UserError, match=says) as caught:
        load_text_encoder(tmp_path / "text_encoder", tmp_path / "tokenizer")
    assert "\n" not in str(caught.value)


def test_damaged_tokenizers_are_named(tmp_path):
    with pytest.raises(UserError, match=r"found neither tokenizer.json nor spiece.model"):
        read_tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"spiece.model: (not readable as a tokenizer|package sentencepiece not found)"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer.json: not readable as a tokenizer"):
        read_tokenizer(tmp_path)
    write_tokenizer(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text().replace("</s>", "<end>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"tokenizer.json: has no token '</s>'"):
        read_tokenizer(tmp_path)


def test_pieces_without_tokenizers_are_read_too(tmp_path):
    pieces = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    ids = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    with (tmp_path / "spiece.model").open("wb") as file:
        pieces.SentencePieceTrainer.train(
            sentence_iterator=iter(["it walks and waves", "it jumps", "a hand waves"] * 5), model_writer=file,
            vocab_size=25, hard_vocab_limit=False, minloglevel=2, **ids
        )  # fmt: skip
    tokenize, count = read_tokenizer(tmp_path)
    processor = pieces.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    assert count == processor.get_piece_size()
    assert tokenize("it waves") == [*processor.encode("it waves"), 1]
