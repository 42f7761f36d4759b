"""The import app: what it writes and says, and that bad input writes nothing."""

import inspect
import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from dimo_jax.apps.import_data import import_model, import_model_file, import_videos, run
from dimo_jax.cameras.upright import CHOICES as UP
from dimo_jax.cli.parameters import read_app
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.native import read_dataset
from dimo_jax.io.matte import HOW
from dimo_jax.views.dataset_check import check_dataset

SMALL = {"num_frames": 3, "size": 16, "azimuths": "0, 75", "test_azimuths": "130", "num_workers": 1}


@pytest.fixture
def model(tmp_path):
    (tmp_path / "in").mkdir()
    return _write_model(tmp_path / "in/walker.glb")


def _write_model(path):
    """One triangle that a clip of one second moves along x, written with struct and json."""
    data = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 0], [1, 0, 0]], "<f4").tobytes()
    data += np.array([0, 1], "<f4").tobytes()
    content = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 68}],
        "bufferViews": [{"buffer": 0, "byteLength": 68}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 0, "byteOffset": 36, "componentType": 5126, "count": 2, "type": "VEC3"},
            {"bufferView": 0, "byteOffset": 60, "componentType": 5126, "count": 2, "type": "SCALAR"},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"name": "sail", "mesh": 0}],
        "animations": [
            {
                "name": "Walking_A",
                "samplers": [{"input": 2, "output": 1}],
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}],
            }
        ],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def test_writes_a_dataset_that_reads_back(model, tmp_path, capsys):
    out = tmp_path / "deep/out"
    run(source=str(model), out=str(out), **SMALL)
    dataset = read_dataset(out)
    assert dataset.frames.shape == (1, 3, 3, 16, 16, 4)
    assert (dataset.names, dataset.captions) == (("Walking_A",), ("walking a",))
    assert dataset.view_splits == ("train", "train", "test")
    assert dataset.surface.shape == (1, 3, 8192, 3)
    step = dataset.surface[0, 1:] - dataset.surface[0, :-1]
    np.testing.assert_allclose(step / dataset.height, np.full((2, 8192, 3), [0.25, 0, 0]), atol=1e-5)
    assert np.asarray(dataset.frames)[..., 3].any()
    assert os.listdir(out.parent) == ["out"]
    said = capsys.readouterr().out
    assert "1 clips" in said
    assert f"--config.data.path={out}" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": ""}, "--source: not given, expected --source=..."),
        ({"source": "absent.glb"}, "absent.glb: no such file"),
        ({"source": "in"}, "in: no such file or folder"),
        ({"source": str(Path(__file__))}, r"test_import_data\.py: a file that is no glTF model, expected \.glb"),
        ({"source": os.curdir}, "found none of dataset.json, cameras.json, info.json"),
        ({"matte": "key"}, "--matte: found a flag that a glTF model does not take"),
        ({"check": "absent"}, "--source: found a flag that a check does not take, expected some of --out"),
        ({"clips": "Jump*"}, r"clips='Jump\*' matches no clip, expected some of: Walking_A"),
        ({"test_clips": "Run"}, "clips='Run' matches no clip"),
        ({"hide": "sword"}, "hide='sword' matches no node; nodes with a mesh: sail"),
        ({"azimuths": "0,north"}, "azimuths: found '0,north', expected numbers"),
        ({"azimuths": ""}, "azimuths_deg: found"),
        ({"num_frames": 1}, "num_frames: found 1"),
        ({"num_workers": -1}, "num_workers: found"),
        ({"root_motion": "drop"}, "root_motion: found 'drop'"),
    ],
)
def test_bad_options_write_nothing(model, tmp_path, options, message):
    with pytest.raises(UserError, match=message) as caught:
        run(**{"source": str(model), "out": str(tmp_path / "out"), **SMALL, **options})
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_a_model_without_animation_writes_nothing(model, tmp_path):
    model.write_bytes(model.read_bytes().replace(b'"animations"', b'"animation_"'))
    with pytest.raises(UserError, match=r"walker\.glb: no animation found, expected at least one clip"):
        run(source=str(model), out=str(tmp_path / "out"), **SMALL)
    assert os.listdir(tmp_path) == ["in"]


def test_what_is_there_is_not_overwritten(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    run(source=str(model), out=str(out), **SMALL)  # an empty folder is as good as none
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(UserError, match="exists and is not an empty folder, expected a new one"):
        run(source=str(model), out=str(out), **SMALL)
    assert sorted(path.name for path in out.rglob("*")) == before
    with pytest.raises(UserError, match=r"--out=.*walker\.glb: found a file, expected a folder"):
        run(source=str(model), out=str(model), **SMALL)


def test_a_model_is_known_by_its_content_too(model, tmp_path):
    run(source=str(model.rename(model.with_suffix(".vrm"))), out=str(tmp_path / "out"), **SMALL)
    assert read_dataset(tmp_path / "out").names == ("Walking_A",)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out=.*file/out: found a file at .*/file, expected a folder"):
        run(source=str(tmp_path / "absent"), out=str(tmp_path / "file/out"))


def test_a_failure_while_writing_leaves_no_dataset_and_the_next_call_ends_it(model, tmp_path, monkeypatch):
    def fail(folder, dataset):
        (folder / "dataset.json").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("dimo_jax.data.formats.rigged.folder.write_index", fail)
    with pytest.raises(UserError, match=r"out: cannot be written \(disk full\); the same command goes on"):
        run(source=str(model), out=str(tmp_path / "out"), **SMALL)
    assert sorted(os.listdir(tmp_path)) == [".out-import", "in"]
    monkeypatch.undo()
    run(source=str(model), out=str(tmp_path / "out"), **SMALL)
    assert read_dataset(tmp_path / "out").num_frames == 3
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


READERS = (import_model_file, import_videos.import_videos, import_videos.import_sv4d, import_videos.import_authors)


def test_every_option_of_an_import_is_a_flag():
    flags = read_app("import_data").parameters
    for reader in (*READERS, import_model, check_dataset):
        options = {*inspect.signature(reader).parameters} - {"target", "folder"}
        assert options <= {*flags}, reader.__name__
    assert flags["matte"].choices == HOW
    assert flags["up"].choices == UP


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_help_tells_the_defaults_of_the_readers(reader):
    """Whose options are None in `run`, as each kind of data has its own."""
    flags = read_app("import_data").parameters
    for name, option in inspect.signature(reader).parameters.items():
        if (isinstance(option.default, str | float | int) and option.default not in ("", 0)) or option.default is False:
            told = flags[name].doc.partition("default: ")[2]
            assert re.search(rf"\b{str(option.default).lower().removesuffix('.0')}\b", told), name
