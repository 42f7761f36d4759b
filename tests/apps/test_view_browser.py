"""The viewer in a real browser, headless Chromium with software WebGL, driven by Playwright."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion
from support import bert_folder, browser

from dimo_jax.io.ply import read_gaussians
from tests.apps.view_run import write_run

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds, for machines that do much else
HEIGHT = 700
SAME = 0.5  # of 255: viser draws coarser where it is slow
# The middle of the window: notes stand left of it, the panel right.
MIDDLE = dict(x=320, y=190, width=370, height=450)


@pytest.fixture(scope="module")
def chromium():
    """A browser, or a skip."""
    pytest.importorskip("viser", reason="no browser test without viser (pip install 'dimo_jax[view]')")
    return browser.find_browser()


@pytest.fixture(scope="module")
def served(chromium, tmp_path_factory):
    """A viewer of a run, started as users do: its workdir and its address."""
    folder = tmp_path_factory.mktemp("browser")
    write_run(folder / "run")
    bert_folder.write_folder(folder / "bert")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch.py"), "--app=view", f"--workdir={folder / 'run'}"]
    command += [f"--port={port}", f"--bert={folder / 'bert'}", "--size=32"]
    environment = os.environ | dict(JAX_PLATFORMS="cpu")
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = next((line for line in process.stdout if line.startswith("the viewer is at ")), "")
        assert f"http://127.0.0.1:{port}" in line
        try:
            yield folder / "run", f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()


@pytest.fixture
def page(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = browser.launch(playwright)
        page = chrome.new_page(viewport=dict(width=1100, height=HEIGHT))
        page.set_default_timeout(1000 * PATIENCE)
        errors = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        chrome.close()
        assert not errors


def wait_for(look, accepts, what):
    """Looks until what is seen is accepted; returns it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = look()
        if accepts(seen):
            return seen
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def take_picture(page, clip=MIDDLE):
    """The middle of the window or another part, float32 [H,W,3]."""
    png = page.screenshot(clip=clip)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def settle(page):
    """The picture, once it has stopped changing: splats are sorted some frames after they are set."""
    last, equal = [take_picture(page)], [0]

    def is_still(picture):
        before, last[0] = last[0], picture
        equal[0] = equal[0] + 1 if np.array_equal(before, picture) else 0
        return equal[0] == 2

    time.sleep(0.5)
    return wait_for(lambda: take_picture(page), is_still, "the picture to stand still")


def difference(one, other):
    """Mean over pixels and colours, of 255."""
    return float(np.abs(one - other).mean())


def wait_for_change(page, before, what, least=1.0):
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, before) > least, what)
    return settle(page)


def check_that_it_stands_in_the_middle(picture, means, camera):
    """What the data's camera has in its middle stands in the middle of what the panel leaves free."""
    width = picture.shape[1]
    assert width < 900  # of 1100
    pose = np.asarray(camera["world_to_camera"])
    seen = means @ pose[:3, :3].T + pose[:3, 3]
    focal = camera["focal"][1] * HEIGHT / camera["height"]
    columns = np.average(np.arange(width), weights=np.abs(picture - 255).max(axis=-1).sum(axis=0))
    assert columns == pytest.approx(0.5 * width + focal * np.mean(seen[:, 0] / seen[:, 2]), abs=40)


def check_key_points_through_the_body(page, start):
    """Key points look the same with and without the Gaussians around them."""
    body, points = (page.get_by_role("checkbox", name=name, exact=True) for name in ("Gaussians", "Key points"))
    points.check()
    both = wait_for_change(page, start, "key points before the body", least=0.02)
    body.uncheck()
    alone = wait_for_change(page, both, "the body to go")
    # Without their edges, which are mixed with what is behind.
    drawn = binary_erosion(np.abs(alone - 255).max(axis=-1) > 60, iterations=2)
    assert drawn.sum() > 100  # pixels
    assert np.mean(np.abs(both - alone)[drawn].max(axis=-1) < 30) > 0.95
    body.check()
    points.uncheck()
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, start) < SAME, "the body alone again")


@pytest.mark.slow
def test_the_viewer_in_a_browser(served, page):
    workdir, address = served
    page.goto(address)
    page.get_by_text("it waves the hand").wait_for()
    wait_for(lambda: take_picture(page), lambda picture: picture.std() > 10, "splats on the canvas")
    assert page.get_by_label("Play").is_checked()  # at once
    page.get_by_label("Play").uncheck()
    page.get_by_role("slider").first.press("Home")
    start = settle(page)
    assert np.mean(np.abs(start - 255) > 20) > 0.05  # of a white canvas

    check_key_points_through_the_body(page, start)

    frame = page.get_by_role("slider").first
    frame.press("End")
    end = wait_for_change(page, start, "the time slider to move the splats")
    frame.press("Home")
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, start) < SAME, "the first frame again")
    frame.press("End")
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, end) < SAME, "the last frame again")

    page.locator("input.mantine-TextInput-input").last.fill("a jump")  # viser's own address field comes first
    page.keyboard.press("Enter")
    page.get_by_text("most like “a jump” (jump, similarity 1.00)").wait_for()
    wait_for_change(page, end, "the prompt to change the motion")
    assert (workdir / "text_projector.npz").is_file()

    free = MIDDLE | dict(x=0, width=page.locator("canvas").first.bounding_box()["width"])
    picture = take_picture(page, free)  # before notes cover it
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as taken:
        page.locator("a[download='a_jump.ply']").click()
    path = workdir / "view" / "a_jump.ply"
    assert len(read_gaussians(path).means) == 300
    assert Path(taken.value.path()).read_bytes() == path.read_bytes()
    camera = json.loads((workdir / "facts.json").read_text())["camera"]
    check_that_it_stands_in_the_middle(picture, read_gaussians(path).means, camera)
    page.get_by_label("What").click()
    page.get_by_role("option", name="rig of the key points").click()
    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as taken:
        page.locator("a[download='a_jump.glb']").click()
    assert Path(taken.value.path()).read_bytes()[:4] == b"glTF"

    axis = page.get_by_role("slider").nth(3)  # after frame, speed and share
    moved = settle(page)
    axis.press("End")
    aside = wait_for_change(page, moved, "the axis to change the motion")
    page.get_by_role("button", name="Reset axes").click()
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, moved) < SAME, "the motion itself again")
    assert difference(aside, moved) > 1

    page.get_by_label("Play").check()
    shown = page.locator("input.mantine-NumberInput-input").first
    seen = {shown.input_value()}
    wait_for(shown.input_value, lambda value: seen.add(value) or len(seen) > 2, "the motion to play")
    page.get_by_label("Play").uncheck()

    still = settle(page)
    page.mouse.move(500, 400)
    page.mouse.down()
    page.mouse.move(620, 400, steps=4)
    page.mouse.up()
    wait_for_change(page, still, "the camera to orbit")
