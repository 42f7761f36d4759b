import warnings

import numpy as np
import pytest
from PIL import Image

from dimo_jax.views.plots import plot_curves, plot_latents, project_latents


def load(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def has_color(image: np.ndarray, color: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool((np.abs(image - color).max(axis=-1) <= tolerance).any())


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def test_projection_finds_the_main_axes():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    mu = rng.normal(size=(200, 8)) * [5, 3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1] @ basis.T + 7
    center, axes, share = project_latents(mu)
    np.testing.assert_allclose(center, mu.mean(axis=0))
    np.testing.assert_allclose(np.abs(np.sum(axes * basis[:, :2], axis=0)), 1, atol=0.02)
    np.testing.assert_allclose(share, [25 / 34, 9 / 34], atol=0.08)
    np.testing.assert_allclose(project_latents(mu[::-1])[1], axes, atol=1e-5)


@pytest.mark.parametrize(("num", "dimension"), [(1, 8), (2, 8), (5, 1), (3, 2)])
def test_few_motions_or_dimensions(tmp_path, num, dimension):
    mu = np.random.default_rng(0).normal(size=(num, dimension))
    center, axes, share = project_latents(mu)
    assert np.isfinite(np.concatenate([center, axes.ravel(), share])).all()
    plot_latents(mu, [str(i) for i in range(num)], tmp_path / "a.png")
    assert has_color(load(tmp_path / "a.png"), BLUE)


def test_latent_map_with_everything(tmp_path):
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(6, 4))
    names = ["_läuft", "$x_2", "<b>", "walk", "a$b$", "ω"]
    groups = ["_a", "$b", "_a", "$b", "_a", "$b"]
    plain = plot_latents(mu, names, tmp_path / "plain.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = plot_latents(
            mu, names, tmp_path / "a.png", sigma=np.full((6, 4), 0.3), samples=rng.normal(size=(5, 4)), groups=groups
        )
    assert has_color(load(full), BLUE)
    assert has_color(load(full), ORANGE)
    assert not has_color(load(plain), ORANGE)


def test_ellipse_has_the_projected_deviation(tmp_path):
    """A wide sigma must colour much more of the map than a narrow one."""
    mu = np.random.default_rng(0).normal(size=(4, 3))
    pale = []
    for sigma in (0.05, 0.4):
        image = load(plot_latents(mu, list("abcd"), tmp_path / "a.png", sigma=np.full((4, 3), sigma)))
        pale.append(int(((image[..., 2] - image[..., 0] > 10) & (image.min(axis=-1) > 150)).sum()))
    assert pale[1] > 5 * pale[0]


def test_wrong_latents(tmp_path):
    with pytest.raises(ValueError, match="1 names"):
        plot_latents(np.zeros((2, 3)), ["a"], tmp_path / "a.png")
    with pytest.raises(ValueError, match="finite"):
        plot_latents(np.full((1, 3), np.nan), ["a"], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def make_rows(num: int) -> list[dict]:
    return [
        {
            "step": i,
            "stage": "one" if i < num // 2 else "two",
            "loss": 1 / (i + 1),
            "loss/rgb": 0.5 / (i + 1),
            "psnr": i,
        }
        for i in range(num)
    ]


@pytest.mark.parametrize("num", [1, 10, 400])
def test_curves_of_any_length(tmp_path, num):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load(plot_curves(make_rows(num), tmp_path / "a.png"))
    assert has_color(image, ORANGE)
    assert has_color(image, (0x20, 0x24, 0x2C))


def test_curves_with_gaps(tmp_path):
    rows = make_rows(200)
    rows[50]["loss"], rows[60]["loss"], rows[70]["loss/rgb"] = None, float("nan"), 0.0
    for row in rows[::2]:
        del row["psnr"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load(plot_curves(rows, tmp_path / "a.png"))
    assert has_color(image, ORANGE)


def test_curves_of_other_rows(tmp_path):
    with pytest.raises(ValueError, match="neither a loss nor a psnr"):
        plot_curves([{"step": 1, "seconds": 2.0}], tmp_path / "a.png")
    plot_curves([{"step": 1, "held_out_views/psnr": 2.0}], tmp_path / "a.png")
