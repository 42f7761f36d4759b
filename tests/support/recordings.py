"""Multi-view recordings as other programs would leave them: videos by ffmpeg, images by Pillow, masks by NumPy."""

import json
import subprocess

import imageio_ffmpeg
import numpy as np
from PIL import Image

SIZE = 32


def draw_disc(time, *, size=SIZE, color=(200, 40, 60), background=(255, 255, 255), shift=0.0):
    """A smooth-edged disc that moves to the right while `time` runs from 0 to 1: rgb [H,W,3] uint8, alpha [H,W]."""
    y, x = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(x - size * (0.4 + 0.2 * time + shift), y - size / 2) - size / 4
    alpha = np.clip(0.5 - distance, 0, 1)
    mixed = alpha[..., None] * np.asarray(color) + (1 - alpha[..., None]) * np.asarray(background)
    return np.round(mixed).astype(np.uint8), alpha


def write_video(path, frames, *, rate=10, codec=("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p")):
    """Frames [T,H,W,3 or 4] through ffmpeg's own program."""
    pixels = "rgba" if frames.shape[-1] == 4 else "rgb24"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", pixels]
    command += ["-s", f"{frames.shape[2]}x{frames.shape[1]}", "-r", str(rate), "-i", "-", *codec, str(path)]
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, input=np.ascontiguousarray(frames).tobytes(), check=True)


def disc_frames(count, **options):
    """[T,H,W,3] of `draw_disc`."""
    return np.stack([draw_disc(index / max(count - 1, 1), **options)[0] for index in range(count)])


def write_authors(folder, *, motions=("walk", "jump"), views=2, frames=3, masks=True, **info):
    """The authors' layout: white-background RGB images, masks beside them."""
    for motion in motions:
        for view in range(views):
            target = folder / motion / f"view_{view:02d}"
            target.mkdir(parents=True)
            for frame in range(frames):
                rgb, alpha = draw_disc(frame / frames)
                Image.fromarray(rgb).save(target / f"{frame:02d}.png")
                if masks:
                    np.save(target / f"{frame:02d}_mask.npy", alpha[..., None].astype(np.float32))
    table = {"azimuths_deg": [90.0 * view for view in range(views)], "elevation": 0, "input_videos": list(motions)}
    (folder / "info.json").write_text(json.dumps(table | info))
    return folder


def write_sv4d(folder, *, motions=1, views=4, frames=3):
    """Videos named as the samplers name them, the input video included."""
    for motion in range(motions):
        for view in range(views + 1):
            name = f"{motion:06d}_process_input.mp4" if view == 0 else f"{motion:06d}_v{view:03d}.mp4"
            write_video(folder / name, disc_frames(frames, shift=0.02 * view))
    return folder


def write_cameras(folder, views, **others):
    """`cameras.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.json").write_text(json.dumps({"schema_version": 1, "views": views} | others))
    return folder
