"""`--app=evaluate` on two folders: what it scores, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from dimo_jax.apps import evaluate
from dimo_jax.apps.evaluate import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.consistent4d import find_pairs, read_videos
from dimo_jax.metrics.folders import score_folders


def write_pictures(folder, pictures):
    """[V,T,H,W,C] as `folder`/eval_<v>/<t>.png."""
    for view, frames in enumerate(pictures):
        (folder / f"eval_{view}").mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"eval_{view}/{index}.png")


@pytest.fixture
def folders(tmp_path):
    """Truth and noisy prediction of two objects, two views, three frames of 32 px: too short for FVD."""
    rng = np.random.default_rng(0)
    for name in ("box", "cone"):
        truth = np.full((2, 3, 32, 32, 3), 255, np.uint8)
        truth[:, :, 8:24, 8:24] = rng.integers(0, 200, (2, 3, 16, 16, 3))
        write_pictures(tmp_path / "gt" / name, truth)
        write_pictures(
            tmp_path / "pred" / name, np.clip(truth + rng.normal(0, 9, truth.shape), 0, 255).astype(np.uint8)
        )
    (tmp_path / "pred" / "notes.txt").write_text("a file beside the objects is no object")
    return tmp_path


def test_folders_are_scored(folders, capsys):
    run(workdir="", gt=str(folders / "gt"), pred=str(folders / "pred"), out=str(folders / "out"), num_lpips_images=4)
    results = json.loads((folders / "out/evaluation.json").read_text())
    read = [[np.asarray(Image.open(folders / f"{x}/box/eval_{v}/{t}.png")) for v in (0, 1) for t in range(3)]
            for x in ("gt", "pred")]  # fmt: skip
    expected = np.mean([peak_signal_noise_ratio(a, b) for a, b in zip(*read)])
    np.testing.assert_allclose(results["objects"]["box"]["psnr"], expected, rtol=1e-4)
    average = results["average"]
    np.testing.assert_allclose(average["psnr"], np.mean([results["objects"][x]["psnr"] for x in ("box", "cone")]))
    assert average["num_images"] == 12
    assert average["num_lpips_images"] == 4
    rows = average["lpips_images"]
    assert rows == [row for name in ("box", "cone") for row in results["objects"][name]["lpips_images"]]
    assert sorted(row[0] for row in rows) == sorted(row[1] for row in rows) == [0, 0, 1, 1]  # object and view
    assert {row[2] for row in rows} == {0, 1, 2}
    assert 0.8 < average["ssim"] < 1
    assert average["lpips_vgg"] > 0
    assert average["lpips_alex"] > 0
    assert average["motion_amplitude_truth"] > 0
    assert average["fvd"] is average["clip_i"] is None
    assert "at least 9" in results["missing"]["fvd"]
    assert "--clip=FOLDER" in results["missing"]["clip_i"]
    assert "missing" in capsys.readouterr().out


def test_equal_folders_score_perfectly_and_stay_json(folders):
    options = dict(workdir="", gt=str(folders / "gt"), pred=str(folders / "gt"), out=str(folders / "out"))
    (folders / "out").mkdir()
    (folders / "out/evaluation.json").write_text("an earlier one, which stays")
    run(**options, num_lpips_images=1)
    assert (folders / "out/evaluation.json").read_text() == "an earlier one, which stays"
    text = (folders / "out/evaluation_2.json").read_text()
    average = json.loads(text, parse_constant=pytest.fail)["average"]
    assert average["psnr"] is None  # infinite, which JSON has not
    assert average["psnr_undefined"] == average["psnr_foreground_undefined"] == 12
    np.testing.assert_allclose(average["ssim"], 1, atol=1e-6)


def test_fvd_of_long_videos(tmp_path, monkeypatch):
    """The network is replaced: tests/metrics/test_fvd.py has it."""
    rng = np.random.default_rng(0)
    write_pictures(tmp_path / "gt/box", rng.integers(0, 255, (3, 9, 32, 32, 3), np.uint8))
    features = lambda videos: np.asarray(videos).mean(axis=(1, 2, 3))  # noqa: E731
    monkeypatch.setattr("dimo_jax.metrics.videos.video_features", features)
    results = score_folders(tmp_path / "gt", tmp_path / "gt", clip=None, num_lpips_images=1, num_videos=0)
    assert results["average"]["fvd"] < 1e-9
    assert results["average"]["num_fvd_videos"] == 3
    assert results["average"]["fvd_videos"] == [[0, 0, 0], [0, 1, 0], [0, 2, 0]]
    fewer = score_folders(tmp_path / "gt", tmp_path / "gt", clip=None, num_lpips_images=1, num_videos=2)
    assert fewer["average"]["num_fvd_videos"] == 2


def test_masks_come_from_alpha_or_from_white(tmp_path):
    transparent = np.zeros((1, 1, 16, 16, 4), np.uint8)
    transparent[..., 4:8, 4:8, :] = (255, 255, 255, 255)
    opaque = np.full((1, 1, 16, 16, 3), 255, np.uint8)
    opaque[..., 4:8, 4:8, :] = 9
    for name, picture in (("a", transparent), ("b", opaque)):
        write_pictures(tmp_path / "gt" / name, picture)
    a, b = find_pairs(tmp_path / "gt", tmp_path / "gt")
    rgb, mask = read_videos(a.truth)
    assert np.all(rgb == 1)
    assert mask.sum() == 16
    np.testing.assert_array_equal(read_videos(b.truth)[1], mask)


def rename(path, name):
    path.rename(path.with_name(name))


DAMAGES = {
    "no prediction": (lambda f: rename(f / "pred", "x"), "pred: no such folder"),
    "no object": (lambda f: [rename(f / "gt" / n / "eval_0", "v0") for n in ("box", "cone")]
                  + [rename(f / "gt" / n / "eval_1", "v1") for n in ("box", "cone")], "found no object"),
    "object missing": (lambda f: rename(f / "pred/box", "bax"), "objects box is missing, expected it as in"),
    "object surplus": (lambda f: rename(f / "gt/box/eval_0", "x") or rename(f / "gt/box/eval_1", "y"),
                       "found objects box, which"),
    "view missing": (lambda f: rename(f / "pred/box/eval_1", "eval_2"), "box: views eval_1 is missing"),
    "frame missing": (lambda f: (f / "pred/box/eval_1/2.png").unlink(), "eval_1: frames 2 is missing"),
    "frame surplus": (lambda f: (f / "gt/box/eval_1/2.png").unlink(), "eval_1: found frames 2, which"),
    "unequal views": (lambda f: [(f / x / "box/eval_1/2.png").unlink() for x in ("gt", "pred")],
                      "2 frames, expected 3 as in"),
    "no frame": (lambda f: [p.unlink() for p in (f / "gt/box/eval_1").iterdir()], "eval_1: found no numbered PNG"),
    "sizes differ": (lambda f: Image.new("RGB", (32, 31)).save(f / "pred/cone/eval_0/1.png"),
                     "1.png: image of 32x31, expected 32x32"),
    "no picture": (lambda f: (f / "pred/cone/eval_0/1.png").write_text("x"), "1.png: cannot be read ("),
    "cut picture": (lambda f: (f / "pred/cone/eval_0/1.png").write_bytes(
        (f / "pred/cone/eval_0/1.png").read_bytes()[:300]), "1.png: cannot be read ("),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_folders_are_user_errors_and_nothing_is_written(folders, name, monkeypatch):
    monkeypatch.setattr(evaluate, "check_packages", lambda: None)
    monkeypatch.setattr("dimo_jax.metrics.folders.Scores.add", lambda *_: None)
    damage, says = DAMAGES[name]
    damage(folders)
    with pytest.raises(UserError) as caught:
        run(workdir="", gt=str(folders / "gt"), pred=str(folders / "pred"), out=str(folders / "out"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(gt="x"), "--gt, --pred: found 'x' and '', expected both or neither"),
        (dict(num_videos=-1), "--num_videos: found -1, expected at least 0"),
        (dict(num_samples=1), "--num_samples: found 1, expected at least 2"),
        (dict(clip="no_such_folder"), "no_such_folder: no such folder, expected a Hugging Face CLIP folder"),
        (dict(), "no_such_run: no such folder, expected the workdir of a training run"),
    ],
)
def test_bad_options_are_user_errors(options, says, monkeypatch):
    monkeypatch.setattr(evaluate, "check_packages", lambda: None)
    with pytest.raises(UserError, match=says.replace(".", r"\.")):
        run(**{"workdir": "no_such_run", **options})
