"""Tiny random weights of ImageDream's networks, written in the layouts that are read."""

import json

import numpy as np
from safetensors.numpy import save_file

from dimo_jax.third_party.imagedream.unet import UNetConfig, expected_shapes
from dimo_jax.third_party.imagedream.vae import VaeConfig
from dimo_jax.third_party.imagedream.vae import expected_shapes as vae_shapes

TINY = UNetConfig(
    channels=8,
    multiples=(1, 2),
    looks=(True, False),
    num_residuals=1,
    head_dim=4,
    text_dim=12,
    num_image_tokens=3,
    image_dim=10,
    resampler_layers=2,
    resampler_heads=1,
    groups=4,
)
TINY_VAE = VaeConfig(channels=(4, 8), num_residuals=1, groups=2)


def random_arrays(shapes, seed=0):
    """Normal numbers over the root of their inputs; norms that are not 1 and biases that are not 0."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


# The sizes that no config.json holds are those of ImageDream.
FILED = UNetConfig(channels=32, multiples=(1, 2), looks=(True, False), num_residuals=1, head_dim=32, text_dim=4)
FILED_JSON = dict(model_channels=32, channel_mult=[1, 2], attention_resolutions=[1], num_res_blocks=1)
FILED_JSON |= dict(num_head_channels=32, context_dim=4, in_channels=4, out_channels=4, camera_dim=16, ip_dim=16)
FILED_JSON |= dict(_class_name="MultiViewUNetModel", transformer_depth=1, image_size=32, ip_weight=1.0)
TINY_VAE_JSON = dict(_class_name="AutoencoderKL", block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=2)


def write_unet(folder, arrays=None, **changes):
    """A folder as converters to diffusers write it -> the arrays in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**FILED_JSON, **changes}))
    arrays = random_arrays(expected_shapes(FILED)) if arrays is None else arrays
    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    return arrays


def write_vae(folder, arrays=None, **changes):
    """An autoencoder's folder as diffusers writes it -> the arrays in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY_VAE_JSON, **changes}))
    arrays = random_arrays(vae_shapes(TINY_VAE)) if arrays is None else arrays
    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    return arrays


def authors_vae_name(name):
    """The name that Stable Diffusion's authors give an array of the tiny autoencoder."""
    for ours, theirs in (
        *((".mid_block.resnets.0.", ".mid.block_1."), (".mid_block.resnets.1.", ".mid.block_2.")),
        *((".mid_block.attentions.0.group_norm.", ".mid.attn_1.norm."), (".to_out.0.", ".proj_out.")),
        *((".mid_block.attentions.0.to_", ".mid.attn_1."), (".mid_block.attentions.0.", ".mid.attn_1.")),
        *((".conv_norm_out.", ".norm_out."), (".conv_shortcut.", ".nin_shortcut.")),
        *((".down_blocks.", ".down."), (".downsamplers.0.", ".downsample."), (".upsamplers.0.", ".upsample.")),
        *((".up_blocks.0.", ".up.1."), (".up_blocks.1.", ".up.0."), (".resnets.", ".block.")),
    ):
        name = name.replace(ours, theirs)
    return name
