"""The viewer in a real browser, headless Chromium with software WebGL, driven by Playwright."""

import io
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
from support import bert_folder, browser

from dimo_jax.io.ply import read_gaussians
from tests.apps.view_run import write_run

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds, for machines that do much else
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
        page = chrome.new_page(viewport=dict(width=1100, height=700))
        page.set_default_timeout(1000 * PATIENCE)
        yield page
        chrome.close()


def wait_for(look, accepts, what):
    """Looks until what is seen is accepted; returns it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = look()
        if accepts(seen):
            return seen
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def take_picture(page):
    """The middle of the window, float32 [H,W,3]."""
    png = page.screenshot(clip=MIDDLE)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def settle(page):
    """The picture, once it has stopped changing: splats are sorted some frames after they are set."""
    last = [take_picture(page)]

    def is_still(picture):
        before, last[0] = last[0], picture
        return np.array_equal(before, picture)

    time.sleep(0.5)
    return wait_for(lambda: take_picture(page), is_still, "the picture to stand still")


def difference(one, other):
    """Mean over pixels and colours, of 255."""
    return float(np.abs(one - other).mean())


def wait_for_change(page, before, what):
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, before) > 1, what)
    return settle(page)


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

    frame = page.get_by_role("slider").first
    frame.press("End")
    end = wait_for_change(page, start, "the time slider to move the splats")
    frame.press("Home")
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, start) < 0.2, "the first frame again")
    frame.press("End")
    wait_for(lambda: take_picture(page), lambda picture: difference(picture, end) < 0.2, "the last frame again")

    page.locator("input.mantine-TextInput-input").last.fill("a jump")  # viser's own address field comes first
    page.keyboard.press("Enter")
    page.get_by_text("most like “a jump” (jump, similarity 1.00)").wait_for()
    wait_for_change(page, end, "the prompt to change the motion")
    assert (workdir / "text_projector.npz").is_file()

    page.get_by_role("button", name="Export", exact=True).click()
    path = workdir / "view" / "a_jump.ply"
    wait_for(path.is_file, bool, "the exported file")
    assert len(read_gaussians(path).means) == 300

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
