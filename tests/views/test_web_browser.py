"""The page that plays a motion space, opened from a file in headless Chromium: its numbers and all its controls."""

import io
import json
import re
import time

import imageio.v3
import jax
import numpy as np
import pytest
from PIL import Image
from support.player_page import PATIENCE, floats, opened, wait
from support.small_space import BASIS, make_config, make_space

from dimo_jax.apps import train
from dimo_jax.configs.dimo import get_config
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.restore import restore
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training import latents
from dimo_jax.views.web.page import write_page

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]
SIZE = 64
# What a browser without an extension of WebGL, or without WebGL 2, answers.
WITHOUT = "const get = WebGL2RenderingContext.prototype.getExtension; WebGL2RenderingContext.prototype.getExtension = "
WITHOUT += "function (name) { return %s.includes(name) ? null : get.call(this, name); };"
WITHOUT_WEBGL = "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
WITHOUT_WEBGL += "function (kind, ...rest) { return kind === 'webgl2' ? null : get.call(this, kind, ...rest); };"
HOSTILE = "</script><img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small trained run."""
    config = get_config("smoke")
    config.decoder = BASIS | dict(branch_activation="relu")
    config.data.source.update(num_motions=3, num_frames=6, size=32, num_train_views=4, num_test_views=1)
    config.batch = dict(motions=3, views=2, frames=2)
    config.num_key_points = 24
    config.stage1.update(num_steps=60, capacity=48, num_points=40, densify_every=20, densify_from=20)
    config.stage2.update(num_steps=60, num_per_key_point=10)
    config.log_every = config.checkpoint_every = 60
    workdir = tmp_path_factory.mktemp("web") / "run"
    train.train(config, workdir)
    return restore(workdir)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The page of a space that was never trained, with captions and a prompt."""
    captions = ["It waves its left hand.", "A jump up high.", "Someone is running."]
    space = make_space(make_config(), captions=captions, names=["wave", "jump", "run"], object_name="a cloud")
    prompts = [("tiptoes along", np.asarray(space.player.latent(0)) + 1)]
    return space, write_page(space, tmp_path_factory.mktemp("plain") / "page.html", prompts=prompts)


def compare(page, space, what, z, frame):
    """Checks edges and means of the page, and returns its picture and that of `render`."""
    player, times = space.player, frame_times(space.num_frames)
    page.evaluate("what => dimoPlayer.show(what)", what | {"time": float(times[frame])})
    clip = player.play(z, times[frame : frame + 1])
    edges = find_neighbors(player.components, player.params, z, times).controls
    np.testing.assert_array_equal(page.evaluate("dimoPlayer.edges()"), edges)
    np.testing.assert_allclose(floats(page, "dimoPlayer.keyPoints()").reshape(-1, 3), clip.key_points[0], atol=1e-5)
    means = np.asarray(clip.gaussians.means[0])[player.alive]
    np.testing.assert_allclose(floats(page, "dimoPlayer.means()").reshape(-1, 3), means, atol=1e-5)
    truth = player.film(clip.gaussians, space.camera(SIZE))[0]
    return floats(page, f"dimoPlayer.pixels({SIZE}, {SIZE})").reshape(SIZE, SIZE, 3), truth


find_neighbors = jax.jit(dimo.find_neighbors, static_argnums=0)


def psnr(picture, truth):
    return -10 * np.log10(np.mean(np.square(picture - truth)) + 1e-20)


def test_the_page_shows_what_the_model_does(chrome, trained, tmp_path):
    path = write_page(trained, tmp_path / "page.html")
    player = trained.player
    cases = [(dict(motion=m), player.latent(m), frame) for m in range(3) for frame in (0, 2, 5)]
    cases.append((dict(sample=5), draw_codes(trained, seed=5, num_samples=1)[0], 3))
    walk = latents.interpolate_linear(player.latent(0), player.latent(2), 0.4)
    cases.append((dict(morph=[0, 2, 0.4]), walk, 1))
    around = draw_codes(trained, seed=9, num_samples=1, around=trained.facts["names"][1], spread=0.5)[0]
    cases.append((dict(sample=9, around=1, spread=0.5), around, 4))
    pictures = []
    with opened(chrome, path) as page:
        assert page.evaluate("dimoPlayer.target") == "RGBA32F"
        for what, z, frame in cases:
            picture, truth = compare(page, trained, what, z, frame)
            assert np.abs(picture - truth).mean() < 1e-4
            assert psnr(picture, truth) > 75
            pictures.append(truth)
    assert min(np.std(truth) for truth in pictures) > 0.05
    with opened(chrome, path, script=WITHOUT % "['EXT_float_blend']") as page:
        assert page.evaluate("dimoPlayer.target") == "RGBA16F"
        for what, z, frame in cases[::4]:
            assert psnr(*compare(page, trained, what, z, frame)) > 60


NO_WASM = "delete window.WebAssembly;"


@pytest.mark.parametrize(("script", "decoder"), [("", "WebAssembly"), (NO_WASM, "JavaScript")])
def test_other_components_and_colours_of_a_direction(chrome, tmp_path, script, decoder):
    config = get_config("official")
    config.update(num_key_points=17)
    config.decoder.update(width=20, head_width=12, depth=3, skip=2)  # that fill no block of the kernel
    config.stage2.sh_degree = 3
    space = make_space(config)
    gaussians = space.player.params.gaussians
    # Round Gaussians would hide how they are turned.
    thin = gaussians.log_scales + jax.random.normal(jax.random.key(0), gaussians.log_scales.shape)
    turned = jax.random.normal(jax.random.key(1), gaussians.quats.shape)
    gaussians = gaussians.replace(log_scales=thin, quats=turned, sh=0.3 * gaussians.sh)
    space.player.params = space.player.params.replace(gaussians=gaussians)
    with opened(chrome, write_page(space, tmp_path / "page.html"), script=script) as page:
        assert page.evaluate("dimoPlayer.decoder") == decoder
        for motion in (0, 2):
            picture, truth = compare(page, space, dict(motion=motion), space.player.latent(motion), 4)
            assert psnr(picture, truth) > 75


def state(page):
    return page.evaluate("dimoPlayer.state")


def test_playing_and_time(chrome, plain):
    with opened(chrome, plain[1], reduced_motion="no-preference") as page:
        assert state(page)["playing"]  # at once
        pictures = state(page)["pictures"]
        wait(page, f"dimoPlayer.state.pictures > {pictures + 5} && dimoPlayer.state.time > 0")
        page.get_by_role("button", name="Pause").click()
        wait(page, "!dimoPlayer.state.playing")
        page.get_by_label("Time").press("Home")
        wait(page, "dimoPlayer.state.time === 0")
        page.get_by_label("Time").press("End")
        wait(page, "Math.abs(dimoPlayer.state.time - 5 / 6) < 1e-6")
        wait(page, "document.getElementById('frame').textContent === '6 / 6'")
        page.locator("#picture").focus()
        page.keyboard.press("ArrowLeft")
        wait(page, "Math.abs(dimoPlayer.state.time - 4 / 6) < 1e-6")
        page.get_by_label("Loop").uncheck()
        page.get_by_label("Speed").select_option("2")
        page.locator("#picture").focus()
        page.keyboard.press("Space")
        wait(page, "!dimoPlayer.state.playing && Math.abs(dimoPlayer.state.time - 5 / 6) < 1e-6")  # stops at the end


def test_a_slow_decoder_plays_at_the_frames_of_training(chrome, plain):
    slow = "const now = performance.now.bind(performance); let late = 0; performance.now = () => now() + (late += 15);"
    with opened(chrome, plain[1], script=slow) as page:
        page.evaluate("dimoPlayer.ready")
        assert state(page)["name"] == "wave"
        page.get_by_role("button", name="jump").click()
        wait(page, "dimoPlayer.state.name === 'jump'")
        page.evaluate("dimoPlayer.show({time: 0.4})")
        between = floats(page, "dimoPlayer.keyPoints()")
        page.evaluate("dimoPlayer.show({time: 2 / 6})")
        np.testing.assert_array_equal(floats(page, "dimoPlayer.keyPoints()"), between)
        page.evaluate("dimoPlayer.show({time: 3 / 6})")
        assert np.abs(floats(page, "dimoPlayer.keyPoints()") - between).max() > 1e-4


def test_choosing_motions(chrome, plain):
    space, path = plain
    with opened(chrome, path) as page:

        def shows(name, z):
            wait(page, f"dimoPlayer.state.name === {name!r}")
            np.testing.assert_allclose(page.evaluate("dimoPlayer.code()"), z, atol=1e-5)

        codes = np.asarray(space.player.params.latents.mu)
        page.get_by_role("button", name="jump").click()
        shows("jump", codes[1])
        assert page.locator("#words").inner_text() == "A jump up high."
        assert page.locator("#motions button[aria-pressed=true]").count() == 1
        page.locator("#picture").focus()
        page.keyboard.press("ArrowDown")
        shows("run", codes[2])
        page.get_by_role("button", name="Another").click()
        shows("New motion 1", draw_codes(space, seed=1, num_samples=1)[0])
        page.get_by_label("Number").fill("12")
        page.get_by_label("Number").press("Enter")
        shows("New motion 12", draw_codes(space, seed=12, num_samples=1)[0])
        page.get_by_label("Around").select_option("run")
        page.locator("#spread").fill("0.5")
        wait(page, "dimoPlayer.state.words === 'drawn around run, spread 0.5'")
        shows("New motion 12", draw_codes(space, seed=12, num_samples=1, around="run", spread=0.5)[0])
        assert "--seed=12 --around=run --spread=0.5" in page.locator("#sample-hint").inner_text()
        page.get_by_label("From").select_option("run")
        page.locator("#share").fill("0.25")
        shows("Between two", 0.75 * codes[2] + 0.25 * codes[1])
        page.get_by_label("A sentence").fill("He waved his hands")
        page.locator("#found button", has_text="It waves its left hand.").click()
        shows("wave", codes[0])
        page.get_by_label("A sentence").fill("tiptoe")
        page.get_by_label("A sentence").press("Enter")
        shows("A sentence", codes[0] + 1)
        page.get_by_label("A sentence").fill("qqq")
        page.get_by_text("No known sentence shares a word with it.").wait_for()

        text = page.locator("#code").input_value()
        page.get_by_role("button", name="jump").click()
        page.evaluate("code => dimoPlayer.show({code})", [float(x) for x in text.removeprefix("--code=").split(",")])
        shows("A code", codes[0] + 1)
        for what in ("{motion: 7}", "{motion: 'x'}", "{sample: -1}", "{code: [1]}"):
            with pytest.raises(Exception, match="expected"):
                page.evaluate(f"dimoPlayer.show({what})")


def test_the_map(chrome, plain):
    space, path = plain
    codes = np.asarray(space.player.params.latents.mu)
    with opened(chrome, path) as page:
        marks = page.locator("#map circle.mark")
        assert marks.count() == 3
        page.locator("#map").scroll_into_view_if_needed()
        box = marks.nth(2).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        wait(page, "dimoPlayer.state.name === 'A place on the map'")
        np.testing.assert_allclose(page.evaluate("dimoPlayer.code()"), codes[2], atol=1e-6)  # a mark is its motion
        page.mouse.move(box["x"] + 60, box["y"] + 20, steps=3)
        page.mouse.up()
        dragged = page.evaluate("dimoPlayer.code()")
        assert np.abs(np.asarray(dragged) - codes[2]).max() > 0.01
        page.mouse.move(box["x"] - 60, box["y"] - 60)
        assert page.evaluate("dimoPlayer.code()") == dragged  # released
        page.locator("#map").focus()
        page.keyboard.press("ArrowLeft")
        wait(page, f"dimoPlayer.code()[0] !== {dragged[0]}")


def test_the_camera(chrome, plain):
    space, path = plain
    with opened(chrome, path) as page:

        def matrix():
            return np.asarray(state(page)["camera"]["world_to_camera"])

        data = np.asarray(space.facts["camera"]["world_to_camera"])
        np.testing.assert_allclose(matrix(), data, atol=1e-6)
        page.mouse.move(300, 350)

        def drag(to, *keys):
            before = matrix()
            for key in keys:
                page.keyboard.down(key)
            page.mouse.down()
            page.mouse.move(*to, steps=2)
            page.mouse.up()
            for key in keys:
                page.keyboard.up(key)
            page.mouse.move(300, 350)
            after = matrix()
            assert np.abs(after - before).max() > 0.01
            np.testing.assert_allclose(after[:3, :3] @ after[:3, :3].T, np.eye(3), atol=1e-6)
            return before, after

        def move_of(before, after):
            """How a point before the object's middle moves in the picture: right, down."""
            point = -0.3 * before[2, :3]
            return [float(after[row, :3] @ point - before[row, :3] @ point) for row in (0, 1)]

        before, after = drag((380, 350))
        assert after[1, 1] == pytest.approx(before[1, 1])  # what is up stays so
        assert move_of(before, after)[0] > 0.05  # it follows the pointer
        before, after = drag((300, 300))
        assert move_of(before, after)[1] < -0.05
        before, after = drag((340, 380), "Shift")
        np.testing.assert_allclose(before[:3, :3], after[:3, :3])
        for _ in range(40):
            page.keyboard.press("Shift+ArrowUp")
        assert np.isfinite(matrix()).all()
        assert matrix()[1, 1] < 0  # down is down: never over the top
        assert matrix()[2, 1] < -0.97  # and seen from above
        distance = matrix()[2, 3]
        page.mouse.wheel(0, -200)
        wait(page, f"dimoPlayer.state.camera.world_to_camera[2][3] < {distance} - 0.1")
        page.get_by_role("button", name="Reset view").click()
        np.testing.assert_allclose(matrix(), data, atol=1e-6)
        page.keyboard.press("+")
        assert matrix()[2, 3] == pytest.approx(0.9 * data[2, 3], rel=1e-2)
        # Two fingers, as far apart again: the object comes twice as near.
        page.keyboard.press("r")
        page.evaluate(
            "() => { const canvas = document.getElementById('picture'); canvas.setPointerCapture = () => {};"
            "const send = (type, id, x, y) => canvas.dispatchEvent(new PointerEvent(type, {pointerId: id, clientX: x,"
            "clientY: y})); send('pointerdown', 1, 200, 300); send('pointerdown', 2, 300, 300);"
            "send('pointermove', 2, 400, 300); send('pointerup', 1, 200, 300); send('pointerup', 2, 400, 300); }"
        )
        assert matrix()[2, 3] == pytest.approx(0.5 * data[2, 3], rel=0.05)


