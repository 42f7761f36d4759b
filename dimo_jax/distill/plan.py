"""What a run is going to do and cost, before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GIB = 2**30
# Bytes of a pixel as PNG, rounded up from what videos on a plain ground take.
RGB_PIXEL, RGBA_PIXEL = 1.5, 0.8


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
    square = framing["size"] ** 2 * framing["num_frames"]
    return {
        "num_videos": num_videos,
        "video_hours": num_videos * costs["video_seconds"] / 3600,
        "view_hours": num_videos * costs["views_seconds"] / 3600,
        "video_bytes": num_videos * pixels * (RGB_PIXEL + RGBA_PIXEL),  # and their cutouts
        "view_bytes": num_videos * (1 + costs["num_views"]) * square * RGBA_PIXEL,  # framed inputs and novel views
        "dataset_bytes": num_videos * (1 + costs["num_views"]) * square * RGBA_PIXEL,
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
