"""What the tests of the motion priors put in the place of large models: none of this is a model.

`ChatServer` speaks the chat-completions protocol over loopback; the real `openai` client talks to it. `make_videos`
fills the slot of the video model by moving the picture. `write_checkout` writes a program in the place of SV4D's that
takes its arguments and writes files of its format. `embed_words` counts words in the place of BERT.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from dimo_jax.apps.distill import load_default
from dimo_jax.priors.video_models import check_video

KEY = "sk-test-0123456789-do-not-tell"
META = {
    "object": "a spotted ball",
    "appearance": "A ball with dark spots.",
    "expression": "Calm.",
    "initial_state": "It rests in the middle.",
}
MOTIONS = [
    {"caption": "sways left and right", "motion": "The ball sways to the left and to the right."},
    {"caption": "stands still", "motion": "The ball stands still."},
    {"caption": "sways left and right again", "motion": "The ball sways again."},
    {"caption": "bobs up and down", "motion": "The ball bobs up and down."},
]
POINTS = {"identity": 5, "artifacts": 4, "static_camera": 5, "prompt": 4, "comment": "fine"}


class ChatServer:
    """Answers by what the system message asks for. `faults` are answers for the next requests, before all others:
    (status, headers, body) or a text to be the message's content."""

    def __init__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(
                    {
                        "path": self.path,
                        "headers": {name.lower(): value for name, value in self.headers.items()},
                        "body": body,
                    }
                )
                fault = outer.faults.pop(0) if outer.faults else None
                status, headers, answer = fault if isinstance(fault, tuple) else (200, {}, outer.answer(body, fault))
                data = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.requests, self.faults, self.refuse, self.points = [], [], "", dict(POINTS)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def answer(self, body, text=None):
        system = body["messages"][0]["content"]
        if text is None:
            kinds = {"You describe": META, "You think": {"motions": MOTIONS}, "You judge": self.points}
            text = next(json.dumps(value) for start, value in kinds.items() if system.startswith(start))
        message = {"role": "assistant", "content": text}
        if self.refuse and system.startswith(self.refuse):
            message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}

    def asked(self, start):
        """Requests whose system message starts so."""
        return [each for each in self.requests if each["body"]["messages"][0]["content"].startswith(start)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def read_manifest(folder):
    """All records of a folder's manifest, in order."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def texture(size, seed=0):
    """Smooth grey noise [size,size] of 0..1."""
    noise = gaussian_filter(np.random.default_rng(seed).uniform(0, 1, (size, size)), 2, mode="wrap")
    return (noise - noise.min()) / np.ptp(noise)


def disc_clip(positions, *, size=96, radius=22, angles=None, seeds=None):
    """A textured disc on white at the given centres (x, y), turned by angles: frames [T,H,W,3] and masks [T,H,W]."""
    frames, masks = [], []
    y, x = np.mgrid[:size, :size].astype(float)
    for t, (cx, cy) in enumerate(positions):
        c, s = np.cos((angles or [0] * len(positions))[t]), np.sin((angles or [0] * len(positions))[t])
        u, v = c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)
        pattern = texture(128, 0 if seeds is None else seeds[t])
        grey = 0.1 + 0.7 * map_coordinates(pattern, [v + 64, u + 64], order=3, mode="wrap")
        alpha = np.clip(radius - np.hypot(x - cx, y - cy) + 0.5, 0, 1)
        frames.append(255 * (alpha * grey + 1 - alpha))
        masks.append(alpha > 0.5)
    grey = np.clip(np.stack(frames), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), np.stack(masks)


def write_photo(path, size=80):
    """A textured disc on white, off centre."""
    frames, _ = disc_clip([(size * 0.45, size * 0.55)], size=size, radius=size * 0.25)
    Image.fromarray(frames[0]).save(path)
    return path


def make_videos(*, height, width, num_frames, frame_rate, model="stand-in", calls="", fault="", **others):
    """In the place of a video model: moves the picture by what the prompt says, and notes every call in a file."""

    def generate(image, prompt, seed):
        assert image.shape == (height, width, 3)
        if calls:
            with open(calls, "a") as file:
                file.write(prompt + "\n")
        still = "stands still" in prompt.lower()
        if fault and fault in prompt:
            broken = np.full((num_frames, height, width, 3), np.nan)
            return check_video(broken, size=(height, width), num_frames=num_frames)
        wave = np.sin(2 * np.pi * np.arange(num_frames) / num_frames) * (0 if still else 5)
        axis = 1 if "left" in prompt else 0
        return np.stack([np.roll(image, round(float(step)), axis=axis) for step in wave])

    return generate


def embed_words(sentences, **others):
    """In the place of BERT: counts of words, stop words left out."""
    words = sorted({word for each in sentences for word in each.split()} - {"and", "again", "the"})
    return np.array([[each.split().count(word) for word in words] for each in sentences], float)


SAMPLER = '''
"""In the place of SV4D 2.0: takes its arguments, turns the input's frames upside down and writes them as its views."""
import os, subprocess, sys
from pathlib import Path
import imageio_ffmpeg, numpy as np
from PIL import Image

options = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
root = Path(__file__).resolve().parents[2]
print("key" if os.environ.get("OPENAI_API_KEY") else "no key", options)
if (root / "fail").exists():
    sys.exit("RuntimeError: the sampler broke")
assert options["image_frame_ratio"] == "None" and options["remove_bg"] == "False"
paths = sorted(Path(options["input_path"]).glob("*.png"))[: int(options["n_frames"])]
size = int(options["img_size"])
kind = Path(options["model_path"]).stem
out = Path(options["output_folder"]) / kind
out.mkdir(parents=True)
frames = []
for path in paths:
    rgba = np.asarray(Image.open(path), np.float32)
    alpha = rgba[..., 3:] / 255
    frames.append((rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)[::-1])
names = ["000000_process_input.mp4"] + [f"000000_v{i:03d}.mp4" for i in range(1, 9 if "8views" in kind else 5)]
for name in names:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{size}x{size}", "-r", "10", "-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, str(out / name)], input=np.stack(frames).tobytes(), check=True)
'''


def write_checkout(folder, weights="sv4d2.safetensors"):
    """A folder like a checkout of Stability-AI/generative-models, with a program in the place of SV4D's."""
    for name, text in (("scripts/sampling/simple_video_sample_4d2.py", SAMPLER), (f"checkpoints/{weights}", "")):
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Path(folder)


def small_config(server_url, checkout, calls=""):
    """configs/distill.py with small sizes and the stand-ins in its slots; as `run_chain` takes it."""
    config = load_default().to_dict()
    config.update(num_prompts=2, round_size=4, max_rounds=2)
    config["client"].update(base_url=server_url, num_retries=1, timeout=10.0, model="stand-in")
    config["embed"] = dict(fn="stand_ins:embed_words")
    config["deduplicate"]["threshold"] = 0.9
    config["video"] = dict(
        fn="stand_ins:make_videos", height=64, width=80, num_frames=13, frame_rate=8.0, model="stand-in", calls=calls
    )
    config["image"]["share"] = 0.5
    config["framing"].update(size=48, num_frames=12)
    config["views"].update(checkout=str(checkout), python=sys.executable, model_path="checkpoints/sv4d2.safetensors")
    return config