def test_fingers(chrome, plain):
    space, path = plain
    data = np.asarray(space.facts["camera"]["world_to_camera"])
    phone = dict(viewport=dict(width=390, height=844), has_touch=True, is_mobile=True, device_scale_factor=2)
    with opened(chrome, path, **phone) as page:
        page.evaluate("dimoPlayer.ready")
        assert page.evaluate("document.getElementById('picture').width") == 780  # a pixel for each of the screen
        assert page.locator("#keys").is_hidden()  # a phone has none
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        client = page.context.new_cdp_session(page)

        def touch(*fingers):
            """Fingers, each a list of places, put down together, moved and taken away; the camera after that."""
            page.locator("#picture").press("r")
            for step, points in enumerate(zip(*fingers, strict=True)):
                kind = "touchMove" if step else "touchStart"
                places = [dict(x=x, y=y, id=i) for i, (x, y) in enumerate(points)]
                client.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=places))
            client.send("Input.dispatchTouchEvent", dict(type="touchEnd", touchPoints=[]))
            return np.asarray(state(page)["camera"]["world_to_camera"])

        turned = touch([(150, 250), (190, 250), (230, 250)])
        assert np.abs(turned[:3, :3] - data[:3, :3]).max() > 0.1
        assert turned[2, 3] == pytest.approx(data[2, 3], abs=0.2)
        near = touch([(170, 250), (150, 250), (120, 250)], [(220, 250), (240, 250), (270, 250)])
        np.testing.assert_allclose(near[:3, :3], data[:3, :3], atol=1e-6)
        assert near[2, 3] == pytest.approx(data[2, 3] / 3, rel=0.1)  # 50 to 150 pixels apart
        moved = touch([(150, 250), (170, 270), (190, 290)], [(220, 250), (240, 270), (260, 290)])
        np.testing.assert_allclose(moved[:3, :3], data[:3, :3], atol=1e-6)
        assert moved[2, 3] == pytest.approx(data[2, 3], rel=0.02)
        assert (moved[:2, 3] - data[:2, 3] > 0.05).all()
        assert page.evaluate("scrollY") == 0


