"""Image-to-video models of the `diffusers` library: CogVideoX, Wan and others, by name or from a local folder.

A model is a function of a picture, a prompt and a seed; `image_to_video` loads one and returns it. It needs torch and
diffusers (`pip install 'dimo_jax[distill]'`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from absl import logging
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.images import to_uint8
from dimo_jax.priors.client import EXTRA
from dimo_jax.priors.failures import Failure

PACKAGES = ("torch", "diffusers", "transformers", "accelerate")  # that the slot needs, see `chain.find_missing`
OFFLOADS = ("none", "model", "sequential")
DTYPES = ("bfloat16", "float16", "float32")


class VideoModel(Protocol):
    """A loaded model."""

    def __call__(self, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """[H,W,3] uint8, the first frame -> [T,H,W,3] uint8; `Failure` where it cannot."""


def image_to_video(
    *,
    pipeline: str = "CogVideoXImageToVideoPipeline",
    model: str = "THUDM/CogVideoX-5b-I2V",
    height: int = 480,
    width: int = 720,
    num_frames: int = 49,
    frame_rate: float = 8.0,
    num_steps: int = 50,
    guidance: float = 6.0,
    negative_prompt: str = "",
    device: str = "cuda",
    dtype: str = "bfloat16",
    float32_parts: Sequence[str] = (),
    offload: str = "model",
    tile_vae: bool = True,
    max_tokens: int = 226,
    call: Mapping[str, Any] | None = None,
) -> VideoModel:
    """An image-to-video pipeline of `diffusers`, by default CogVideoX-5B-I2V (Yang et al. 2024).

    configs/distill.py has the options for it and for Wan 2.1 and 2.2 (Wan team 2025).

    Args:
      pipeline: the library's class.
      model: a name on the Hugging Face hub, downloaded the first time, or a local folder.
      height: of the video in pixels; CogVideoX-5B-I2V is made for 480 x 720 only.
      width: see there.
      num_frames: one more than a multiple of what the model packs into one latent frame: 4 n + 1 for both.
      frame_rate: that the model was made for.
      num_steps: of the sampler.
      guidance: classifier-free guidance scale.
      negative_prompt: what shall not be seen.
      device: of torch.
      dtype: "bfloat16", "float16" or "float32".
      float32_parts: networks of the pipeline that keep float32; the library advises it for Wan's "vae" and
        "image_encoder".
      offload: what waits in the computer's memory: "none", "model" (whole networks), "sequential" (layers: least
        memory, slowest).
      tile_vae: decode in tiles, which takes less memory.
      max_tokens: of a prompt.
      call: more arguments of the pipeline's call.

    Raises:
      UserError: packages, device, weights or a pipeline that are not there, or an option out of range.
    """
    torch, diffusers = import_torch()
    dtypes = {"default": pick_dtype(torch, dtype)} | dict.fromkeys(float32_parts, torch.float32)
    pipe = load_pipeline(find_pipeline(diffusers, pipeline), model, dtypes)
    packed = getattr(pipe, "vae_scale_factor_temporal", 1)
    if (num_frames - 1) % packed:
        raise UserError(f"config.video.num_frames: found {num_frames}, expected {packed} n + 1 for {pipeline}")
    place(torch, pipe, device=device, offload=offload)
    if tile_vae:
        pipe.vae.enable_tiling()
        pipe.vae.enable_slicing()
    options: dict[str, Any] = dict(height=height, width=width, num_frames=num_frames, num_inference_steps=num_steps)
    options |= dict(guidance_scale=guidance, negative_prompt=negative_prompt, max_sequence_length=max_tokens)
    return _wrap(torch, pipe, options | dict(call or {}), offload=offload, size=(height, width), num_frames=num_frames)


def find_pipeline(diffusers: Any, name: str) -> Any:
    """The library's pipeline of that name.

    Raises:
      UserError: it has none that makes videos of pictures.
    """
    found = getattr(diffusers, name, None) if name.endswith("ImageToVideoPipeline") else None
    if found is None:
        raise UserError(
            f"config.video.pipeline: found {name!r}, expected one of diffusers such as CogVideoXImageToVideoPipeline"
        )
    return found


def import_torch() -> tuple[Any, Any]:
    """The modules torch and diffusers.

    Raises:
      UserError: one is not installed.
    """
    try:
        import diffusers
        import torch
    except ImportError as error:
        raise UserError(f"config.video: package {error.name} not found, expected it installed ({EXTRA})") from error
    return torch, diffusers


def pick_dtype(torch: Any, name: str) -> Any:
    """torch's type of that name."""
    if name not in DTYPES:
        raise UserError(f"config.video.dtype: found {name!r}, expected one of {', '.join(DTYPES)}")
    return getattr(torch, name)


