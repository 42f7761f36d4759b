"""Malformed data of every kind but glTF: one clear line, exit code 2, no code run, nothing left behind.

Each case runs launch.py in a fork of one process that has imported jax already (`tests/apps/launch_server.py`).
"""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.recordings import disc_frames, write_authors, write_cameras, write_sv4d, write_video

from dimo_jax.data.formats.native import write_dataset
from dimo_jax.data.sources import load

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
OFFICIAL, SMOKE = (f"--config={ROOT}/configs/dimo.py:{preset}" for preset in ("official", "smoke"))
MODEL = ROOT / "tests/third_party/authors_model"


@pytest.fixture(scope="module")
def launch():
    """Runs launch.py in a folder; gives its exit code and what it wrote to standard error."""
    command = [sys.executable, str(ROOT / "tests/apps/launch_server.py")]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | VARIABLES
    )

    def run(arguments, folder):
        out, err = (folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr"))
        job = {"arguments": arguments, "folder": str(folder), "variables": VARIABLES, "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), err.read_text()

    yield run
    server.stdin.close()
    assert server.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One folder of every kind, not to be changed."""
    root = tmp_path_factory.mktemp("good")
    write_authors(root / "authors", frames=2, num_frames=2)
    write_dataset(load({"path": str(root / "authors")}), root / "native")
    write_sv4d(root / "sv4d", frames=2)
    views = [{"name": name, "azimuth_deg": 0, "fov_deg": 40} for name in ("front", "side")]
    write_cameras(root / "videos", views, frame_rate=10)
    write_video(root / "videos/walk/front.mp4", disc_frames(2))
    (root / "videos/walk/side").mkdir()
    for index, frame in enumerate(disc_frames(2)):
        Image.fromarray(frame).save(root / f"videos/walk/side/{index:03d}.png")
    shutil.copytree(MODEL, root / "model")
    return root


def edit(name, change):
    """A change of a JSON file."""

    def apply(folder):
        table = json.loads((folder / name).read_text())
        change(table)
        (folder / name).write_text(json.dumps(table))

    return apply


def cut(name):
    """Leaves half of a file."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def png(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def link_out(folder):
    (folder / "walk/front.mp4").rename(folder.parent / "front.mp4")
    edit("cameras.json", lambda t: t.update(motions=[{"name": "walk", "clips": {"front": "out.mp4"}}]))(folder)
    (folder / "out.mp4").symlink_to(folder.parent / "front.mp4")


class Malicious:
    """Makes the folder CODE_RAN when an ordinary unpickler loads it."""

    def __reduce__(self):
        return os.mkdir, ("CODE_RAN",)


def pickled_mask(folder):
    np.save(folder / "walk/view_00/00_mask.npy", np.array([Malicious()], dtype=object), allow_pickle=True)


def huge_mask(folder):
    path = folder / "walk/view_00/00_mask.npy"
    path.write_bytes(path.read_bytes().replace(b"(32, 32, 1)", b"(9999,9999)"))


def hostile_weights(folder):
    (folder / "timenet.pth").write_bytes(pickle.dumps(Malicious(), 2))


def not_finite(folder):
    with zipfile.ZipFile(folder / "timenet.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "timenet.pth", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, b"\xff" * len(data) if name.endswith("/data/0") else data)


NAN_POSE = [[float("nan"), 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(CODE_RAN) (w) file closefile\n"
PLAYLIST = b"ffconcat version 1.0\nfile '/etc/hostname'\n"
CHECK, TRAIN, IMPORT = "check", "train", "import"
CASES = {
    "native, unknown schema": (
        "native", CHECK, edit("dataset.json", lambda t: t.update(schema_version=9)), "expected 1",
    ),
    "native, NaN matrix": (
        "native", CHECK, edit("dataset.json", lambda t: t["views"][0].update(world_to_camera=NAN_POSE)), "not finite",
    ),
    "native, path in a name": (
        "native", CHECK, edit("dataset.json", lambda t: t["motions"][0].update(name="../walk")), "no plain folder name",
    ),
    "native, two cameras of one name": (
        "native", CHECK, edit("dataset.json", lambda t: t["views"][1].update(name="view_00")), "occurs twice",
    ),
    "native, truncated image": ("native", TRAIN, cut("walk/view_00/00001.png"), "00001.png: cannot be read"),
    "native, decompression bomb": ("native", TRAIN, write("walk/view_00/00000.png", png(60000, 60000)), "00000.png: "),
    "native, mixed sizes": (
        "native", TRAIN, write("walk/view_00/00000.png", png(31, 32)), "image of 31x32, expected 32x32",
    ),
    "native, caption of nothing": ("native", TRAIN, write("captions.txt", b"run: x\n"), "names motion 'run'"),
    "authors, a mask missing": (
        "authors", IMPORT, lambda f: (f / "walk/view_01/01_mask.npy").unlink(), "01_mask.npy: no such file",
    ),
    "authors, a frame missing": (
        "authors", IMPORT, lambda f: (f / "walk/view_01/01.png").unlink(), "view_01: 1 images, expected 2",
    ),
    "authors, a view missing": ("authors", IMPORT, lambda f: shutil.rmtree(f / "jump/view_01"), "no such folder"),
    "authors, truncated image": ("authors", IMPORT, cut("walk/view_00/01.png"), "01.png: cannot be read"),
    "authors, truncated mask": ("authors", IMPORT, cut("walk/view_00/01_mask.npy"), "01_mask.npy: cannot be read"),
    "authors, image of no size": ("authors", IMPORT, write("walk/view_00/00.png", png(0, 0)), "00.png: "),
    "authors, decompression bomb": (
        "authors", IMPORT, write("walk/view_00/00.png", png(60000, 60000)), "decompression bomb",
    ),
    "authors, mixed sizes": ("authors", IMPORT, write("walk/view_00/01.png", png(31, 32)), "01.png: image of 31x32"),
    "authors, code in a mask": ("authors", IMPORT, pickled_mask, "00_mask.npy: cannot be read"),
    "authors, mask larger than its file": ("authors", IMPORT, huge_mask, "00_mask.npy: "),
    "authors, NaN azimuth": (
        "authors", IMPORT, edit("info.json", lambda t: t.update(azimuths_deg=[0, float("nan")])), "finite numbers",
    ),
    "authors, elevations too few": (
        "authors", IMPORT, edit("info.json", lambda t: t.update(elevations_deg=[0])), "1 elevations_deg, expected 2",
    ),
    "authors, path in a name": (
        "authors", IMPORT, edit("info.json", lambda t: t.update(input_videos=["../data/walk"])), "no plain folder name",
    ),
    "authors, broken JSON": ("authors", IMPORT, cut("info.json"), "info.json: not valid JSON"),
    "videos, unknown schema": (
        "videos", IMPORT, edit("cameras.json", lambda t: t.update(schema_version=2)), "expected 1",
    ),
    "videos, two cameras of one name": (
        "videos", IMPORT, edit("cameras.json", lambda t: t["views"][1].update(name="front")), "occurs twice",
    ),
    "videos, NaN matrix": (
        "videos", IMPORT,
        edit("cameras.json", lambda t: t["views"].__setitem__(0, {"name": "a", "world_to_camera": NAN_POSE})),
        "not finite",
    ),
    "videos, path out": (
        "videos", IMPORT,
        edit("cameras.json", lambda t: t.update(motions=[{"name": "walk", "clips": {"front": "../../x.mp4"}}])),
        "leaves the folder",
    ),
    "videos, link out": ("videos", IMPORT, link_out, "is a link out of the folder"),
    "videos, truncated video": ("videos", IMPORT, cut("walk/front.mp4"), "front.mp4: "),
    "videos, a playlist for a video": ("videos", IMPORT, write("walk/front.mp4", PLAYLIST), "finds no video in it"),
    "videos, a program for an image": ("videos", IMPORT, write("walk/side/000.png", POSTSCRIPT), "000.png: cannot"),
    "sv4d, a view missing": (
        "sv4d", IMPORT, lambda f: (f / "000000_v002.mp4").unlink(), "000000_v002.mp4: no such file",
    ),
    "sv4d, empty video": ("sv4d", IMPORT, write("000000_v001.mp4", b""), "000000_v001.mp4: cannot be read"),
    "model, code in the weights": ("model", IMPORT, hostile_weights, "timenet.pth: refused"),
    "model, truncated weights": ("model", IMPORT, cut("timenet.pth"), "timenet.pth: refused"),
    "model, weights that are not finite": ("model", IMPORT, not_finite, "has values that are not finite"),
    "model, truncated cloud": ("model", IMPORT, cut("point_cloud.ply"), "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_exit_code_2_and_nothing_left(launch, good, tmp_path, case):
    kind, way, change, message = CASES[case]
    data, home = tmp_path / "data", tmp_path / "home"
    shutil.copytree(good / kind, data)
    home.mkdir()
    change(data)
    before = sorted(tmp_path.rglob("*"))
    arguments = {
        CHECK: ["--app=import_data", f"--check={data}", "--out=out"],
        TRAIN: [SMOKE, f"--config.data.path={data}", "--workdir=out"],
        IMPORT: ["--app=import_data", f"--source={data}", "--out=out"],
    }[way]
    if kind == "model":
        arguments.append(OFFICIAL)
    code, err = launch(arguments, home)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    assert message in lines[0]
    left = set(tmp_path.rglob("*")) - {tmp_path / "home.stdout", tmp_path / "home.stderr"}
    assert sorted(left) == before


def test_the_folders_that_the_cases_start_from_are_good(launch, good, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for kind in ("authors", "videos", "sv4d", "model"):
        arguments = ["--app=import_data", f"--source={good / kind}", f"--out={kind}"]
        code, err = launch([*arguments, OFFICIAL] if kind == "model" else arguments, home)
        assert code == 0, err
    code, err = launch(["--app=import_data", f"--check={good / 'native'}", "--out=pictures"], home)
    assert code == 0, err
    assert sorted(path.name for path in (home / "pictures").iterdir()) == ["cameras.png", "contact_sheet.png"]
    said = (tmp_path / "home.stdout").read_text()
    assert "2 motions, 2 views (0 held out), 8 files of pictures" in said
    assert "no problems found" in said