def test_a_canvas_that_the_device_has_no_room_for_is_smaller(chrome, plain):
    full = "const gl = WebGL2RenderingContext.prototype, make = gl.texStorage2D, check = gl.checkFramebufferStatus;"
    full += "let large; gl.texStorage2D = function (...a) { large = a[3] * a[4] > 40000; make.apply(this, a); };"
    full += "gl.checkFramebufferStatus = function (...a) { return large ? 0 : check.apply(this, a); };"
    size = "[document.getElementById('picture').width, document.getElementById('picture').height]"
    with opened(chrome, plain[1], script=full) as page:
        width, height = page.evaluate(size)
        assert 10_000 < width * height <= 40_000
        assert width / height == pytest.approx(728 / 700, rel=0.02)
        assert floats(page, "dimoPlayer.pixels(64, 64)").std() > 0.05
        with pytest.raises(Exception, match="This device has no room for a picture of 300 x 200 pixels"):
            page.evaluate("dimoPlayer.pixels(300, 200)")
    with opened(chrome, plain[1], viewport=dict(width=300, height=200)) as page:
        with pytest.raises(Exception, match="This device has no room for a picture of 100000 x 4 pixels"):
            page.evaluate("dimoPlayer.pixels(100000, 4)")
        page.evaluate("() => { document.getElementById('stage').style.width = '40000px'; dimoPlayer.show({time: 0}); }")
        assert page.evaluate(size)[0] == page.evaluate(
            "document.getElementById('picture').getContext('webgl2').drawingBufferWidth"
        )


