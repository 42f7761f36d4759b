"""The scripts of examples/ run as they stand, at tiny size, and what they write is looked at."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pygltflib import GLTF2

import dimo_jax as dj

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("[0-9]*.py"))
PAD = 4  # pixels around a tile of `dj.tile`
TILE = 128  # to which it enlarges 32 px

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run_script(monkeypatch, capsys, tmp_path):
    """Runs a script in this process, whose imports and compiled programs it shares: (names that it left, its words)."""

    def run(number, *flags):
        (path,) = (path for path in SCRIPTS if path.name.startswith(number))
        monkeypatch.setattr(sys, "argv", [str(path), f"--out={tmp_path}", "--tiny", *flags])
        names = runpy.run_path(str(path), run_name="__main__")
        said = capsys.readouterr().out
        written = {file.name for file in tmp_path.iterdir()}
        assert written == {Path(word).name for word in re.findall(r"\S+\.(?:png|ply|npz|mp4|glb)", said)}
        return names, said

    return run


def read_tiles(path, *, rows, columns, labelled=(False, False)):
    """Tiles [R,C,H,W,3] in 0..1 of a picture that `dj.tile` drew of square images."""
    picture = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    top, left = (PAD + 22 * has for has in labelled)
    size = (picture.shape[1] - left - columns * PAD) // columns
    assert picture.shape == (top + rows * (size + PAD), left + columns * (size + PAD), 3)
    assert size >= TILE
    starts = [
        (top + row * (size + PAD), left + column * (size + PAD)) for row in range(rows) for column in range(columns)
    ]
    tiles = np.stack([picture[y : y + size, x : x + size] for y, x in starts])
    assert np.all(tiles.std(axis=(1, 2, 3)) > 0.01), "a tile is blank"
    return tiles.reshape(rows, columns, size, size, 3)


def inked(tile):
    """Where a tile [H,W,3] is not white."""
    return tile.min(axis=-1) < 0.9


def extents(tile):
    """Height and width of what a tile shows, as shares of it."""
    rows, columns = np.nonzero(inked(tile))
    return np.ptp(rows) / len(tile), np.ptp(columns) / len(tile)


def test_a_splat_file_is_seen_from_all_around(run_script, tmp_path):
    _, said = run_script("01")
    assert "60 Gaussians" in said
    tiles = read_tiles(tmp_path / "orbit.png", rows=1, columns=3)[0]
    assert all(0.05 < inked(tile).mean() < 0.7 for tile in tiles)
    assert all(np.abs(tiles[i] - tiles[i - 1]).mean() > 0.02 for i in range(3))
    border = np.concatenate([tiles[:, 0], tiles[:, -1], tiles[:, :, 0], tiles[:, :, -1]])
    assert border.min() > 0.9  # all of it is in the picture


def test_key_points_bend_a_bar(run_script, tmp_path):
    names, _ = run_script("02")
    np.testing.assert_allclose(names["weights"].sum(axis=1), 1, atol=1e-5)
    tiles = read_tiles(tmp_path / "skinning.png", rows=2, columns=3, labelled=(True, True))
    for row in tiles:
        (high, wide), _, (bent_high, bent_wide) = map(extents, row)
        assert high < 0.4 < 0.7 < wide
        assert bent_wide < 0.9 * wide
        assert bent_high > 1.2 * high
    # Where a key point reaches far its colour blends with the others'.
    saturations = [np.ptp(row[0], axis=-1)[inked(row[0])].mean() for row in tiles]
    assert saturations[0] > saturations[1] + 0.05


@pytest.mark.slow
def test_a_static_object_is_fitted(run_script, tmp_path):
    _, said = run_script("03")
    truth, fitted = read_tiles(tmp_path / "fitted.png", rows=2, columns=2, labelled=(True, True))
    assert np.mean((truth - fitted) ** 2) < 0.5 * np.mean((truth - 1) ** 2)  # of what an empty picture would have
    assert float(re.search(r"PSNR ([\d.]+) dB on 2 views", said)[1]) > 12
    assert np.isfinite(dj.read_ply(tmp_path / "object.ply").means).all()


@pytest.mark.slow
def test_a_motion_space_is_trained_sampled_and_kept(run_script, tmp_path):
    names, _ = run_script("04")
    rows = read_tiles(tmp_path / "samples.png", rows=5, columns=6, labelled=(False, True))
    assert all(0.01 < inked(tile).mean() < 0.95 for row in rows for tile in row)
    assert (tmp_path / "sample.mp4").stat().st_size > 500
    kept, run = dj.load_run(tmp_path / "motions.npz"), names["run"]
    assert kept.motions == run.motions
    clip = kept.play(kept.sample(seed=2))
    np.testing.assert_allclose(clip.gaussians.means, names["clips"][-1].gaussians.means, atol=1e-6)


@pytest.mark.slow
def test_a_function_of_the_script_trains_in_the_place_of_another(run_script, tmp_path):
    names, said = run_script("05")
    assert names["trainer"].config["skinning"]["fn"] == "__main__:heavy_weights"
    truth, usual, ours = read_tiles(tmp_path / "skinnings.png", rows=3, columns=6, labelled=(False, True))
    assert np.abs(usual - ours).max() > 1 / 255
    assert np.mean((truth - ours) ** 2) < 2 * np.mean((truth - 1) ** 2)
    assert len(re.findall(r"PSNR \d+\.\d+ dB", said)) == 2
    points, positions = np.zeros((1, 3)), np.array([[[1.0, 0, 0], [0, 2.0, 0]]])
    weights = names["heavy_weights"](points, positions, np.zeros((1, 2)), power=1.0)
    np.testing.assert_allclose(weights[0], np.array([1 / 2, 1 / 5]) / (1 / 2 + 1 / 5), rtol=1e-5)


@pytest.mark.slow
def test_a_motion_is_exported(run_script, tmp_path):
    names, said = run_script("06")
    read_tiles(tmp_path / "exported.png", rows=1, columns=6, labelled=(True, False))
    document, motion = GLTF2().load(str(tmp_path / "sample.glb")), names["motion"]
    (animation,) = document.animations
    assert animation.name == "sample"
    assert len(document.skins[0].joints) == len(motion.rest) == 16
    assert len(animation.channels) == 2 * 16
    seconds = document.accessors[animation.samplers[0].input]
    assert seconds.count == 8
    np.testing.assert_allclose(seconds.max, motion.seconds[-1:], rtol=1e-6)
    assert float(re.search(r"move by up to ([\d.]+)", said)[1]) > 0


@pytest.mark.slow
def test_two_devices_lose_what_one_loses(tmp_path):
    """In a process of its own: jax is asked for its devices once."""
    (path,) = (path for path in SCRIPTS if path.name.startswith("07"))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, str(path), f"--out={tmp_path}", "--tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    apart = float(re.search(r"6 steps, losses at most (\S+) of their size apart", done.stdout)[1])
    assert apart < 5e-3  # rounding, over six steps of Adam
    picture = np.asarray(Image.open(tmp_path / "devices.png").convert("RGB"))
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 10


def test_every_script_is_listed_and_short():
    page = (ROOT / "examples/README.md").read_text()
    assert len(SCRIPTS) == 7
    for path in SCRIPTS:
        assert f"python examples/{path.name}" in page
        assert f"    python examples/{path.name}" in path.read_text()
        assert 20 <= len(path.read_text().splitlines()) <= 60, path.name
    for path in (ROOT / "examples").glob("*.ipynb"):
        assert f"({path.name})" in page
