"""Which pixels are the object: by the colour of the ground, by masks that the user gives, or by a rembg model.

Each function takes frames [T,H,W,3] uint8 and the name of their video, and returns cutouts [T,H,W,4] uint8, straight
alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.masks import open_mask, read_covers
from dimo_jax.io.matte import Matte, key_out
from dimo_jax.priors.client import EXTRA
from dimo_jax.priors.failures import Failure

SOLID = 128  # alpha from which a pixel counts as the object
SMALLEST, LARGEST = 0.002, 0.9  # share of the picture that an object takes


def color_key(
    frames: np.ndarray, *, item: str, color: Sequence[int] = (255, 255, 255), tolerance: float = 16.0
) -> np.ndarray:
    """Everything that has the ground's colour and hangs together with the border is ground (`data.matte.key_out`).

    Args:
      frames: [T,H,W,3] uint8.
      item: not needed here.
      color: of the ground, 0..255.
      tolerance: largest difference of a channel that is still the ground's colour.
    """
    matte = Matte(how="key", color=(int(color[0]), int(color[1]), int(color[2])), tolerance=tolerance)
    return np.stack([key_out(frame, matte) for frame in frames])


def given(frames: np.ndarray, *, item: str, folder: str) -> np.ndarray:
    """Masks from `folder`/<video>/00000.png ..., white where the object is, or of another kind that `data.masks` knows.

    Raises:
      Failure: they are not there, or have another size.
    """
    place = Path(folder).expanduser() / item
    if not place.is_dir():
        raise Failure(f"{place}: 0 masks, expected {len(frames)} PNG files, one a frame")
    try:
        clip = open_mask(place)
        if len(clip.files) != len(frames):
            raise Failure(f"{place}: {len(clip.files)} masks, expected {len(frames)} PNG files, one a frame")
        if (clip.height, clip.width) != frames.shape[1:3]:
            found, expected = (clip.width, clip.height), frames.shape[2:0:-1]
            raise Failure(f"{clip.files[0]}: {found[0]}x{found[1]} pixels, expected {expected[0]}x{expected[1]}")
        return add_alpha(frames, np.stack(list(read_covers(clip))))
    except UserError as error:
        raise Failure(str(error)) from error


def rembg(frames: np.ndarray, *, item: str, model: str = "isnet-general-use", model_path: str = "") -> np.ndarray:
    """Background removal by the package `rembg` (its models are downloaded by it; each has a licence of its own).

    Args:
      frames: [T,H,W,3] uint8.
      item: not needed here.
      model: of rembg.
      model_path: .onnx file in rembg's folder of models (the environment's REMBG_HOME), for its kinds "u2net_custom",
        "dis_custom" and "ben_custom".

    Raises:
      UserError: the package or its model cannot be had.
    """
    session, remove = _open_rembg(model, model_path)
    masks = [remove(Image.fromarray(frame), session=session, only_mask=True) for frame in frames]
    return add_alpha(frames, np.stack([np.asarray(mask.convert("L")) for mask in masks]))


def _open_rembg(model: str, model_path: str) -> tuple[Any, Any]:
    if (model, model_path) in _SESSIONS:
        return _SESSIONS[model, model_path]
    try:
        from rembg import new_session, remove
    except (ImportError, SystemExit) as error:  # it exits where onnxruntime is missing
        message = f"config.mask: package rembg not found, expected it installed with its runtime ({EXTRA})"
        raise UserError(message) from error
    options = {"model_path": str(Path(model_path).expanduser())} if model_path else {}
    try:
        _SESSIONS[model, model_path] = (new_session(model, **options), remove)
    except Exception as error:  # of the package, its downloader and its runtime
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.mask.model: rembg cannot load {model!r} ({reason})") from error
    return _SESSIONS[model, model_path]


_SESSIONS: dict[tuple[str, str], tuple[Any, Any]] = {}  # loading one takes seconds, and videos come one by one


def add_alpha(frames: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """[T,H,W,3] and [T,H,W], both uint8 -> [T,H,W,4]."""
    return np.concatenate([frames, alpha[..., None]], axis=-1)


def judge_cutouts(cutouts: np.ndarray) -> str:
    """Why cutouts [T,H,W,4] uint8 cannot be those of an object, or "" where they can."""
    shares = (cutouts[..., 3] >= SOLID).mean(axis=(1, 2))
    if shares.min() < SMALLEST:
        return f"no object in {int((shares < SMALLEST).sum())} of {len(shares)} frames"
    if shares.max() > LARGEST:
        return f"the mask fills {shares.max():.0%} of a frame, expected a ground that can be told from the object"
    return ""