def test_what_it_keeps_is_bounded(chrome, plain, tmp_path):
    text = plain[1].read_text("utf-8")
    for seam, told in (
        ("CACHE_BYTES = 96e6, POSE_BYTES = 1e6", "CACHE_BYTES = 1e5, POSE_BYTES = 1e4"),
        ("const cache = new Map()", "const cache = window.cache = new Map()"),
        ("const opened = new Map()", "const opened = window.opened = new Map()"),
        ("poses = new Map()", "poses = (window.poses = (window.poses ?? []).concat(new Map())).at(-1)"),
    ):
        assert text.count(seam) == 1, seam
        text = text.replace(seam, told)
    (tmp_path / "page.html").write_text(text, "utf-8")
    with opened(chrome, tmp_path / "page.html", viewport=dict(width=300, height=200), bypass_csp=True) as page:
        page.evaluate(
            "() => { const code = dimoPlayer.code(); for (let i = 0; i < 60; i++) {"
            "dimoPlayer.show({code: code.map(x => x + 0.01 * i)});"
            "for (let k = 0; k < 3; k++) dimoPlayer.show({time: Math.random()}); }"
            "for (let k = 0; k < 40; k++) dimoPlayer.means(dimoPlayer.show({time: Math.random()})); }"
        )
        kept = page.evaluate("[cache.size, opened.size, Math.max(...poses.map(each => each.size))]")
    frame, poses = 150 * 7 * 4, 1e4 / (16 * 7 * 8)
    assert 10 < kept[0] <= 1e5 / frame
    assert kept[1] == 24
    assert kept[2] <= max(12, poses)


