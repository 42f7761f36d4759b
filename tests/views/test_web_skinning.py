"""Gaussians of the page that are skinned and projected with WebGL, in headless Chromium: the model's numbers, and what
happens where a device cannot."""

import jax
import numpy as np
import pytest
from support.player_page import floats, opened, wait
from support.small_space import make_config, make_space

from dimo_jax.configs.dimo import get_config
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.views.web.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]
SIZE = 64
SMALL = dict(viewport=dict(width=480, height=200), bypass_csp=True)
ABOVE = "SKIN_ABOVE = 20000"
WRONG = "const set = WebGL2RenderingContext.prototype.shaderSource; WebGL2RenderingContext.prototype.shaderSource = "
WRONG += "function (shader, text) { set.call(this, shader, text.replace('+ c.yzw', '+ 1.001 * c.yzw')); };"
HALF = "const get = WebGL2RenderingContext.prototype.getExtension; WebGL2RenderingContext.prototype.getExtension = "
HALF += "function (name) { return get.call(this, name.replace('_buffer_float', '_buffer_half_float')); };"


def write_skinning_page(space, path):
    """A page that skins with WebGL however few its Gaussians are; its script is not the one whose hash it has."""
    text = write_page(space, path).read_text("utf-8")
    assert text.count(ABOVE) == 1
    path.write_text(text.replace(ABOVE, "SKIN_ABOVE = 0"), "utf-8")
    return path


def make_thin(**stage):
    """Gaussians that show how they are turned, with colours of a direction, moved by few key points."""
    config = get_config("official")
    config.update(num_key_points=16)
    config.decoder.update(width=16, head_width=16, depth=3, skip=2)
    config.stage2.update(stage)
    space = make_space(config)
    gaussians = space.player.params.gaussians
    thin = gaussians.log_scales + jax.random.normal(jax.random.key(0), gaussians.log_scales.shape)
    turned = 3 * jax.random.normal(jax.random.key(1), gaussians.quats.shape)
    gaussians = gaussians.replace(log_scales=thin, quats=turned, sh=0.3 * gaussians.sh)
    space.player.params = space.player.params.replace(gaussians=gaussians)
    return space


SPACES = {
    "basis": lambda: make_space(make_config()),
    "harmonics": lambda: make_thin(sh_degree=3),
    "light": lambda: make_thin(sh_degree=1, light=(0.0, 1.0, 0.0)),
}


@pytest.mark.parametrize("kind", SPACES)
def test_it_shows_what_the_model_does(chrome, kind, tmp_path):
    space = SPACES[kind]()
    times, player = frame_times(space.num_frames), space.player
    with opened(chrome, write_skinning_page(space, tmp_path / "page.html"), **SMALL) as page:
        page.evaluate("dimoPlayer.ready")
        assert page.evaluate("dimoPlayer.skinning") == "WebGL"
        assert "put on Gaussians with WebGL" in page.locator("#about").inner_text()
        for motion, frame in ((0, 0), (2, 4)):
            page.evaluate("what => dimoPlayer.show(what)", dict(motion=motion, time=float(times[frame])))
            clip = player.play(player.latent(motion), times[frame : frame + 1])
            means = np.asarray(clip.gaussians.means[0])[player.alive]
            np.testing.assert_allclose(floats(page, "dimoPlayer.means()").reshape(-1, 3), means, atol=1e-5)
            truth = player.film(clip.gaussians, space.camera(SIZE))[0]
            seen = floats(page, f"dimoPlayer.pixels({SIZE}, {SIZE})").reshape(truth.shape)
            assert np.std(truth) > 0.05
            assert -10 * np.log10(np.mean(np.square(seen - truth)) + 1e-20) > 75


def test_a_lost_context_comes_back(chrome, tmp_path):
    with opened(chrome, write_skinning_page(make_space(make_config()), tmp_path / "page.html"), **SMALL) as page:
        before = floats(page, "dimoPlayer.pixels(32, 32)")
        page.evaluate(
            "() => { window.lost = document.getElementById('picture').getContext('webgl2')"
            ".getExtension('WEBGL_lose_context'); lost.loseContext(); }"
        )
        wait(page, "dimoPlayer.target === ''")
        page.evaluate("() => { dimoPlayer.show({motion: 0}); lost.restoreContext(); }")
        wait(page, "dimoPlayer.target === 'RGBA32F'")
        assert page.evaluate("dimoPlayer.skinning") == "WebGL"
        np.testing.assert_array_equal(floats(page, "dimoPlayer.pixels(32, 32)"), before)


@pytest.mark.parametrize("script", [WRONG, HALF])
def test_a_device_with_other_numbers_or_without_float_targets_leaves_it_to_the_script(chrome, tmp_path, script):
    space = make_space(make_config())
    with opened(chrome, write_skinning_page(space, tmp_path / "page.html"), script=script, **SMALL) as page:
        assert page.evaluate("dimoPlayer.skinning") == "JavaScript"
        page.evaluate("dimoPlayer.show({motion: 1, time: 0})")
        clip = space.player.play(space.player.latent(1), [0.0])
        truth = space.player.film(clip.gaussians, space.camera(SIZE))[0]
        seen = floats(page, f"dimoPlayer.pixels({SIZE}, {SIZE})").reshape(truth.shape)
        assert -10 * np.log10(np.mean(np.square(seen - truth)) + 1e-20) > 55


def test_many_gaussians_are_skinned_there(chrome, tmp_path):
    space = make_space(make_config(), num_gaussians=20_200)
    gaussians = space.player.params.gaussians
    small = gaussians.replace(log_scales=gaussians.log_scales - 3)
    space.player.params = space.player.params.replace(gaussians=small)
    with opened(chrome, write_page(space, tmp_path / "page.html"), viewport=SMALL["viewport"]) as page:
        assert page.evaluate("dimoPlayer.skinning") == "WebGL"
        assert floats(page, "dimoPlayer.pixels(32, 32)").std() > 0.01