def load_pipeline(kind: Any, model: str, dtypes: dict[str, Any]) -> Any:
    """A pipeline by name or folder, its parts in the given types.

    Only safetensors are read: weights in pickles are refused.

    Raises:
      UserError: it cannot be had.
    """
    try:
        return kind.from_pretrained(model, torch_dtype=dtypes, use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"config.video.model: cannot load {model!r} as {kind.__name__} ({reason}), expected its name on the "
            "Hugging Face hub, or a folder that its save_pretrained wrote"
        ) from error


def place(torch: Any, pipe: Any, *, device: str, offload: str) -> None:
    """Puts a pipeline on its device.

    Raises:
      UserError: an unknown way of offloading, or a device that is not there.
    """
    if offload not in OFFLOADS:
        raise UserError(f"config.video.offload: found {offload!r}, expected one of {', '.join(OFFLOADS)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"config.video.device: found {device!r}, but torch sees no GPU, expected one, or 'cpu' (hours a video)"
        )
    try:
        if offload == "none" or device == "cpu":
            pipe.to(device)
        elif offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.enable_sequential_cpu_offload(device=device)
    except Exception as error:
        if not ran_out_of_memory(torch, error):
            raise
        raise out_of_memory(offload) from error


def ran_out_of_memory(torch: Any, error: BaseException) -> bool:
    """Whether an exception says that memory was too small, on a GPU or beside it."""
    kinds = (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError), torch.cuda.OutOfMemoryError)
    text = str(error).lower()
    return isinstance(error, kinds) or "out of memory" in text or "can't allocate memory" in text


def out_of_memory(offload: str) -> Failure:
    """What to say, and to try, when memory was too small."""
    less = OFFLOADS[OFFLOADS.index(offload) + 1 :]
    tries = [f"--config.video.offload={less[0]}"] if less else []
    tries += ["a smaller --config.video.num_frames", "a GPU with more memory"]
    return Failure("the video model ran out of memory", suggestion="try " + ", or ".join(tries), fatal=True)


def check_video(frames: np.ndarray, *, size: tuple[int, int], num_frames: int) -> np.ndarray:
    """Float frames 0..1 of a model as uint8.

    Args:
      frames: [T,H,W,3] float.
      size: the height and width that were asked for.
      num_frames: the number that was asked for.

    Raises:
      Failure: values that are not finite, another shape, or one colour throughout.
    """
    frames = np.asarray(frames, np.float32)
    if frames.shape != (num_frames, *size, 3):
        raise Failure(f"the video model gave frames {list(frames.shape)}, expected {[num_frames, *size, 3]}")
    bad = int((~np.isfinite(frames)).reshape(num_frames, -1).any(axis=1).sum())
    if bad:
        raise Failure(
            f"the video model gave NaN or infinite values in {bad} of {num_frames} frames",
            suggestion="try --config.video.dtype=bfloat16 or float32",
        )
    if np.ptp(frames) == 0:
        raise Failure("the video model gave frames of a single colour", suggestion="try another dtype")
    return to_uint8(frames)


def _wrap(
    torch: Any, pipe: Any, options: dict[str, Any], *, offload: str, size: tuple[int, int], num_frames: int
) -> VideoModel:
    """A pipeline as a `VideoModel`."""
    pipe.set_progress_bar_config(leave=False, disable=not sys.stderr.isatty())

    def generate(image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        # Noise from the processor's generator is the same whatever GPU runs the model.
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            found = pipe(
                image=Image.fromarray(image), prompt=prompt, generator=generator, output_type="np", **options
            ).frames[0]
        except Exception as error:
            if ran_out_of_memory(torch, error):
                torch.cuda.empty_cache()
                raise out_of_memory(offload) from error
            if isinstance(error, ValueError | RuntimeError):
                raise Failure(f"{type(pipe).__name__}: {error}") from error
            raise
        return check_video(found, size=size, num_frames=num_frames)

    logging.info("loaded %s", type(pipe).__name__)
    return generate
