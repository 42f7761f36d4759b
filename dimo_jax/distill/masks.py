"""Which pixels are the object: by the colour of the ground, by masks that the user gives, or by a rembg model.

Each function takes frames [T,H,W,3] uint8 and the name of their video, and returns alpha [T,H,W] uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from dimo_jax.distill.client import EXTRA
from dimo_jax.distill.failures import Failure
from dimo_jax.errors import UserError

SOLID = 128  # alpha from which a pixel counts as the object
SMALLEST, LARGEST = 0.002, 0.9  # share of the picture that an object takes


def color_key(
    frames: np.ndarray,
    *,
    item: str,
    color: Sequence[float] = (255, 255, 255),
    tolerance: float = 16.0,
    softness: float = 24.0,
) -> np.ndarray:
    """Everything that has the ground's colour and hangs together with the border is ground.

    White parts inside the object stay, unless a gap leads to them.

    Args:
      frames: [T,H,W,3] uint8.
      item: not needed here.
      color: of the ground, 0..255.
      tolerance: largest difference of a channel that is still the ground's colour.
      softness: over which further difference alpha rises from 0 to 255 at the object's edge.
    """
    difference = np.abs(frames.astype(np.float32) - np.asarray(color, np.float32)).max(axis=-1)
    alpha = np.clip((difference - tolerance) / max(softness, 1e-6), 0, 1)
    for index, values in enumerate(alpha):
        labels, _ = ndimage.label(values < 1)
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        ground = np.isin(labels, np.unique(border[border > 0]))
        alpha[index] = np.where(ground, values, 1.0)
    return (alpha * 255 + 0.5).astype(np.uint8)


def given(frames: np.ndarray, *, item: str, folder: str) -> np.ndarray:
    """Masks from `folder`/<video>/00000.png ..., grey, white where the object is.

    Raises:
      Failure: they are not there, or have another size.
    """
    place = Path(folder).expanduser() / item
    paths = sorted(place.glob("*.png"))
    if len(paths) != len(frames):
        raise Failure(f"{place}: {len(paths)} masks, expected {len(frames)} PNG files, one a frame")
    masks = []
    for path in paths:
        try:
            with Image.open(path) as image:
                masks.append(np.asarray(image.convert("L")))
        except (OSError, ValueError, SyntaxError) as error:
            raise Failure(f"{path}: cannot be read as an image") from error
        if masks[-1].shape != frames.shape[1:3]:
            found, expected = masks[-1].shape[::-1], frames.shape[2:0:-1]
            raise Failure(f"{path}: {found[0]}x{found[1]} pixels, expected {expected[0]}x{expected[1]}")
    return np.stack(masks)


def rembg(frames: np.ndarray, *, item: str, model: str = "isnet-general-use", model_path: str = "") -> np.ndarray:
    """Background removal by the package `rembg` (its models are downloaded by it; each has a licence of its own).

    Args:
      frames: [T,H,W,3] uint8.
      item: not needed here.
      model: of rembg.
      model_path: .onnx file, for rembg's kinds "u2net_custom", "dis_custom" and "ben_custom".

    Raises:
      UserError: the package or its model cannot be had.
    """
    session, remove = _open_rembg(model, model_path)
    masks = [remove(Image.fromarray(frame), session=session, only_mask=True) for frame in frames]
    return np.stack([np.asarray(mask.convert("L")) for mask in masks])


def _open_rembg(model: str, model_path: str) -> tuple[Any, Any]:
    if (model, model_path) in _SESSIONS:
        return _SESSIONS[model, model_path]
    try:
        from rembg import new_session, remove
    except (ImportError, SystemExit) as error:  # it exits where onnxruntime is missing
        raise UserError(
            f"config.mask: package rembg not found, expected it installed with its runtime ({EXTRA})"
        ) from (error)
    options = {"model_path": str(Path(model_path).expanduser())} if model_path else {}
    try:
        _SESSIONS[model, model_path] = (new_session(model, **options), remove)
    except Exception as error:  # of the package, its downloader and its runtime
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.mask.model: rembg cannot load {model!r} ({reason})") from error
    return _SESSIONS[model, model_path]


_SESSIONS: dict[tuple[str, str], tuple[Any, Any]] = {}  # loading one takes seconds, and videos come one by one


def judge_alpha(alpha: np.ndarray) -> str:
    """Why masks [T,H,W] uint8 cannot be those of an object in one place, or "" where they can."""
    shares = (alpha >= SOLID).mean(axis=(1, 2))
    if shares.min() < SMALLEST:
        return f"no object in {int((shares < SMALLEST).sum())} of {len(shares)} frames"
    if shares.max() > LARGEST:
        return f"the mask fills {shares.max():.0%} of a frame, expected a ground that can be told from the object"
    return ""
