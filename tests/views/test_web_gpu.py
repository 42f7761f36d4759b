"""The page's decoder with WebGPU, in software: the numbers of the script's, and what happens where it fails."""

import jax
import numpy as np
import pytest
from support import browser
from support.player_page import floats, opened, wait
from support.small_space import make_space

from dimo_jax.configs.dimo import get_config
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.views.web.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]
OPTIONS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
# A slow clock, so that a small decoder counts as slow; and the page's device in reach.
SLOW = "const now = performance.now.bind(performance); let late = 0; performance.now = () => now() + (late += 15);"
SLOW += "const request = GPUAdapter.prototype.requestDevice; GPUAdapter.prototype.requestDevice = async function () {"
SLOW += "return window.device = await request.call(this); };"
BROKEN = (
    "const make = GPUDevice.prototype.createShaderModule; GPUDevice.prototype.createShaderModule = function (how) {"
)
BROKEN += "return make.call(this, {code: how.code.replace('max(sums[r], 0.0)', 'sums[r]')}); };"


@pytest.fixture(scope="module")
def chrome():
    """A browser with an adapter of WebGPU, or a skip."""
    browser.find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = browser.launch(playwright, *OPTIONS)
        page = chrome.new_page()
        page.goto("file:///")  # a safe context; a blank page is none
        found = page.evaluate("navigator.gpu?.requestAdapter().then(adapter => adapter !== null)")
        page.close()
        if not found:
            chrome.close()
            pytest.skip(f"this Chromium offers no WebGPU adapter with {' '.join(OPTIONS)}")
        yield chrome
        chrome.close()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A space of the paper's decoder, of sizes that fill no tile of the shader, and its page."""
    config = get_config("official")
    config.update(num_key_points=21)
    config.decoder.update(width=80, head_width=48, depth=4, skip=2)
    space = make_space(config)
    return space, write_page(space, tmp_path_factory.mktemp("wide") / "page.html")


def test_it_is_the_models_decoder(chrome, wide):
    space, path = wide
    times, find = frame_times(space.num_frames), jax.jit(dimo.find_neighbors, static_argnums=0)
    with opened(chrome, path, script=SLOW) as page:
        page.evaluate("dimoPlayer.ready")
        assert page.evaluate("dimoPlayer.decoder") == "WebGPU"
        assert "poses worked out with WebGPU" in page.locator("#about").inner_text()
        for motion in (0, 2):
            page.evaluate("motion => dimoPlayer.prepare({motion})", motion)
            z = space.player.latent(motion)
            clip = space.player.play(z, times)
            for frame in (0, 3, 5):
                page.evaluate("what => dimoPlayer.show(what)", dict(motion=motion, time=float(times[frame])))
                means = np.asarray(clip.gaussians.means[frame])[space.player.alive]
                far = 1e-5 * np.ptp(means, axis=0).max()
                np.testing.assert_allclose(floats(page, "dimoPlayer.means()").reshape(-1, 3), means, atol=far)
            edges = find(space.player.components, space.player.params, z, times).controls
            np.testing.assert_array_equal(page.evaluate("dimoPlayer.edges()"), edges)


def test_a_device_that_is_lost_leaves_the_work_to_the_script(chrome, wide):
    space, path = wide
    with opened(chrome, path, script=SLOW) as page:
        page.evaluate("dimoPlayer.ready")
        assert page.evaluate("dimoPlayer.decoder") == "WebGPU"
        page.evaluate("device.destroy()")
        page.get_by_role("button", name=str(space.facts["names"][1])).first.click()
        wait(page, "dimoPlayer.state.name === dimoPlayer.motions[1].name && dimoPlayer.decoder === 'WebAssembly'")
        page.evaluate("dimoPlayer.show({time: 0})")
        truth = space.player.play(space.player.latent(1), [0.0]).key_points[0]
        np.testing.assert_allclose(floats(page, "dimoPlayer.keyPoints()").reshape(-1, 3), truth, atol=1e-5)
        assert "poses worked out with WebAssembly" in page.locator("#about").inner_text()


def test_a_driver_with_other_numbers_is_not_used(chrome, wide):
    with opened(chrome, wide[1], script=SLOW + BROKEN) as page:
        page.evaluate("dimoPlayer.ready")
        assert page.evaluate("dimoPlayer.decoder") == "WebAssembly"
