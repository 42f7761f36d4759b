"""What a run is going to do and cost, before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve

# The least that each integer of the config may be.
COUNTS = {
    "num_prompts": 1,
    "round_size": 1,
    "max_rounds": 1,
    "takes": 1,
    "max_failures": 1,
    "video.height": 32,
    "video.width": 32,
    "video.num_frames": 2,
    "framing.size": 8,
    "framing.num_frames": 2,
}
# The range of each real number.
RANGES = {
    "image.share": (0.2, 1.0),
    "framing.margin": (0.0, 0.4),
    "video.frame_rate": (0.01, 1000.0),
    "camera.radius": (0.01, 1e6),
    "camera.fov_deg": (1.0, 120.0),
}
GIB = 2**30
# Bytes of a pixel as PNG, rounded up from what videos on a plain ground take.
RGB_PIXEL, RGBA_PIXEL = 1.5, 0.8


def check_numbers(config: Mapping[str, Any]) -> None:
    """Checks what else would be found hours later, when the step that reads it begins.

    Raises:
      UserError: a number that is missing or out of range, by its key.
    """
    for key, least in COUNTS.items():
        value = _get(config, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"config.{key}: found {value!r}, expected an integer of at least {least}")
    for key, (low, high) in RANGES.items():
        value = _get(config, key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"config.{key}: found {value!r}, expected {low:g} to {high:g}")
    wanted, available = config["framing"]["num_frames"], config["video"]["num_frames"]
    if wanted > available:
        raise UserError(
            f"config.framing.num_frames: found {wanted}, expected at most config.video.num_frames, {available}"
        )


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"config.{key}: not found in the config, expected as in configs/distill.py")
        value = value[part]
    return value


def count_novel_views(config: Mapping[str, Any]) -> int:
    """How many views the slot adds; `estimate.num_views` where its program is not there to say."""
    options = {name: config["framing"][name] for name in ("num_frames", "size")}
    try:
        sampler = resolve(config["views"], key="views")(Path("frames"), Path("views"), **options)
    except UserError:
        return int(config["estimate"]["num_views"])
    return len(sampler.azimuths_deg) - 1


def estimate(config: Mapping[str, Any], *, num_prompts: int) -> dict[str, float]:
    """GPU hours and disk of a run in which every video passes the filters, the most that it can cost.

    Args:
      config: see configs/distill.py; `estimate` holds what one video and its novel views take.
      num_prompts: motions to make videos of.

    Returns:
      num_videos, video_hours, view_hours, video_bytes, view_bytes, dataset_bytes.
    """
    costs, video, framing = config["estimate"], config["video"], config["framing"]
    num_videos = num_prompts * config["takes"]
    pixels = video["height"] * video["width"] * video["num_frames"]
    num_views = count_novel_views(config)
    view_bytes = num_videos * (1 + num_views) * framing["size"] ** 2 * framing["num_frames"] * RGBA_PIXEL
    return {
        "num_videos": num_videos,
        "video_hours": num_videos * costs["video_seconds"] / 3600,
        "view_hours": num_videos * costs["views_seconds"] / 3600 if num_views else 0.0,
        "video_bytes": num_videos * pixels * (RGB_PIXEL + RGBA_PIXEL),  # and their cutouts
        "view_bytes": view_bytes,  # framed inputs and novel views
        "dataset_bytes": view_bytes,
    }


def describe_plan(config: Mapping[str, Any], *, image: str, out: str, prompts: str, num_prompts: int) -> list[str]:
    """The plan as lines of text; `config` as in `estimate`."""
    costs, found = config["estimate"], estimate(config, num_prompts=num_prompts)
    client, video, framing = config["client"], config["video"], config["framing"]
    endpoint = f"{client['model']} at {client['base_url'] or 'OPENAI_BASE_URL, or OpenAI'}"
    num = found["num_videos"]
    source = f"read from {prompts}" if prompts else f"by {endpoint}, at most {config['max_rounds']} rounds"
    scored = f", scored by {endpoint}" if config["score"]["fn"] else ", not scored by a model"
    gib = {name: found[f"{name}_bytes"] / GIB for name in ("video", "view", "dataset")}
    total = found["video_hours"] + found["view_hours"]
    return [
        f"from {image} to {out}:",
        f"1 prompts  {num_prompts} motions, {source}",
        f"2 videos   {num:g} of {video['num_frames']} frames, {video['width']}x{video['height']}, by "
        f"{video.get('model') or video['fn']}: {found['video_hours']:.1f} GPU hours "
        f"({costs['video_seconds']:g} s each, {costs['video_source']}), {gib['video']:.1f} GiB",
        f"3 masks    {config['mask']['fn']}",
        f"4 filters  {config['flow']['fn']}{scored}",
        f"5 framing  {framing['num_frames']} frames of {framing['size']}x{framing['size']}",
        f"6 views    {config['views']['fn']}: {found['view_hours']:.1f} GPU hours ({costs['views_seconds']:g} s each, "
        f"{costs['views_source']}), {gib['view']:.1f} GiB",
        f"7 dataset  {out}/dataset, {gib['dataset']:.1f} GiB",
        f"together at most {total:.1f} GPU hours and {sum(gib.values()):.1f} GiB; filters make it less",
    ]
