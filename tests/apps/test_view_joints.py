"""`--app=view` of what `--app=articulate` wrote: its links and ranked joints, and sliders in a real browser."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import browser

from dimo_jax.apps import view
from dimo_jax.apps.articulate import run
from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import move_points
from dimo_jax.io.articulated_read import is_articulated, read_articulated
from dimo_jax.views.viewer.joints import JointsView
from tests.apps.test_view_browser import PATIENCE, ROOT, settle, wait_for, wait_for_change

PARTS = [
    {"part": "door", "sentence": "open the door"},
    {"part": "knob", "parent": "door", "sentence": "turn the knob"},
    {"part": "drawer", "sentence": "pull out the drawer", "candidate": 1},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joints")
    (folder / "parts.json").write_text(json.dumps(PARTS))
    run(source="cabinet", parts=str(folder / "parts.json"), out=str(folder / "out"), size=64)
    return folder / "out"


def test_links_and_ranked_joints_are_read_as_they_were_written(folder):
    assert is_articulated(folder)
    written = read_articulated(folder)
    assert [link.name for link in written.articulation.links] == ["body", "door", "knob", "drawer"]
    assert [link.parent for link in written.articulation.links] == [-1, 0, 1, 0]
    assert written.taken == (0, 0, 1)
    found = json.loads((folder / "joint.json").read_text())["joints"]
    for link, ranked, taken, entry in zip(written.articulation.links[1:], written.ranked, written.taken, found):
        assert link.joint == ranked[taken]
        np.testing.assert_allclose(link.joint.axis, entry["axis"])
        assert len(ranked) == 1 + len(entry["runners_up"])


def test_sliders_move_parts_and_another_joint_begins_at_rest(folder):
    view = JointsView(read_articulated(folder))
    view.values[0] = 0.8
    door, knob = (view.articulation.links[index] for index in (1, 2))
    pose = view.poses()[1]
    moved = door.vertices @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(moved, move_points(door.joint, 0.8, door.vertices), atol=1e-9)
    np.testing.assert_allclose(view.poses()[2], pose, atol=1e-12)  # the knob hangs on the door
    assert knob.parent == 1
    view.take(0, 1)
    assert view.articulation.links[1].joint == view.ranked[0][1]
    np.testing.assert_allclose(view.poses(), np.tile(np.eye(4), (4, 1, 1)), atol=1e-12)


@pytest.mark.parametrize("damage", ['{"links": []}', "no json", '{"links": [{"name": "body"}], "joints": [{}]}'])
def test_what_is_damaged_is_said_in_one_line(folder, tmp_path, damage):
    (tmp_path / "object.glb").write_bytes((folder / "object.glb").read_bytes())
    (tmp_path / "joint.json").write_text(damage)
    with pytest.raises(UserError, match=r"joint\.json: .*expected") as error:
        read_articulated(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def served(folder):
    """A viewer of the folder, started as users do: its address."""
    pytest.importorskip("viser", reason="no browser test without viser (pip install 'dimo_jax[view]')")
    browser.find_browser()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch.py"), "--app=view", f"--workdir={folder}", f"--port={port}"]
    environment = os.environ | dict(JAX_PLATFORMS="cpu")
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = next((line for line in process.stdout if line.startswith("the viewer is at ")), "")
        assert f"http://127.0.0.1:{port}" in line
        try:
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()


def test_flags_of_a_training_run_are_refused(folder, monkeypatch):
    monkeypatch.setattr(view, "import_viser", lambda: None)
    for given, found in ((dict(size=64), "--size: found 64"), (dict(checkpoint="best"), "--checkpoint: found 'best'")):
        with pytest.raises(UserError, match=f"{found}, expected a training run with it"):
            view.run(workdir=str(folder), **given)


@pytest.mark.slow
def test_an_articulated_object_in_a_browser(served, tmp_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = browser.launch(playwright)
        page = chrome.new_page(viewport=dict(width=1100, height=700))
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(served)
        page.get_by_text("To write this joint").wait_for()
        start = settle(page)
        assert np.mean(np.abs(start - start[0, 0]).max(axis=-1) > 20) > 0.05

        door = page.get_by_role("slider").first
        door.press("End")
        opened = wait_for_change(page, start, "the slider to open the door")
        door.press("Home")
        wait_for_change(page, opened, "the slider to close the door")

        page.locator("input.mantine-Select-input:visible").first.click()  # the parts; their joints come second
        page.get_by_role("option", name="drawer").click()
        wait_for(lambda: page.get_by_text("candidate of drawer").count(), bool, "the drawer's joints")
        page.screenshot(path=str(Path(os.environ.get("SHOTS", tmp_path)) / "joints.png"))
        chrome.close()
