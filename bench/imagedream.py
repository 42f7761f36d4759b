"""How far ImageDream's networks are from diffusers' and transformers', in float32 with random weights, and their sizes.

python -m bench.imagedream            # single blocks as wide as the real ones, and the whole autoencoder
python -m bench.imagedream --sizes    # parameters of the published sizes, and of ATOP around them; nothing is computed

Needs torch, diffusers and transformers. Errors are the largest absolute difference, beside the root mean square of
what they compute.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import parity
from dimo_jax.diffusion.ddim import sample_ddim
from dimo_jax.networks import clip
from dimo_jax.networks.imagedream import unet, vae
from dimo_jax.systems.atop.generator import model as generator
from dimo_jax.systems.atop.generator import training
from dimo_jax.third_party.clip import towers
from dimo_jax.third_party.imagedream import unet as unet_files
from dimo_jax.third_party.imagedream import vae as vae_files

# ImageDream's UNet without cameras and pictures, which is Stable Diffusion 2.1's, cut to one level of the real width.
WIDE = unet_files.UNetConfig(multiples=(1,), looks=(True,), num_residuals=1, camera_dim=0, num_image_tokens=0)


def compare() -> Iterator[parity.Comparison]:
    """All of them."""
    yield from compare_unet()
    yield from compare_vae()
    yield from compare_towers()
    yield from compare_sampler()


def report_sizes() -> None:
    """Arrays and parameters of the published sizes, and of the video model around them."""
    shapes = unet_files.expected_shapes(unet_files.UNetConfig())
    for label, each in (
        ("UNet, ImageDream", shapes),
        ("autoencoder, Stable Diffusion", vae_files.expected_shapes(vae_files.VaeConfig())),
        ("text encoder, ViT-H/14", towers.text_shapes(towers.TextConfig()._replace(num_hidden_layers=23))),
        ("image encoder, ViT-H/14", towers.vision_shapes(towers.VIT_H._replace(num_hidden_layers=31))),
    ):
        parity.print_size(label, each)
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    config = unet_files.UNetConfig()

    def build(arrays: dict[str, jax.Array]) -> generator.GeneratorParams:
        return generator.init_params(jax.random.key(0), unet.build_params(arrays, config, jnp.bfloat16), config)

    params = jax.eval_shape(build, arrays)
    parity.print_trained("ATOP's video model", params, training.trained(params))


def compare_unet() -> Iterator[parity.Comparison]:
    """Noise of pictures, whose names diffusers' converter turns."""
    import torch

    rng = np.random.default_rng(0)
    arrays = {
        name: (rng.normal(size=shape) / max(1, math.prod(shape[1:])) ** 0.5).astype(np.float32)
        for name, shape in unet_files.expected_shapes(WIDE).items()
    }
    model = parity.diffusers().UNet2DConditionModel(
        block_out_channels=[WIDE.channels],
        down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"],
        layers_per_block=1,
        attention_head_dim=[WIDE.channels // WIDE.head_dim],
        cross_attention_dim=WIDE.text_dim,
        use_linear_projection=True,
    )
    convert = importlib.import_module("diffusers.loaders.single_file_utils").convert_ldm_unet_checkpoint
    config = {name: value for name, value in model.config.items() if value is not None}
    named = convert({f"model.diffusion_model.{name}": torch.from_numpy(x) for name, x in arrays.items()}, config)
    model.load_state_dict(named)
    latents = rng.normal(size=(2, 1, 8, 12, 4)).astype(np.float32)
    text = rng.normal(size=(2, 20, WIDE.text_dim)).astype(np.float32)
    times = np.array([700, 3])
    with torch.no_grad():
        moved = torch.from_numpy(latents[:, 0]).permute(0, 3, 1, 2)
        expected = model.eval()(moved, torch.from_numpy(times), torch.from_numpy(text)).sample
    found = unet.predict_noise(unet.build_params(arrays, WIDE), latents, times, text, config=WIDE)
    yield "UNet, one level of the real width", np.asarray(found)[:, 0], expected.permute(0, 2, 3, 1).numpy()


def compare_vae() -> Iterator[parity.Comparison]:
    """Latents of pictures, and pictures of latents, at the real size."""
    import torch

    config = vae_files.VaeConfig()
    model = parity.diffusers().AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=list(config.channels),
        layers_per_block=config.num_residuals,
    )
    params = vae.build_params(parity.draw_weights(model), config)
    pictures = np.random.default_rng(1).uniform(-1, 1, (1, 32, 48, 3)).astype(np.float32)
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2)).latent_dist.mode()
        shown = model.decode(latents).sample.permute(0, 2, 3, 1).numpy()
    expected = latents.permute(0, 2, 3, 1).numpy() * config.scale
    yield "autoencoder, real size, latents", np.asarray(vae.encode(params, pictures, config=config)), expected
    yield "autoencoder, real size, pictures", np.asarray(vae.decode(params, expected, config=config)), shown


def compare_towers() -> Iterator[parity.Comparison]:
    """Tokens of texts and of pictures, two layers of the real width."""
    import torch
    import transformers

    text = towers.TextConfig()._replace(num_hidden_layers=2, vocab_size=1000)
    sizes = text._asdict()
    sizes["max_position_embeddings"] = sizes.pop("num_tokens")
    model: Any = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes))
    arrays = {f"text_model.{name}": x for name, x in parity.draw_weights(model).items() if "position_ids" not in name}
    tokens = np.random.default_rng(2).integers(0, 999, (2, 77))
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).last_hidden_state.numpy()
    found = clip.encode_text(arrays, tokens, config=text)
    yield "text encoder, 2 layers of the real width", np.asarray(found), expected
    vision = towers.VIT_H._replace(num_hidden_layers=2)
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**vision._asdict()))
    arrays = {f"vision_model.{name}": x for name, x in parity.draw_weights(model).items() if "position_ids" not in name}
    pixels = np.random.default_rng(3).normal(size=(1, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        states = model(torch.from_numpy(pixels).permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
    found = clip.encode_image_tokens(arrays, pixels, config=vision)
    yield "image encoder, 2 layers of the real width", np.asarray(found), states[-1].numpy()


def compare_sampler() -> Iterator[parity.Comparison]:
    """50 steps of DDIM on a toy network."""
    import torch

    scheduler = parity.diffusers().DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    scheduler.set_timesteps(50)
    rng = np.random.default_rng(3)
    noise, weight = (rng.normal(size=size).astype(np.float32) for size in ((2, 3, 4), (4, 4)))
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        predicted = torch.tanh(x @ torch.from_numpy(weight)) * (0.3 + timestep / 1000)
        x = scheduler.step(predicted, timestep, x).prev_sample
    found = sample_ddim(lambda x, t: jnp.tanh(x @ weight) * (0.3 + t / 1000), jnp.asarray(noise))
    yield "DDIM, 50 steps on a toy network", np.asarray(found), x.numpy()


if __name__ == "__main__":
    parity.run(__doc__, report_sizes, compare)
