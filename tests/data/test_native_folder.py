"""The native folder: an exact round trip, and one clear line for every way it can be wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.sources import load


def make(truth: bool = True) -> Dataset:
    rng = np.random.default_rng(0)
    surface = rng.normal(size=(2, 3, 5, 3)).astype(np.float32)
    return Dataset(
        frames=rng.integers(0, 256, (2, 2, 3, 16, 24, 4)).astype(np.uint8),
        cameras=orbit([0.0, 77.7], [3.3, 10.1], radius=2.1, fov_deg=33.9, height=16, width=24),
        names=("walk", "run fast"),
        captions=("It walks.", "Es läuft."),
        splits=("train", "test"),
        view_names=("front", "side"),
        view_splits=("train", "test"),
        frame_rate=12.5,
        object_name="thing",
        surface=surface if truth else None,
        joints=rng.normal(size=(2, 3, 4, 3)).astype(np.float32) if truth else None,
        height=surface_height(surface) if truth else None,
        paraphrases=(("It walks.", "Walking."), ("Es läuft.", "Running.")) if truth else (),
        test_paraphrases=(("A walk.",), ()) if truth else (),
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    write_dataset(make(), tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("truth", [True, False])
def test_what_is_written_is_read_back_exactly(tmp_path, truth):
    dataset = make(truth)
    write_dataset(dataset, tmp_path / "deep" / "set")
    again = read_dataset(str(tmp_path / "deep" / "set"))
    for field in dataclasses.fields(Dataset):
        before, after = getattr(dataset, field.name), getattr(again, field.name)
        if field.name == "cameras":
            for name in ("world_to_camera", "focal", "center"):
                np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
                assert getattr(after, name).dtype == np.float32
            assert (after.height, after.width) == (16, 24)
        elif isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after, err_msg=field.name)
            assert before.dtype == after.dtype
        else:
            assert before == after, field.name
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]


def test_a_config_path_wins_over_its_source(folder):
    assert load({"path": str(folder), "source": {"fn": "no:where"}}).object_name == "thing"
    with pytest.raises(UserError, match=r"config\.data: found neither"):
        load({"path": ""})
    with pytest.raises(UserError, match="expected a Dataset"):
        load({"path": "", "source": {"fn": "os:getcwd"}})


def test_images_without_alpha_are_opaque(folder):
    for path in folder.glob("*/*/*.png"):
        Image.open(path).convert("RGB").save(path)
    again = read_dataset(folder)
    np.testing.assert_array_equal(again.frames[..., :3], make().frames[..., :3])
    assert (again.frames[..., 3] == 255).all()


def write_video(path: Path, frames: np.ndarray) -> None:
    if path.suffix == ".gif":
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=80)
        return
    codec = {".mp4": "libx264", ".webm": "libvpx-vp9"}[path.suffix]
    writer = imageio_ffmpeg.write_frames(
        str(path), (frames.shape[2], frames.shape[1]), codec=codec, quality=9, macro_block_size=1, fps=12
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_video_stands_for_a_view(folder, suffix):
    frames = np.zeros((3, 16, 24, 3), np.uint8)
    frames[0, :, :12], frames[1, :, 12:], frames[2] = 255, 255, 128
    shutil.rmtree(folder / "walk" / "front")
    write_video(folder / "walk" / f"front{suffix}", frames)
    again = read_dataset(folder)
    np.testing.assert_allclose(again.frames[0, 0, ..., :3].astype(int), frames, atol=25)
    assert (again.frames[0, 0, ..., 3] == 255).all()
    write_video(folder / "walk" / f"front{suffix}", frames[:2])
    with pytest.raises(UserError, match=rf"front\{suffix}: 2 frames, expected 3"):
        read_dataset(folder)
    write_video(folder / "walk" / f"front{suffix}", np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=rf"front\{suffix}: video of 32x32, expected 24x16"):
        read_dataset(folder)
    (folder / "walk" / f"front{suffix}").write_bytes(b"no video")
    with pytest.raises(UserError, match=rf"front\{suffix}: cannot be read"):
        read_dataset(folder)


def edit(folder: Path, change) -> None:
    table = json.loads((folder / "dataset.json").read_text())
    change(table)
    (folder / "dataset.json").write_text(json.dumps(table))


JSON_ERRORS = {
    "no version": (lambda t: t.pop("schema_version"), "key 'schema_version' is missing"),
    "version": (lambda t: t.update(schema_version=7), "schema_version is 7, expected 1"),
    "no views": (lambda t: t.update(views=[]), "views is empty"),
    "no motions": (lambda t: t.update(motions=[]), "motions is empty"),
    "motions no list": (lambda t: t.update(motions={}), "motions is '{}', expected list"),
    "view no object": (lambda t: t["views"].append(3), r"views\[2\]: found int, expected an object"),
    "width": (lambda t: t["image"].update(width=10**6), "width is 1000000, expected 1 to 8192"),
    "rate": (lambda t: t.update(frame_rate=0), "frame_rate is 0.0"),
    "no caption": (lambda t: t["motions"][0].pop("caption"), "motion walk: key 'caption' is missing"),
    "split": (lambda t: t["motions"][1].update(split="val"), "motion run fast: split is 'val'"),
    "frames differ": (lambda t: t["motions"][1].update(num_frames=4), "num_frames is 4, expected 3 as in motion walk"),
    "view count": (lambda t: t["motions"][1].update(num_views=3), "num_views is 3, expected 2"),
    "paraphrases": (lambda t: t["motions"][0].update(paraphrases=[1]), "paraphrases has values that are no strings"),
    "test words": (lambda t: t["motions"][1].update(test_paraphrases="x"), "test_paraphrases is 'x', expected list"),
    "no camera": (lambda t: t["views"][1].pop("world_to_camera"), "view side: key 'world_to_camera' is missing"),
    "camera shape": (lambda t: t["views"][0].update(world_to_camera=[[1, 0], [0, 1]]), r"has shape \[2, 2\]"),
    "camera ragged": (lambda t: t["views"][0].update(world_to_camera=[[1], [0, 1]]), "not an array of numbers"),
    "camera nan": (lambda t: t["views"][0]["world_to_camera"][0].__setitem__(3, float("nan")), "not finite"),
    "camera scaled": (lambda t: t["views"][0]["world_to_camera"].__setitem__(0, [2, 0, 0, 0]), "not rigid"),
    "camera row": (lambda t: t["views"][0]["world_to_camera"].__setitem__(3, [0, 0, 1, 1]), "not rigid"),
    "focal": (lambda t: t["views"][0].update(focal=[-5, 5]), "focal is .* expected positive"),
    "twice": (lambda t: t["motions"][1].update(name="walk"), "motion name 'walk' occurs twice"),
    "view twice": (lambda t: t["views"][1].update(name="front"), "view name 'front' occurs twice"),
    "parent": (lambda t: t["motions"][0].update(name="../walk"), "no plain folder name"),
    "dots": (lambda t: t["views"][0].update(name=".."), "no plain folder name"),
    "absolute": (lambda t: t["motions"][0].update(name="/etc"), "no plain folder name"),
    "backslash": (lambda t: t["motions"][0].update(name="a\\b"), "no plain folder name"),
    "empty name": (lambda t: t["motions"][0].update(name=""), "no plain folder name"),
    "many frames": (lambda t: [m.update(num_frames=10**6) for m in t["motions"]], "3 numbered PNGs, expected 1000000"),
}


@pytest.mark.parametrize("case", JSON_ERRORS)
def test_a_wrong_field_is_named_in_one_line(folder, case):
    change, message = JSON_ERRORS[case]
    edit(folder, change)
    with pytest.raises(UserError, match=message) as error:
        read_dataset(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def save_truth(folder: Path, **arrays: np.ndarray) -> None:
    np.savez(folder / "walk" / "truth.npz", **arrays)


FILE_ERRORS = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no json": (lambda f: (f / "dataset.json").unlink(), r"found no dataset\.json"),
    "broken json": (lambda f: (f / "dataset.json").write_text("{\n'a'"), "not valid JSON"),
    "binary json": (lambda f: (f / "dataset.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "deep json": (lambda f: (f / "dataset.json").write_text("[" * 100000), "not valid JSON"),
    "list json": (lambda f: (f / "dataset.json").write_text("[]"), "found list, expected an object"),
    "no motion": (lambda f: shutil.rmtree(f / "walk"), "expected the views of motion 'walk'"),
    "no view": (lambda f: shutil.rmtree(f / "walk" / "side"), r"walk/side: no such folder.*side\.mp4"),
    "frame gone": (
        lambda f: (f / "walk/side/00001.png").unlink(), r"2 numbered PNGs, expected 3.*00001\.png is missing",
    ),
    "frame extra": (
        lambda f: shutil.copy(f / "walk/side/00001.png", f / "walk/side/00003.png"), "4 numbered PNGs, expected 3",
    ),
    "unreadable": (lambda f: (f / "walk/side/00001.png").write_bytes(b"junk"), r"side/00001\.png: cannot be read"),
    "truncated": (
        lambda f: (f / "walk/side/00001.png").write_bytes((f / "walk/side/00001.png").read_bytes()[:200]),
        r"side/00001\.png: cannot be read .*expected an image",
    ),
    "size": (
        lambda f: Image.new("RGBA", (24, 17)).save(f / "run fast/side/00002.png"),
        r"00002\.png: image of 24x17, expected 24x16",
    ),
    "bomb": (
        lambda f: (f / "walk/front/00000.png").write_bytes(png_header(60000, 60000)), r"00000\.png: ",
    ),
    "large": (
        lambda f: (f / "walk/front/00000.png").write_bytes(png_header(10000, 10000)),
        r"00000\.png: image of 10000x10000, expected 24x16",
    ),
    "16 bits": (
        lambda f: Image.fromarray(np.zeros((16, 24), np.uint16)).save(f / "walk/front/00000.png"),
        "image mode I;16, expected 8-bit",
    ),
    "truth junk": (lambda f: (f / "walk" / "truth.npz").write_bytes(b"junk"), r"truth\.npz: cannot be read as \.npz"),
    "truth pickled": (lambda f: save_truth(f, surface=np.asarray([{}], object)), r"cannot be read as \.npz"),
    "truth shape": (lambda f: save_truth(f, surface=np.zeros((2, 5, 3))), r"surface is float64 \[2, 5, 3\]"),
    "truth nan": (lambda f: save_truth(f, surface=np.full((3, 5, 3), np.nan)), "not finite"),
    "truth differs": (
        lambda f: save_truth(f, surface=np.zeros((3, 4, 3)), joints=np.zeros((3, 4, 3))), r"surface is \(3, 5, 3\)",
    ),
    "truth of some": (lambda f: (f / "walk" / "truth.npz").unlink(), "surface is .*, expected None"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILE_ERRORS)
def test_a_wrong_file_is_named_in_one_line(folder, case):
    change, message = FILE_ERRORS[case]
    change(folder)
    with pytest.raises(UserError, match=message) as error:
        read_dataset(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(UserError, match="the folder is empty"):
        read_dataset(tmp_path)


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    with pytest.raises(UserError, match="not empty"):
        write_dataset(make(), folder)
    other = dataclasses.replace(make(), object_name="other")
    write_dataset(other, folder, overwrite=True)
    assert read_dataset(folder).object_name == "other"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="expected an existing dataset to replace"):
        write_dataset(make(), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file of that name exists"):
        write_dataset(make(), tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "set"]


def test_a_failed_write_leaves_the_old_dataset_and_nothing_else(folder, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(UserError, match="cannot be written"):
            write_dataset(dataclasses.replace(make(), object_name="other"), folder, overwrite=True)
    assert read_dataset(folder).object_name == "thing"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["../up", "a/b", "walk", ""])
def test_names_that_are_no_folders_are_not_written(tmp_path, name):
    with pytest.raises(UserError, match=r"no plain folder name|occurs twice"):
        write_dataset(dataclasses.replace(make(), names=("walk", name)), tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_parts_that_disagree_are_the_programs_mistake():
    changes = {
        "names": ("walk",),
        "splits": ("train", "val"),
        "view_names": ("front",),
        "frames": make().frames[:, :, :, :8],
        "joints": np.zeros((2, 4, 4, 3), np.float32),
    }
    for name, value in changes.items():
        with pytest.raises(ValueError, match=r"names|splits|cameras|joints"):
            dataclasses.replace(make(), **{name: value})
