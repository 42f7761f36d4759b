"""Damaged files of every kind end in success or one line; and the harness that says so finds what does not."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.fuzz import data_seeds
from bench.fuzz.cases import Reader, find_seeds, make_case
from bench.fuzz.containers import MUTATORS, mutate_file, mutate_glb, mutate_png, mutate_zip
from bench.fuzz.mutators import VALUES, find_parent, find_places
from bench.fuzz.readers import describe
from dimo_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(*command, timeout):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | VARIABLES, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_every_reader_ends_damaged_files_in_success_or_one_line(tmp_path):
    out = tmp_path / "found.json"
    done = run("-m", "bench.fuzz", "--cases=25", "--seconds=45", "--seed=7", f"--out={out}", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads(out.read_text())["readers"]
    assert min(row["inputs"] for row in table.values()) >= 1
    assert sum(row["inputs"] for row in table.values()) >= 150
    assert sum(row["refused"] for row in table.values()) >= 50
    assert sum(row["accepted"] for row in table.values()) >= 20


def test_the_harness_finds_what_no_reader_may_do(tmp_path):
    done = run(str(ROOT / "tests/bench/faulty_readers.py"), str(tmp_path), timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "refuse": [2, 0, 2],
        "write": [2, 2, 0],
        "refuse_many": [2, 0, 0, "message"],
        "refuse_nameless": [2, 0, 0, "message"],
        "crash": [2, 0, 0, "ValueError"],
        "hang": [2, 0, 0, "hang"],
        "eat": [2, 0, 0, "memory"],
        "die": [2, 0, 0, "death by 7"],
        "warn": [2, 0, 0, "warning"],
        "litter": [2, 0, 0, "leftover"],
        "write_half": [2, 0, 0, "leftover"],
        "change_source": [2, 0, 0, "leftover"],
    }


def png():
    result = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(result, "PNG")
    return result.getvalue()


def npz():
    result = io.BytesIO()
    np.savez(result, a=np.arange(6.0), b=np.zeros((2, 3), np.float32))
    return result.getvalue()


SOUND = {
    ".glb": (ROOT / "tests/support/models/worm.glb").read_bytes,
    ".png": png,
    ".npz": npz,
    ".json": lambda: b'{"views": [{"name": "a", "focal": [1.5, 2]}], "count": 3}',
    ".ply": (ROOT / "tests/third_party/authors_model/point_cloud.ply").read_bytes,
    ".pth": (ROOT / "tests/third_party/authors_model/timenet.pth").read_bytes,
}


@pytest.mark.parametrize("suffix", [*MUTATORS, ".mp4"])
@pytest.mark.parametrize("sound", [*SOUND, "empty"])
def test_anything_can_be_damaged_and_nearly_always_is(suffix, sound):
    data = SOUND[sound]() if sound in SOUND else b""
    changed = [mutate_file(f"x{suffix}", data, random.Random(number))[0] != data for number in range(60)]
    assert sum(changed) > 45


def test_the_same_case_is_the_same_input(tmp_path):
    def write(folder):
        (folder / "one").mkdir()
        (folder / "one" / "a.json").write_bytes(SOUND[".json"]())
        (folder / "one" / "b.png").write_bytes(png())

    (tmp_path / "seeds").mkdir()
    write(tmp_path / "seeds")
    reader = Reader("name", lambda source, out: None, write, entry="*.json")
    seeds = find_seeds(reader, tmp_path / "seeds")

    def content(name, seed, number):
        source, what = make_case(reader, seeds, seed, number, tmp_path / name)
        assert source == tmp_path / name / "one" / "a.json" or source == tmp_path / name / "a.json"
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return what, [(path.name, path.read_bytes()) for path in files]

    assert content("first", 3, 5) == content("again", 3, 5)
    assert len({str(content(f"case{number}", 3, number)) for number in range(20)}) > 15


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_value_at_any_place_of_an_index_ends_in_a_traceback(tmp_path):
    data_seeds.write_indexed(tmp_path)
    said, accepted = [], 0
    for name in ("masks", "native", "mixed"):  # the three layouts; what else lies there are the same ones
        (path,) = (tmp_path / name).glob("*.json")
        text = path.read_text()
        for number, place in enumerate(find_places(json.loads(text))):
            for value in VALUES[number % 3 :: 3] if len(place) > 3 else VALUES:
                tree = json.loads(text)
                find_parent(tree, place)[place[-1]] = value
                path.write_text(json.dumps(tree))
                try:
                    describe(path, tmp_path / "out")
                    accepted += 1
                except UserError as error:
                    said.append(str(error))
    assert len(said) > 2000
    assert accepted > 200
    assert all(str(tmp_path) in line and "\n" not in line and len(line) < 1000 for line in said)


def test_damage_inside_of_a_container_keeps_its_lengths_and_checksums():
    reached = {"glb": 0, "zip": 0, "png": 0}
    for number in range(100):
        rng = random.Random(number)
        glb = mutate_glb(SOUND[".glb"](), rng)[0]
        size = struct.unpack_from("<I", glb, 12)[0]
        reached["glb"] += struct.unpack_from("<I", glb, 8)[0] == len(glb) and glb[16:20] == b"JSON" and size % 4 == 0
        picture = mutate_png(png(), rng)[0]
        length = struct.unpack_from(">I", picture + b"\0" * 16, 8)[0]
        header, checksum = picture[12 : 16 + length], picture[16 + length : 20 + length]
        reached["png"] += checksum == struct.pack(">I", zlib.crc32(header))
        try:
            with zipfile.ZipFile(io.BytesIO(mutate_zip(npz(), rng)[0])) as archive:
                reached["zip"] += archive.testzip() is None
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError):
            pass
    assert reached["glb"] == 100
    assert min(reached.values()) > 60
