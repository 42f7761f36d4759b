"""Checkpoints of ImageDream in every layout that is read, and those that are not: one line each."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.imagedream_files import (
    FILED,
    TINY,
    TINY_VAE,
    authors_vae_name,
    random_arrays,
    write_unet,
    write_vae,
)

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.networks.imagedream.cameras import camera_rows
from dimo_jax.networks.imagedream.unet import build_params, init_params, load_unet, predict_noise
from dimo_jax.networks.imagedream.vae import load_vae
from dimo_jax.third_party.imagedream import unet as unet_files
from dimo_jax.third_party.imagedream import vae as vae_files


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def write_whole(path, unet, vae):
    """The authors' one file: UNet, autoencoder, an encoder and a schedule of noise."""
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to write a .pt file with")
    whole = {f"model.diffusion_model.{name}": value for name, value in unet.items()}
    whole["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k_ip.weight"] = np.zeros((32, 32))
    for name, value in vae.items():
        square = name.endswith("weight") and ".attentions.0.to_" in name
        whole[f"vae_model.{authors_vae_name(name)}"] = value[:, :, None, None] if square else value
    whole |= {"clip_model.model.logit_scale": np.ones(()), "betas": np.ones(4), "sqrt_alphas_cumprod": np.ones(4)}
    torch.save({name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in whole.items()}, path)


def test_a_unet_in_a_folder_and_in_the_authors_file(tmp_path):
    arrays = write_unet(tmp_path / "unet")
    assert unet_files.read_config(tmp_path / "unet/config.json") == FILED
    assert_same(unet_files.read_unet(tmp_path / "unet", FILED), arrays)
    vae = write_vae(tmp_path / "vae")
    assert vae_files.read_config(tmp_path / "vae/config.json") == TINY_VAE
    assert_same(vae_files.read_vae(tmp_path / "vae", TINY_VAE), vae)
    write_whole(tmp_path / "whole.pt", arrays, vae)
    assert_same(unet_files.read_unet(tmp_path / "whole.pt", FILED), arrays)
    assert_same(vae_files.read_vae(tmp_path / "whole.pt", TINY_VAE), vae)


def test_names_that_diffusers_once_gave_the_autoencoder(tmp_path):
    arrays = write_vae(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = dict(arrays)
    for now, once in old.items():
        named = {name.replace(f".attentions.0.{now}.", f".attentions.0.{once}."): x for name, x in named.items()}
    assert len(set(named) - set(arrays)) == 16
    save_file(named, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(vae_files.read_vae(tmp_path, TINY_VAE), arrays)


def test_loading_gives_networks_in_the_precision_asked_for(tmp_path):
    write_unet(tmp_path / "unet")
    params, config = load_unet(tmp_path / "unet")
    assert config == FILED
    assert params.first.kernel.dtype == jnp.bfloat16
    assert params.time[0].kernel.dtype == params.norm.scale.dtype == jnp.float32
    write_vae(tmp_path / "vae")
    assert load_vae(tmp_path / "vae")[0].encoder.first.kernel.shape == (3, 3, 3, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(_class_name="UNet2DConditionModel"), "_class_name"),
        (dict(transformer_depth=2), "transformer_depth"),
        (dict(channel_mult=[1, 0]), "channel_mult"),
        (dict(num_head_channels=24), "num_head_channels"),
        (dict(out_channels=8), "out_channels"),
        (dict(ip_dim=8), "image_embed.latents has shape"),
        (dict(num_res_blocks=2), "arrays are missing"),
        (dict(camera_dim=None), "camera_embed"),
    ],
)
def test_another_unet_is_refused_in_one_line(tmp_path, changes, words):
    write_unet(tmp_path, **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_unet(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(_class_name="AutoencoderKLWan"), "_class_name"),
        (dict(latent_channels=16), "has shape"),
        (dict(block_out_channels=[4, 7]), "block_out_channels"),
        (dict(scaling_factor="much"), "scaling_factor"),
        (dict(down_block_types=["AttnDownEncoderBlock2D"]), "down_block_types"),
    ],
)
def test_another_autoencoder_is_refused_in_one_line(tmp_path, changes, words):
    write_vae(tmp_path, **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_vae(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_array_and_a_cut_file_are_refused(tmp_path):
    arrays = write_unet(tmp_path)
    save_file(arrays | {"label_emb.weight": np.zeros(3, np.float32)}, tmp_path / "extra.safetensors")
    with pytest.raises(UserError, match=r"label_emb\.weight is not known"):
        load_unet(tmp_path / "extra.safetensors")
    whole = (tmp_path / "extra.safetensors").read_bytes()
    (tmp_path / "extra.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_unet(tmp_path / "extra.safetensors")
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="expected an object"):
        load_unet(tmp_path)


def test_a_network_from_nothing_has_the_same_arrays_and_predicts_nothing_yet(quick_compile):
    params = init_params(jax.random.key(0), TINY)
    built = build_params(random_arrays(unet_files.expected_shapes(TINY)), TINY)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, built)
    found = predict_noise(params, jnp.ones((1, 2, 4, 4, 4)), jnp.zeros(1), jnp.ones((1, 3, 12)), config=TINY)
    np.testing.assert_array_equal(found, 0)


def test_what_does_not_fit_the_network_is_refused():
    params = init_params(jax.random.key(0), TINY)
    with pytest.raises(ValueError, match="multiples of 2"):
        predict_noise(params, jnp.ones((1, 2, 5, 4, 4)), jnp.zeros(1), jnp.ones((1, 3, 12)), config=TINY)


def test_cameras_are_told_as_imagedream_has_them():
    """Azimuth 0 and elevation 90 degrees by hand, in Blender's axes: x right, y into the picture, z up."""
    front = camera_rows(orbit([0.0], 0.0, radius=3.0, fov_deg=40.0, height=8, width=8))[0].reshape(4, 4)
    # Ours stands on +z and looks along -z, so in Blender on -y: right is x, up is z, backward is -y.
    expected = [[1, 0, 0, 0], [0, 0, -1, -1], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(front, expected, atol=1e-6)
    high = camera_rows(orbit([90.0], 30.0, radius=2.0, fov_deg=40.0, height=8, width=8))[0].reshape(4, 4)
    np.testing.assert_allclose(high[:3, 3], [np.cos(np.pi / 6), 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(high[:3, 2], high[:3, 3], atol=1e-6)  # backward is where it stands
    np.testing.assert_allclose(np.linalg.det(high[:3, :3]), 1, atol=1e-5)
