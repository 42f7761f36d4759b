"""Motions that a model never saw: framed as its own, or told apart from them."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.gltf_writer import moving_square

from dimo_jax.apps.import_data import run as import_data
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.sources import load
from dimo_jax.geometry.world import World
from dimo_jax.runs import unseen
from dimo_jax.runs.restore import load_data, save_facts
from dimo_jax.runs.unseen import blank_psnr, judge_start, read_unseen, training_psnr

OPTIONS = dict(num_frames=3, size=32, azimuths="0,60", test_azimuths="130", num_workers=1, samples=1)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Clips of one model, imported apart: "near" stays, "far" travels, so that each is framed anew."""
    folder = tmp_path_factory.mktemp("framing")
    writer = moving_square("far")
    writer.clip("near", 0, "rotation", [0.0, 2.0], np.array([[0, 0, 0, 1], [0, 0.6, 0, 0.8]]))
    source = str(writer.write(folder / "square.glb"))
    for name in ("near", "far"):
        import_data(source=source, out=str(folder / name), clips=name, **OPTIONS)
    import_data(source=source, out=str(folder / "asked"), clips="far", framing=str(folder / "near"), **OPTIONS)
    import_data(source=source, out=str(folder / "fits"), clips="near", framing=str(folder / "far"), **OPTIONS)
    return folder


def size_of(dataset):
    """Length of the square's diagonal in the first frame, world units."""
    return np.linalg.norm(np.ptp(dataset.surface[0, 0], axis=0))


def test_clips_imported_apart_are_framed_alike_where_that_is_asked(imported, capsys):
    near, far, asked, fits = (read_dataset(imported / name) for name in ("near", "far", "asked", "fits"))
    assert near.world.of == "model"
    assert not far.world.same_place(near.world)
    assert abs(size_of(far) / size_of(near) - 1) > 0.1
    assert asked.world.same_place(near.world)
    assert fits.world.same_place(far.world)
    # The same corner of the model, in the source's own coordinates, whatever the framing.
    np.testing.assert_allclose(asked.world.undo(asked.surface), far.world.undo(far.surface), atol=1e-5)
    source = str(imported / "square.glb")
    import_data(source=source, out=str(imported / "again"), clips="far", framing=str(imported / "near"), **OPTIONS)
    assert "reach into the margin or out of the pictures in that framing: far" in capsys.readouterr().out
    table = json.loads((imported / "near/dataset.json").read_text())
    assert table["world"]["scale"] == near.world.scale


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda table: table.pop("world"), "found no framing in its dataset.json"),
        (lambda table: table["world"].update(of="cameras"), "found a framing of cameras in its dataset.json"),
    ],
)
def test_a_folder_without_framing_is_refused(imported, tmp_path, change, found):
    table = json.loads((imported / "near/dataset.json").read_text())
    change(table)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/dataset.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=f"--framing=.*old: {found}, expected a dataset imported from a glTF model"):
        import_data(
            source=str(imported / "square.glb"), out=str(tmp_path / "out"), framing=str(tmp_path / "old"), **OPTIONS
        )
    assert not (tmp_path / "out").exists()


def facts_of(dataset, folder):
    folder.mkdir(exist_ok=True)
    save_facts(dataset, folder)
    return json.loads((folder / "facts.json").read_text())


def test_what_was_framed_apart_is_brought_to_the_runs_framing(imported, tmp_path, caplog, informed):
    near = load({"path": str(imported / "near")})
    model = SimpleNamespace(facts=facts_of(near, tmp_path / "run"))
    with caplog.at_level("INFO"):
        far = read_unseen(str(imported / "far"), model)
    assert size_of(far) == pytest.approx(size_of(near), rel=1e-3)
    assert "framed apart from the run's data, brought to its framing" in caplog.text
    # Its cameras moved along, so that the pictures still show it: the surface projects to where it did.
    for before, after in ((read_dataset(imported / "far"), far),):
        for v, (old, new) in enumerate(zip(before.cameras.world_to_camera, after.cameras.world_to_camera)):
            pixels = []
            for pose, points in ((old, before.surface[0, 1]), (new, after.surface[0, 1])):
                seen = points @ pose[:3, :3].T + pose[:3, 3]
                pixels.append(seen[:, :2] / seen[:, 2:] * before.cameras.focal[v])
            np.testing.assert_allclose(pixels[1], pixels[0], atol=1e-2)
    old = SimpleNamespace(facts={key: value for key, value in model.facts.items() if key != "world"})
    assert size_of(read_unseen(str(imported / "far"), old)) == pytest.approx(size_of(read_dataset(imported / "far")))


def test_another_kind_of_source_is_left_at_its_own_size(imported, tmp_path):
    near = load({"path": str(imported / "near")})
    model = SimpleNamespace(facts=facts_of(near, tmp_path / "run"))
    videos = dataclasses.replace(near, world=World())
    write_dataset(videos, tmp_path / "videos")
    np.testing.assert_array_equal(
        read_unseen(str(tmp_path / "videos"), model).cameras.world_to_camera, near.cameras.world_to_camera
    )


def test_a_run_keeps_the_world_that_it_was_begun_in(imported, tmp_path):
    config = {"data": {"path": str(tmp_path / "data")}}
    write_dataset(dataclasses.replace(load({"path": str(imported / "near")}), world=None), tmp_path / "data")
    small = World(0.2, np.array([1.0, 0, 0]))
    facts = facts_of(dataclasses.replace(load(config["data"]), world=small), tmp_path / "run")
    assert load_data(config, facts).world.same_place(small)
    del facts["world"]  # as runs of earlier versions have it: their data stays where it is
    raw = read_dataset(tmp_path / "data")
    again = load_data(config, facts)
    assert again.world is None
    np.testing.assert_array_equal(again.cameras.world_to_camera, raw.cameras.world_to_camera)


def start(found):
    return dict(motion="wave", started_from="walk", start={"fitted_views": {"psnr": found}})


@pytest.mark.parametrize(
    ("found", "training", "blank", "warns"),
    [
        (12.1, 27.3, 12.9, True),  # framed anew
        (13.4, 27.3, 12.9, True),  # another character
        (12.0, 30.0, 8.0, True),
        (16.6, 29.0, 13.0, False),  # motions of the same object that no other resembles
        (17.7, 29.7, 13.0, False),
        (26.8, 29.7, 13.0, False),
        (17.5, 35.2, 14.7, False),  # of a model that fits better
        (18.2, 35.2, 15.4, False),
        (13.2, None, 12.9, True),  # a model file, which does not tell of its training
        (16.0, None, 12.9, False),
    ],
)
def test_a_start_that_is_far_worse_than_training_is_said(found, training, blank, warns):
    line = judge_start(start(found), training=training, blank=blank)
    assert bool(line) == warns
    if warns:
        assert "\n" not in line
        assert f"wave: the best start (walk) fits at {found:.1f} dB" in line
        assert f"an empty picture: {blank:.1f} dB" in line
        assert "--framing=FOLDER" in line


def test_what_a_start_is_compared_with(imported, tmp_path):
    assert training_psnr(tmp_path) is None
    rows = [{"step": step, "psnr": 10.0 + step} for step in range(10)]
    (tmp_path / unseen.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_psnr(tmp_path) == pytest.approx(17.0)
    dataset = read_dataset(imported / "near")
    frames = dataset.frames.copy()
    frames[..., :3], frames[..., 3] = 0, 255
    black = dataclasses.replace(dataset, frames=frames)
    assert blank_psnr(SimpleNamespace(background=np.ones(3, np.float32)), black, 0, np.array([0, 1])) == pytest.approx(
        0
    )