def test_what_is_drawn_over_the_picture_and_taken_away(chrome, plain, tmp_path):
    with opened(chrome, plain[1], accept_downloads=True) as page:

        def drawn():
            return page.evaluate(
                "() => { const c = document.createElement('canvas'), o = document.getElementById('overlay');"
                "[c.width, c.height] = [o.width, o.height]; const x = c.getContext('2d'); x.drawImage(o, 0, 0);"
                "const d = x.getImageData(0, 0, c.width, c.height).data; let n = 0;"
                "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }"
            )

        seen = drawn()
        assert seen == 0
        for name in ("Key points", "Trajectories", "Graph"):
            page.get_by_label(name).check()
            deadline = time.monotonic() + PATIENCE
            while drawn() <= seen:  # each adds to it
                assert time.monotonic() < deadline, name
            seen = drawn()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Still (PNG)").click()
        waiting.value.save_as(tmp_path / "still.png")
        assert waiting.value.suggested_filename == "wave.png"
        with Image.open(tmp_path / "still.png") as still:
            assert still.size == (728, 700)
            assert np.asarray(still.convert("RGB")).std() > 5
        page.get_by_role("button", name="Copy code").click()
        page.get_by_text(re.compile("^The code is ")).wait_for()
        page.get_by_label("Ground of the page").check()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        corner = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=dict(x=5, y=300, width=1, height=1)))))[0, 0, :3]
        assert np.abs(corner - [int(x) for x in re.findall(r"\d+", ground)[:3]]).max() <= 1


