"""Masks mean the same, whatever program wrote them, and whoever reads them."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image
from support.recordings import disc_frames, draw_disc, write_authors, write_cameras, write_video

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.assembly import assemble
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.data.sources import load
from dimo_jax.io.masks import open_mask, read_covers
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.masks import given

FRONT = [{"name": "front", "azimuth_deg": 0, "fov_deg": 33.9}]
DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
HARD = np.stack([draw_disc(time)[1] > 0.5 for time in (0, 1)])
SOFT = np.stack([np.round(255 * draw_disc(time)[1]) for time in (0, 1)]).astype(np.uint8)


def palette(indices, colors):
    """An image of palette indices [H,W] and colours, r, g, b of each."""
    image = Image.new("P", indices.shape[::-1])
    image.frombytes(np.ascontiguousarray(indices, np.uint8).tobytes())
    image.putpalette(colors)
    return image


def objects(mask):
    """A mask in which its left and its right half are two objects, 1 and 2."""
    columns = np.arange(mask.shape[1])
    return np.where(mask, 1 + (columns > mask.shape[1] / 2), 0)


def rgba(mask, *, color=(200, 40, 60)):
    return np.dstack([np.full((*mask.shape, 3), color, np.uint8), mask])


HARD_KINDS = {
    "0 and 1": lambda m: Image.fromarray(m.astype(np.uint8)),
    "0 and 255": lambda m: Image.fromarray(m.astype(np.uint8) * 255),
    "0 and 128": lambda m: Image.fromarray(m.astype(np.uint8) * 128),
    "numbers of objects": lambda m: Image.fromarray(objects(m).astype(np.uint8)),
    "1 bit": lambda m: Image.fromarray(m),
    "palette of DAVIS": lambda m: palette(m, DAVIS),
    "palette of two objects": lambda m: palette(objects(m), DAVIS),
    "palette on purple": lambda m: palette(m, [68, 1, 84, 253, 231, 37]),
    "palette of two greys": lambda m: palette(m, [0, 0, 0, 100, 100, 100]),
    "palette that begins with white": lambda m: palette(~m, [255, 255, 255, 0, 0, 0]),
    "grey palette": lambda m: palette(m * 255, np.repeat(np.arange(256), 3).tolist()),
    "colours of objects": lambda m: palette(objects(m), DAVIS).convert("RGB"),
    "16 bits of 0 and 1": lambda m: Image.fromarray(m.astype(np.uint16)),
    "16 bits": lambda m: Image.fromarray(m.astype(np.uint16) * 65535),
    "32 bits of 0 and 1": lambda m: Image.fromarray(m.astype(np.int32)),
    "alpha of 0 and 1": lambda m: Image.fromarray(rgba(m.astype(np.uint8))),
    "alpha": lambda m: Image.fromarray(rgba(m.astype(np.uint8) * 255, color=(0, 0, 0))),
    "white with alpha that says nothing": lambda m: Image.fromarray(
        np.dstack([*[m.astype(np.uint8) * 255] * 3, np.zeros(m.shape, np.uint8)])
    ),
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(kind, "tif" if kind.startswith("32") else "png") for kind in HARD_KINDS]
    + [(kind, "tif") for kind in ("0 and 1", "1 bit", "16 bits of 0 and 1", "alpha of 0 and 1")],
)
def test_every_kind_of_hard_mask_is_all_of_the_object(tmp_path, kind, suffix):
    for index, mask in enumerate(HARD):
        HARD_KINDS[kind](mask).save(tmp_path / f"{index}.{suffix}")
    covers = np.stack(list(read_covers(open_mask(tmp_path))))
    np.testing.assert_array_equal(covers, HARD * np.uint8(255))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16, np.int32, np.int64, np.float16, np.float64])
def test_arrays_of_every_kind_of_number(tmp_path, dtype):
    for index, mask in enumerate(HARD):
        np.save(tmp_path / f"{index}.npy", mask.astype(dtype)[..., None])
    np.testing.assert_array_equal(np.stack(list(read_covers(open_mask(tmp_path)))), HARD * np.uint8(255))


def test_soft_masks_keep_their_edges(tmp_path):
    kinds = {
        "grey": lambda m: Image.fromarray(m),
        "colour": lambda m: Image.fromarray(m).convert("RGB"),
        "palette": lambda m: palette(m, np.repeat(np.arange(256), 3).tolist()),
        "alpha": lambda m: Image.fromarray(rgba(m)),
        "deep": lambda m: Image.fromarray(m.astype(np.uint16) * 257),
    }
    for name, make in kinds.items():
        for index, mask in enumerate(SOFT):
            (tmp_path / name).mkdir(exist_ok=True)
            make(mask).save(tmp_path / name / f"{index}.png")
        np.testing.assert_array_equal(np.stack(list(read_covers(open_mask(tmp_path / name)))), SOFT, err_msg=name)


def test_a_faint_edge_is_not_an_object_because_the_rest_has_left(tmp_path):
    """A picture in which nothing is above 1, among others with white, is read as they are."""
    Image.fromarray(SOFT[0]).save(tmp_path / "0.png")
    Image.fromarray((SOFT[0] > 0).astype(np.uint8)).save(tmp_path / "1.png")
    assert [cover.max() for cover in read_covers(open_mask(tmp_path))] == [255, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.array([[0, -1]]), "has the number -1"), (np.array([[0.5, np.nan]]), "not finite")],
)
def test_numbers_of_no_mask_are_refused(tmp_path, values, message):
    np.save(tmp_path / "0.npy", values)
    with pytest.raises(UserError, match=rf"0\.npy: has .*{message[4:]}|{message}"):
        list(read_covers(open_mask(tmp_path)))


@pytest.mark.parametrize("seed", range(8))
def test_damaged_masks_end_in_one_line_or_in_masks(tmp_path, seed):
    rng = np.random.default_rng(seed)
    np.save(tmp_path / "0.npy", HARD[0])
    whole = (tmp_path / "0.npy").read_bytes()
    images = [Image.fromarray(mask) for mask in SOFT]
    images[0].save(tmp_path / "whole.gif", save_all=True, append_images=images[1:], duration=100)
    animation = (tmp_path / "whole.gif").read_bytes()
    for _ in range(20):
        for data, path in ((whole, tmp_path / "arrays/0.npy"), (animation, tmp_path / "a.gif")):
            path.parent.mkdir(exist_ok=True)
            changed = bytearray(data)
            for place in rng.integers(6, min(len(data), 400), rng.integers(1, 4)):
                changed[place] = rng.integers(256)
            path.write_bytes(changed[: rng.integers(len(data) // 2, 2 * len(data))])
            clip_path = path.parent if path.suffix == ".npy" else path
            with contextlib.suppress(UserError):
                clip = open_mask(clip_path)
                clip.read_clock()
                assert all(cover.dtype == np.uint8 for cover in read_covers(clip))


def write_labels(folder, masks, *, suffix="png", name="{}"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        path = folder / f"{name.format(index)}.{suffix}"
        np.save(path, mask) if suffix == "npy" else palette(mask, DAVIS).save(path)


def test_every_reader_of_masks_takes_labels_for_masks(tmp_path):
    folder = write_cameras(tmp_path / "set", FRONT, frame_rate=8)
    write_video(folder / "walk/front.mp4", disc_frames(2))
    write_labels(folder / "walk/front_mask", HARD)
    alphas = {"a folder of pictures": assemble(describe_videos(folder)).frames[0, 0, ..., 3]}
    write_labels(folder / "walk/labels", HARD.astype(np.int64), suffix="npy")
    table = json.loads((folder / "cameras.json").read_text())
    table["motions"] = [{"name": "walk", "masks": {"front": "walk/labels"}}]
    (folder / "cameras.json").write_text(json.dumps(table))
    alphas["a folder of arrays"] = assemble(describe_videos(folder)).frames[0, 0, ..., 3]
    beside = write_cameras(tmp_path / "beside", FRONT, frame_rate=8)
    for index, frame in enumerate(disc_frames(2)):
        (beside / "walk/front").mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(beside / f"walk/front/{index}.png")
    write_labels(beside / "walk/front", HARD, name="{}_mask")
    alphas["beside the pictures"] = assemble(describe_videos(beside)).frames[0, 0, ..., 3]
    authors = write_authors(tmp_path / "authors", motions=("walk",), views=1, frames=2, masks=False)
    write_labels(authors / "walk/view_00", HARD.astype(np.int64), suffix="npy", name="{:02d}_mask")
    alphas["the authors' layout"] = load({"path": str(authors)}).frames[0, 0, ..., 3]
    write_labels(tmp_path / "masks/walk", HARD)
    alphas["distillation"] = given(disc_frames(2), item="walk", folder=str(tmp_path / "masks"))[..., 3]
    for name, alpha in alphas.items():
        np.testing.assert_array_equal(alpha, HARD * np.uint8(255), err_msg=name)
    with pytest.raises(Failure, match="2 masks, expected 3"):
        given(disc_frames(3), item="walk", folder=str(tmp_path / "masks"))


def write_masked(folder, masks):
    folder = write_cameras(folder, FRONT)
    write_video(folder / "walk/front.mp4", disc_frames(len(masks)))
    (folder / "walk/front_mask").mkdir()
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"walk/front_mask/{index}.png")
    return folder


def test_an_object_that_vanishes_is_said(tmp_path):
    nothing, everything = np.zeros((2, 32, 32), np.uint8), np.full((2, 32, 32), 255, np.uint8)
    notes = []
    for name, masks, message in (
        ("none", nothing, "front_mask: nothing is left of any of 2 frames"),
        ("all", everything, "front_mask: the object fills all of 2 frames"),
    ):
        folder = write_masked(tmp_path / name, masks)
        with pytest.raises(UserError, match=message):
            assemble(describe_videos(folder))
        assert any(message in problem for problem in inspect_folder(folder).problems)
    tiny = nothing.copy()
    tiny[1, 5, 5] = 255
    assemble(describe_videos(write_masked(tmp_path / "tiny", tiny)), report=notes.append)
    assemble(describe_videos(write_masked(tmp_path / "over", 255 - SOFT)), report=notes.append)
    half = np.stack([SOFT[0], nothing[0]])
    assemble(describe_videos(write_masked(tmp_path / "half", half)), report=notes.append)
    assert ["the object is at most 0.10%" in notes[0], "wrong way round?" in notes[1]] == [True, True]
    assert "nothing to see in 1 of 2 frames" in notes[2]
    assert len(notes) == 3
