"""Terms of pictures: what the authors' presets ask of them, half weight on novel images."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.losses import terms


def make_images(seed=0):
    rng = np.random.default_rng(seed)
    rgb, true_rgb = (rng.uniform(size=(6, 12, 12, 3)).astype(np.float32) for _ in range(2))
    alpha, true_alpha = (rng.uniform(size=(6, 12, 12)).astype(np.float32) for _ in range(2))
    novel = jnp.asarray([True, False, True, True, False, True])
    return SimpleNamespace(rgb=rgb, true_rgb=true_rgb, alpha=alpha, true_alpha=true_alpha, novel=novel)


@pytest.mark.parametrize("term", [terms.rgb, terms.mask, terms.ssim])
def test_novel_images_weigh_less_and_parts_of_a_batch_average_to_the_whole(term):
    images = make_images()
    part = lambda chosen: SimpleNamespace(**{name: value[chosen] for name, value in vars(images).items()})  # noqa: E731
    alone = np.asarray([term(part(slice(i, i + 1))) for i in range(6)])
    expected = np.mean(alone * np.where(images.novel, 0.5, 1.0))
    assert abs(expected - alone.mean()) > 0.1 * expected
    np.testing.assert_allclose(term(images, novel_weight=0.5), expected, rtol=1e-5)
    for count in (2, 3, 6):  # a part may hold no image of the reference view
        parts = [term(part(np.arange(6).reshape(count, -1)[i]), novel_weight=0.5) for i in range(count)]
        np.testing.assert_allclose(np.mean(parts), expected, rtol=1e-5)
