"""A model file from before the package was laid out anew still plays: its config names functions by old modules."""

import re
import zipfile
from pathlib import Path

import numpy as np

import dimo_jax as dj
from dimo_jax.core.renames import current_name

# Written by commit cbbf6e7: `--config=configs/dimo.py:smoke`, then `--app=export --format=checkpoint`.
FILE = Path(__file__).resolve().parents[1] / "support/models/before_the_move.npz"


def test_it_names_functions_of_modules_that_are_gone():
    with zipfile.ZipFile(FILE) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist()).decode("utf-32-le", errors="ignore")
        text += b"".join(archive.read(name) for name in archive.namelist()).decode("utf-8", errors="ignore")
    names = set(re.findall(r"dimo_jax(?:\.\w+)+:\w+", text))
    assert len({name for name in names if current_name(name) != name}) > 10


def test_it_plays():
    run = dj.load_run(FILE)
    assert run.motions == ("jumping_jacks", "walk", "bow_deeply")
    clip = run.play(run.code("walk"))
    images = run.render(clip, run.camera(32))
    assert images.shape == (run.num_frames, 32, 32, 3)
    assert np.all(np.isfinite(images))
