"""How much moves in a video, and whether it has cuts: what makes it too still, too violent, or two videos in one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.metrics.motion import load_opencv, measure_flow, motion_amplitude
from dimo_jax.priors.client import EXTRA

Flow = Callable[[np.ndarray], np.ndarray]  # frames [T,H,W,3] uint8 -> [T-1,H,W,2] pixels a frame


@dataclass(frozen=True)
class Motion:
    """Measures of one video; none depends on its resolution or, but for the jump, on its frame rate."""

    amplitude: float  # picture heights a second
    jump: float  # the worst pair of frames: what flow leaves unexplained, as a share of the object's contrast
    cropped: float  # share of frames in which the object touches the border


def measure_motion(frames: np.ndarray, masks: np.ndarray, *, frame_rate: float, flow: Flow = measure_flow) -> Motion:
    """Measures a video.

    The amplitude is the paper's (Table 4), the mean of the largest 20 % of the flow inside the mask, over the
    picture's height and times the frame rate.

    Args:
      frames: [T,H,W,3] uint8, at least 2 frames.
      masks: [T,H,W] bool, the object.
      frame_rate: frames a second.
      flow: optical flow: `metrics.motion.measure_flow` (OpenCV's DIS) or `raft`.
    """
    flows = flow(frames)
    return Motion(
        amplitude=motion_amplitude(flows, masks) / frames.shape[1] * frame_rate,
        jump=measure_jump(frames, masks, flows),
        cropped=float(np.mean([touches_border(mask) for mask in masks])),
    )


def touches_border(mask: np.ndarray) -> bool:
    """Whether an object's mask [H,W] reaches the picture's border."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def measure_jump(frames: np.ndarray, masks: np.ndarray, flows: np.ndarray) -> float:
    """The largest difference between a frame and the next one moved back by the flow, over all pairs.

    The mean absolute difference of grey values over the object in either frame, divided by the object's contrast
    there (mean absolute deviation from its mean, white ground included): about 0.1 where flow explains
    what happens, towards 1 and above where one picture does not follow from the other.
    """
    cv2 = load_opencv()
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames]
    rows, columns = np.indices(grey[0].shape, np.float32)
    worst = 0.0
    for first, second, flow, inside in zip(grey, grey[1:], flows, masks[:-1] | masks[1:]):
        if not inside.any():
            continue
        moved = cv2.remap(second, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        contrast = np.abs(first[inside] - first[inside].mean()).mean()
        worst = max(worst, float(np.abs(moved - first)[inside].mean() / max(contrast, 1.0)))
    return worst


def judge_motion(
    motion: Motion, *, least: float = 0.03, most: float = 1.5, max_jump: float = 0.6, max_cropped: float = 0.1
) -> str:
    """Why a video is no good, or "" where it is. The paper gives no figures; docs/distill.md says how to choose them.

    Args:
      motion: its measures.
      least: amplitude under which it counts as still, picture heights a second.
      most: amplitude over which it counts as violent.
      max_jump: over which it counts as having a cut.
      max_cropped: largest share of frames in which the object may touch the border.
    """
    if not np.isfinite(motion.amplitude):
        return "no object in any frame"
    if motion.jump > max_jump:
        return f"a cut (jump {motion.jump:.2f}, at most {max_jump:g})"
    if motion.cropped > max_cropped:
        return f"the object leaves the picture in {motion.cropped:.0%} of the frames (at most {max_cropped:.0%})"
    if motion.amplitude < least:
        return f"too still (amplitude {motion.amplitude:.3f}, at least {least:g})"
    if motion.amplitude > most:
        return f"too violent (amplitude {motion.amplitude:.2f}, at most {most:g})"
    return ""


def raft(
    frames: np.ndarray,
    *,
    weights: str = "C_T_SKHT_V2",
    size: str = "large",
    device: str = "cpu",
    num_updates: int = 12,
) -> np.ndarray:
    """Optical flow by RAFT (Teed and Deng 2020) of torchvision, the kind of network that the paper measures with.

    Args:
      frames: [T,H,W,3] uint8, at least 128 pixels a side.
      weights: name of torchvision's weights, downloaded the first time, or a .pth file of theirs (tensors only; it is
        read without unpickling objects).
      size: "large" or "small".
      device: of torch.
      num_updates: refinements.

    Returns:
      [T-1,H,W,2] float32 (x, y) in pixels a frame.

    Raises:
      UserError: torchvision is not installed, or the weights cannot be read.
    """
    try:
        import torch
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError) as error:  # the latter where torch and torchvision do not fit each other
        raise UserError(f"config.flow: cannot import torchvision ({error}), expected it installed ({EXTRA})") from error
    model = _load_raft(torch, optical_flow, weights, size).to(device).eval()
    height, width = frames.shape[1:3]
    # The network halves the picture three times.
    padding = ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0))
    video = torch.from_numpy(np.pad(frames, padding, mode="edge")).permute(0, 3, 1, 2)
    flows = []
    with torch.inference_mode():
        for first, second in itertools.pairwise(video):
            pair = [2 * (each[None].to(device).float() / 255) - 1 for each in (first, second)]
            flows.append(model(*pair, num_flow_updates=num_updates)[-1][0].permute(1, 2, 0).cpu().numpy())
    return np.stack(flows)[:, :height, :width].astype(np.float32)


def _load_raft(torch: Any, optical_flow: Any, weights: str, size: str) -> Any:
    if size not in ("large", "small"):
        raise UserError(f"config.flow.size: found {size!r}, expected 'large' or 'small'")
    build = getattr(optical_flow, f"raft_{size}")
    try:
        if not weights.endswith((".pth", ".pt")):
            return build(weights=weights)
        model = build(weights=None)
        model.load_state_dict(torch.load(Path(weights), map_location="cpu", weights_only=True))
    except Exception as error:  # torch and pickle raise of many kinds for files that are not theirs
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.flow.weights: cannot load {weights!r} ({reason}), expected RAFT's weights") from error
    return model