def test_a_clip(chrome, plain, tmp_path):
    with opened(chrome, plain[1], viewport=dict(width=500, height=400), accept_downloads=True) as page:
        page.get_by_label("Speed").select_option("0.5")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Clip (WebM)").click()
        waiting.value.save_as(tmp_path / "clip.webm")
        assert waiting.value.suggested_filename == "wave.webm"
        frames = imageio.v3.imread(tmp_path / "clip.webm", plugin="FFMPEG")
        assert len(frames) >= 3  # of dozens: a busy machine records few of them
        assert np.abs(frames.astype(int) - frames[0]).max() > 10
        assert frames.min(axis=(1, 2, 3)).max() < 200  # something is drawn in each


def test_a_clip_where_streams_ask_for_pictures_themselves(chrome, plain):
    firefox = "const request = CanvasCaptureMediaStreamTrack.prototype.requestFrame;"
    firefox += "delete CanvasCaptureMediaStreamTrack.prototype.requestFrame; MediaStream.prototype.requestFrame = "
    firefox += "function () { request.call(this.getVideoTracks()[0]); };"
    options = dict(viewport=dict(width=500, height=400), accept_downloads=True)
    with opened(chrome, plain[1], script=firefox, **options) as page:
        page.get_by_label("Speed").select_option("2")
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Clip (WebM)").click()
        assert waiting.value.suggested_filename == "wave.webm"


def test_a_clip_that_cannot_be_recorded_says_so_and_leaves_the_time(chrome, plain):
    broken = "MediaRecorder.prototype.start = () => { throw new Error('No encoder is here.'); };"
    with opened(chrome, plain[1], script=broken) as page:
        page.evaluate("dimoPlayer.show({motion: 1, time: 3 / 6})")
        page.get_by_role("button", name="Clip (WebM)").click()
        wait(page, "document.getElementById('taken').textContent === 'No encoder is here.'")
        assert abs(state(page)["time"] - 3 / 6) < 1e-6
        assert page.get_by_role("button", name="Clip (WebM)").is_enabled()


