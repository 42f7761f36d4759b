"""`--app=view` of a rig's motion space: what is posed, what is written, and its controls in a real browser."""

import dataclasses
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
from support.puppet_rig import puppet_file
from support.travelling import walking_run

from dimo_jax.apps import animate, view
from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import make_texture
from dimo_jax.rigs.posing import pose_nodes, pose_vertices
from dimo_jax.runs.rigs import restore_rig
from dimo_jax.views.viewer.loop import Viewer
from dimo_jax.views.viewer.prompts import Prompts
from dimo_jax.views.viewer.rig_panel import RigWriter
from dimo_jax.views.viewer.rig_scene import MOST_COLORS, color_faces, group_faces
from dimo_jax.views.viewer.rig_session import RigSession
from tests.apps.test_view_browser import PATIENCE, ROOT, settle, wait_for, wait_for_change

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def workdir():
    return walking_run()


@pytest.fixture(scope="module")
def session(workdir):
    return RigSession(restore_rig(workdir), workdir)


def test_what_is_shown_is_what_animate_writes(session, workdir, tmp_path):
    assert list(session.sources) == ["jumping_jacks", "walk", "on"]
    animate.run(workdir=str(workdir), out=str(tmp_path / "a.glb"), motion="on", fps=10.0)
    scene = load_scene(tmp_path / "a.glb")
    clip, choices = scene.clips[-1], dataclasses.replace(session.begin(), source=session.sources["on"])
    motion = session.settle(choices)
    for share in (0.0, 0.5):
        true = pose_vertices(scene, pose_nodes(scene, clip, np.array([share * clip.end])), 0)
        np.testing.assert_allclose(session.pose(motion, share).vertices, true, atol=2e-4)
    still = session.settle(dataclasses.replace(choices, in_place=True))
    away = [session.pose(each, 0.5).vertices.mean(axis=0) for each in (motion, still)]
    assert np.linalg.norm(away[0] - away[1]) > 0.3


def test_bones_join_the_heads_of_joints(session):
    frame = session.pose(session.settle(session.begin()), 0.0)
    assert frame.joints.shape == (len(session.rigged.markers.joints.nodes), 3)
    lengths = np.linalg.norm(np.diff(frame.joints[session.bones], axis=1), axis=-1)
    assert len(session.bones) > 10
    assert lengths.max() < 0.6


def test_codes_and_lengths_lie_between_those_of_two(session):
    one, other = session.sources["walk"], session.sources["on"]
    half = session.settle(dataclasses.replace(session.begin(), source=one, target=other, share=0.5))
    np.testing.assert_allclose(half.codes, (one.chosen.codes + other.chosen.codes) / 2, atol=1e-6)
    np.testing.assert_allclose(half.ways, np.asarray(other.chosen.ways) / 2)
    assert half.name == "walk_on_50"
    np.testing.assert_array_equal(session.draw(3).chosen.codes, session.draw(3).chosen.codes)
    assert np.abs(session.draw(3).chosen.codes - session.draw(4).chosen.codes).max() > 1e-3


def test_a_motion_plays_at_its_rate_and_begins_again(session):
    shown = []
    viewer = Viewer(session, lambda motion, frame, choices: shown.append(choices.frame))
    seconds = session.find_seconds(viewer.choices)
    viewer.choose(playing=True, speed=0.5)
    viewer.update(0.25 * seconds)
    assert viewer.choices.frame == pytest.approx(0.125)
    viewer.update(2 * seconds)
    assert viewer.choices.frame == pytest.approx(0.125)
    assert shown == pytest.approx([0.125])  # the second update shows the same


def test_motions_are_written_into_the_models_file(session, tmp_path):
    writer = RigWriter(session, tmp_path / "view")
    motion = session.settle(dataclasses.replace(session.begin(), source=session.sources["on"]))
    paths = [writer.write([motion, session.draw(1).chosen], "walker_a/b") for _ in range(2)]
    assert [path.name for path in paths] == ["walker_a_b.glb", "walker_a_b_2.glb"]
    scene = load_scene(paths[1])
    assert [clip.name for clip in scene.clips[-2:]] == ["on_2", "sample_1_1"]
    assert [clip.name for clip in scene.clips[:-2]] == [clip.name for clip in session.model.scene.clips]
    rows = json.loads(paths[1].with_suffix(".json").read_text())["clips"]
    assert [row["clip"] for row in rows] == ["on_2", "sample_1_1"]


