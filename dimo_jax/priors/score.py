"""How good a video is to a model that sees pictures, on a rubric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dimo_jax.priors.client import Endpoint, ask, picture_part, text_part
from dimo_jax.priors.framing import pick_frames

RUBRIC = {
    "identity": "the object stays the very same as in the first frame: shape, colours, parts, face",
    "artifacts": "no limb melts, doubles or vanishes, nothing flickers or blurs, nothing else appears",
    "static_camera": "the camera does not move, turn or zoom, and nothing is cut",
    "prompt": "what happens is what the prompt says",
}
_LEVEL = {"type": "integer", "minimum": 1, "maximum": 5}
SCHEMA = {
    "type": "object",
    "properties": {**dict.fromkeys(RUBRIC, _LEVEL), "comment": {"type": "string", "maxLength": 400}},
    "required": [*RUBRIC],
}
INSTRUCTIONS = (
    "You judge a generated video of one object by some of its frames, in order, the first being the picture that it "
    "was made from. Give each point from 1 (bad) to 5 (without fault): "
    + "; ".join(f"`{name}`: {meaning}" for name, meaning in RUBRIC.items())
    + ". Add a `comment` of one sentence on the worst fault."
)


def rate_video(
    endpoint: Endpoint, frames: np.ndarray, prompt: str, *, num_frames: int = 6, max_side: int = 512
) -> dict[str, Any]:
    """Points of a video on `RUBRIC`.

    Args:
      endpoint: of a model that sees pictures.
      frames: [T,H,W,3] uint8.
      prompt: what it should show.
      num_frames: frames to send, at even distances.
      max_side: they are made smaller by a whole factor until no side is longer, in pixels.

    Returns:
      1 to 5 for every point of the rubric, and "comment".

    Raises:
      Failure: see `client.ask`.
    """
    chosen = frames[pick_frames(len(frames), min(num_frames, len(frames)))]
    factor = -(-max(frames.shape[1:3]) // max_side)
    parts = [text_part(f"The prompt: {prompt}\nThe frames:")]
    parts += [picture_part(shrink(frame, factor)) for frame in chosen]
    answer = ask(endpoint, INSTRUCTIONS, parts, schema=SCHEMA, name="points")
    return {name: answer[name] for name in RUBRIC} | {"comment": " ".join(str(answer.get("comment", "")).split())}


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """A picture [H,W,3] uint8 made smaller by a whole factor, each pixel the mean of what it covers."""
    if factor <= 1:
        return image
    height, width = (side - side % factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return (blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def judge_points(points: Mapping[str, Any], *, least_mean: float = 3.5, least_each: float = 2) -> str:
    """Why a video is no good, or "" where it is.

    Args:
      points: from `rate_video`.
      least_mean: of all points of the rubric.
      least_each: of every single one.
    """
    values = {name: float(points[name]) for name in RUBRIC}
    worst = min(values, key=lambda name: values[name])
    mean = sum(values.values()) / len(values)
    said = f": {points['comment']}" if points.get("comment") else ""
    if values[worst] < least_each:
        return f"{worst.replace('_', ' ')} {values[worst]:g} of 5{said}"
    if mean < least_mean:
        return f"{mean:.2f} of 5 points on average, at least {least_mean:g}{said}"
    return ""