def test_words_of_other_scripts_and_a_key_that_is_held(chrome, tmp_path):
    names = ["\U0001f600" * 30, "ريح", "__proto__"]
    captions = ["它挥动左手", "يلوح بيده اليسرى", "constructor"]
    space = make_space(make_config(), names=names, captions=captions)
    with opened(chrome, write_page(space, tmp_path / "page.html")) as page:
        assert page.evaluate("[...document.querySelectorAll('#map text')].every(e => e.textContent.isWellFormed())")
        page.get_by_role("button", name="ريح").first.click()
        wait(page, "dimoPlayer.state.name === 'ريح'")
        for name in ("#name", "#words"):
            assert page.locator(name).evaluate("e => getComputedStyle(e).direction") == "rtl"
        for asked, name in (("左手", names[0]), ("constructor", "__proto__")):
            page.get_by_label("A sentence").fill(asked)
            page.get_by_label("A sentence").press("Enter")
            wait(page, f"dimoPlayer.state.name === {json.dumps(name)}")
        page.locator("#picture").focus()
        page.keyboard.down("k")
        page.keyboard.down("k")  # repeats
        page.keyboard.up("k")
        assert page.get_by_label("Key points").is_checked()


def test_hostile_text_is_text(chrome, tmp_path):
    space = make_space(make_config(), names=[HOSTILE, "a", "b"], captions=[HOSTILE] * 3, object_name=HOSTILE)
    with opened(chrome, write_page(space, tmp_path / "page.html")) as page:
        page.get_by_label("A sentence").fill("document title hit")
        page.keyboard.press("Enter")
        assert page.evaluate("document.images.length") == 0
        assert page.locator("#title").inner_text() == HOSTILE
        assert page.title() == f"{HOSTILE} – motions"
        assert page.locator("#words").inner_text() == HOSTILE


def test_a_lost_context_comes_back(chrome, plain):
    with opened(chrome, plain[1]) as page:
        before = floats(page, "dimoPlayer.pixels(32, 32)")
        page.evaluate(
            "() => { window.lost = document.getElementById('picture').getContext('webgl2')"
            ".getExtension('WEBGL_lose_context'); lost.loseContext(); }"
        )
        wait(page, "dimoPlayer.target === ''")
        page.evaluate("() => { dimoPlayer.show({motion: 0}); lost.restoreContext(); }")
        wait(page, "dimoPlayer.target === 'RGBA32F'")
        np.testing.assert_array_equal(floats(page, "dimoPlayer.pixels(32, 32)"), before)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (WITHOUT % "['EXT_color_buffer_float', 'EXT_color_buffer_half_float']", "cannot blend into floating-point"),
        (WITHOUT_WEBGL, "This browser does not offer WebGL 2"),
    ],
)
def test_a_browser_that_cannot_gets_a_sentence(chrome, plain, script, sentence):
    with opened(chrome, plain[1], script=script) as page:
        assert sentence in page.get_by_role("alert").inner_text()
        assert sentence in page.evaluate("dimoPlayer.ready.catch(error => error.message)")


@pytest.mark.parametrize("size", [(390, 844), (1280, 800), (820, 1180), (844, 390)])
def test_it_fits_a_phone_and_a_desktop(chrome, plain, size):
    width, height = size
    with opened(chrome, plain[1], viewport=dict(width=width, height=height), color_scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#picture").bounding_box()
        assert box["height"] >= 0.5 * height
        bar = page.locator(".transport").bounding_box()
        assert bar["x"] >= 0
        assert bar["x"] + bar["width"] <= box["width"]
        assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.transport'))")
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('button, input, select, textarea')].filter(e => !("
            "e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map(e => e.id)"
        )
        assert unlabelled == []
