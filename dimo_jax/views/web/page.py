"""One HTML file that plays a motion space in a browser, from a double click: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.runs.choice import SPREAD
from dimo_jax.runs.restore import Restored
from dimo_jax.runtime.files import replace_file
from dimo_jax.views.web.arrays import ALPHABET, collect_arrays, halve, pack
from dimo_jax.views.web.known import describe_model

HERE = Path(__file__).parent
# In this order one script: what stands first is used by what follows.
_NAMES = ("model", "wasm", "gpu", "splats", "skinner", "renderer", "camera", "sentences", "overlay", "player", "panel")
SCRIPTS = tuple(f"{name}.js" for name in _NAMES)
_OF_THE_PAPER = ("wasm.js", "gpu.js")  # only the paper's decoder takes them
_SEAM = re.compile(r"\{\{(\w+)\}\}")


def write_page(
    model: Restored, path: Path, *, half: bool = False, prompts: Sequence[tuple[str, np.ndarray]] = ()
) -> Path:
    """Writes the page of a run, atomically; the same run gives the same bytes.

    Args:
      model: the restored run.
      path: the file.
      half: float16 where it costs little: about half the size.
      prompts: further sentences that its text field finds, each with a code [D].

    Raises:
      UserError: a component that the page cannot compute, by its config key; nothing is written.
    """
    header = describe_model(model)
    if header["decoder"]["kind"] == "mlp":
        header["decoder"]["kernel"] = base64.b64encode((HERE / "kernel.wasm").read_bytes()).decode()
    arrays = collect_arrays(model)
    if prompts:
        arrays["prompts"] = np.stack([code for _, code in prompts]).astype(np.float32)
    told, text = pack(halve(arrays) if half else arrays)
    facts = model.facts
    sentences = facts.get("paraphrases") or [[caption] for caption in facts["captions"]]
    header |= dict(
        version=1,
        title=facts["object_name"],
        motions=[dict(name=facts["names"][m], caption=facts["captions"][m]) for m in model.trained_motions],
        # The caption first, as `read_sentences` takes it, though here a motion may have none.
        sentences=[list(dict.fromkeys(filter(str.strip, sentences[m]))) for m in model.trained_motions],
        prompts=[prompt for prompt, _ in prompts],
        frame_rate=model.frame_rate,
        camera=facts["camera"],
        background=[float(x) for x in np.asarray(model.player.background)],
        spread=SPREAD,
        half=half,
        arrays=told,
        alphabet=ALPHABET,
    )
    with replace_file(path) as temporary:
        temporary.write_bytes(fill_page(header, text).encode())
    return path


def fill_page(header: Mapping[str, Any], arrays: str) -> str:
    """The page's HTML with the text of its arrays; what is in `header` can never become markup."""
    large = header["decoder"]["kind"] == "mlp"
    script = "".join(_read(name) for name in SCRIPTS if large or name not in _OF_THE_PAPER)
    script = _squeeze(f"(() => {{\n'use strict';\n{script}}})();\n")
    style = _squeeze(_read("player.css"))
    compiles = " 'wasm-unsafe-eval'" if "kernel" in header["decoder"] else ""  # its one kernel, of kernel.wat
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'{compiles}; style-src '{_hash(style)}'; img-src data: blob:; "
        "media-src blob:; base-uri 'none'; form-action 'none'"
    )
    seams = dict(
        title=html.escape(str(header["title"]).encode("utf-8", "backslashreplace").decode()),
        policy=policy,
        style=style,
        header=json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        arrays=arrays,
        script=script,
    )
    return insert(_squeeze(_read("player.html")), seams)


def _read(name: str) -> str:
    return (HERE / name).read_text("utf-8")


def _squeeze(text: str) -> str:
    """Without indentation, and lines that are comments."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"


def insert(template: str, seams: Mapping[str, str]) -> str:
    """A template with a text at each of its seams, `{{name}}`.

    Raises:
      ValueError: a seam is missing, there twice, or has no text.
    """
    parts = _SEAM.split(template)
    if sorted(parts[1::2]) != sorted(seams):
        raise ValueError(f"the page's seams are {sorted(parts[1::2])}, expected {sorted(seams)}")
    parts[1::2] = [seams[name] for name in parts[1::2]]
    return "".join(parts)


def _hash(text: str) -> str:
    """Of an inline script or style, for the page's Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