def test_faces_have_the_colours_of_textures_and_vertices():
    red_blue = np.zeros((1, 2, 4), np.uint8)
    red_blue[0, :, 3], red_blue[0, 0, 0], red_blue[0, 1, 2] = 255, 255, 255
    materials = (
        Material(np.ones(4), texture=make_texture(red_blue, nearest=True)),
        Material(np.array([0, 1.0, 0, 1]), double_sided=False, emission=np.array([0, 0, 1.0])),
    )
    texcoords = np.array([[0.2, 0.5]] * 3 + [[0.8, 0.5]] * 3 + [[0, 0]] * 3)
    triangles = np.arange(9, dtype=np.int32).reshape(3, 3)
    mesh = Mesh(triangles, np.array([0, 0, 1], np.int32), materials, texcoords, np.ones((9, 4)), np.arange(9))
    np.testing.assert_array_equal(color_faces(mesh), [[255, 0, 0], [0, 0, 255], [0, 255, 255]])
    groups = {color: (both, faces.tolist()) for color, both, faces in group_faces(mesh)}
    assert groups[0, 255, 255] == (False, [[6, 7, 8]])
    assert groups[255, 0, 0] == (True, [[0, 1, 2]])
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 4)).astype(np.uint8)
    count = 200
    places = np.random.default_rng(1).random((3 * count, 2))
    triangles = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    many = Mesh(triangles, np.zeros(count, np.int32), (Material(np.ones(4), texture=make_texture(noise)),), places,
                np.ones((3 * count, 4)), np.arange(3 * count))  # fmt: skip
    groups = group_faces(many)
    assert 2 <= len(groups) <= MOST_COLORS
    assert sorted(row[0] for *_, faces in groups for row in faces.tolist()) == list(range(0, 3 * count, 3))


def test_flags_of_pictures_are_refused(workdir, monkeypatch):
    monkeypatch.setattr(view, "import_viser", lambda: None)
    with pytest.raises(UserError, match="--size: found 64, expected pictures with it"):
        view.run(workdir=str(workdir), size=64)


def test_nodes_get_the_vertices_of_the_chosen_layers(server, session, workdir, tmp_path):
    viewer = view.build_rig(server, session, Prompts(session.model, workdir), out=tmp_path)
    viewer.choose(frame=0.3)
    viewer.update()
    frame = session.pose(session.settle(viewer.choices), 0.3)
    triangles = group_faces(session.model.scene.mesh)[1][2]
    node, lines = server.scene.get_handle_by_name("/body/1"), server.scene.get_handle_by_name("/bones")
    np.testing.assert_allclose(node.vertices[node.faces], frame.vertices[triangles], atol=1e-6)
    assert 0 < node.opacity < 1
    np.testing.assert_allclose(lines.points, frame.joints[session.bones], atol=1e-6)
    viewer.choose(layers=frozenset({"Body"}), frame=0.6)
    viewer.update()
    assert node.opacity is None
    assert not lines.visible
    np.testing.assert_allclose(lines.points, frame.joints[session.bones], atol=1e-6)  # hidden, so not sent


@pytest.mark.slow
def test_a_rig_in_a_browser(workdir, tmp_path):
    pytest.importorskip("viser", reason="no browser test without viser (pip install 'dimo_jax[view]')")
    browser.find_browser()
    from playwright.sync_api import sync_playwright

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch.py"), "--app=view", f"--workdir={workdir}", f"--port={port}"]
    command += [f"--out={tmp_path / 'out'}"]
    environment = os.environ | dict(JAX_PLATFORMS="cpu")
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next((line for line in process.stdout if line.startswith("the viewer is at ")), "")
            assert f"http://127.0.0.1:{port}" in line
            with sync_playwright() as playwright:
                chrome = browser.launch(playwright)
                page = chrome.new_page(viewport=dict(width=1100, height=900))
                page.set_default_timeout(1000 * PATIENCE)
                page.goto(line.split()[4].rstrip(","))
                page.get_by_text("Write this motion").wait_for()
                page.get_by_label("Play").click()
                start = settle(page)
                assert np.mean(np.abs(start - start[0, 0]).max(axis=-1) > 20) > 0.02
                page.locator("input.mantine-Select-input:visible").first.click()  # the motions; targets come second
                page.get_by_role("option", name="on", exact=True).click()
                page.get_by_role("slider").first.press("Home")
                first = settle(page)
                page.get_by_role("slider").first.press("End")
                wait_for_change(page, first, "the slider to send the model along its way")
                page.get_by_text("Random sample").click()
                wait_for(lambda: page.get_by_text("sample 0").count(), bool, "the drawn motion")
                page.screenshot(path=str(Path(os.environ.get("SHOTS", tmp_path)) / "rig.png"))
                page.get_by_text("Write all new motions").click()
                with page.expect_download() as download:
                    page.locator("a[download='walker_new.glb']").click()
                download.value.save_as(tmp_path / "got.glb")
                chrome.close()
            names = [clip.name for clip in load_scene(tmp_path / "got.glb").clips]
            assert names == [*(clip.name for clip in load_scene(puppet_file()).clips), "on", "sample_0_1"]
            assert (tmp_path / "out" / "walker_new.glb").read_bytes() == (tmp_path / "got.glb").read_bytes()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()
