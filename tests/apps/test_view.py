"""The viewer without a browser: from choices to the arrays that are sent, its loop, its exports, what it refuses."""

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import imageio.v3
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.apps import view
from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.io.ply import read_gaussians
from dimo_jax.runs import captions
from dimo_jax.runs.restore import restore
from dimo_jax.systems.dimo.sentences import text_options
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import load_config
from dimo_jax.views.trajectories import read_trajectories
from dimo_jax.views.viewer import exports, loop, prompts
from dimo_jax.views.viewer.session import Session, Source
from dimo_jax.views.viewer.source_mesh import SourceMesh
from tests.apps.view_run import CAPTIONS, NAMES, SIZES, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def traces():
    """Times that the motion has been traced for compilation."""
    return []


@pytest.fixture(scope="module")
def session(workdir, traces):
    model = restore(workdir)
    move = model.player.move

    def counted(*arguments):
        traces.append(1)
        return move(*arguments)

    model.player.move = counted
    return Session(model)


@pytest.fixture
def shown():
    return []


@pytest.fixture
def viewer(session, shown):
    return loop.Viewer(session, lambda *what: shown.append(what))


def clip_of(session, code, frame):
    """What the other apps show at a frame."""
    clip = session.model.player.play(jnp.asarray(code), [frame / SIZES["num_frames"]])
    return clip.gaussians, clip.key_points[0]


def test_a_frame_is_what_the_player_plays(session):
    choices = dataclasses.replace(session.begin(), source=session.sources["jump"], frame=2.5)
    frame = session.pose(session.settle(choices), choices.frame)
    gaussians, key_points = clip_of(session, session.sources["jump"].code, 2.5)
    alive = slice(20, None)
    np.testing.assert_allclose(frame.means, gaussians.means[0, alive], atol=1e-6)
    np.testing.assert_allclose(frame.key_points, key_points, atol=1e-6)
    wxyz = np.asarray(gaussians.quats[0, alive])
    axes = Rotation.from_quat(wxyz, scalar_first=True).as_matrix() * np.exp(gaussians.log_scales[0, alive])[:, None]
    np.testing.assert_allclose(frame.covariances, axes @ axes.swapaxes(1, 2), rtol=1e-4, atol=1e-8)
    assert len(frame.means) == len(session.opacities) == 300
    colors = 0.5 + 0.28209479 * np.asarray(gaussians.sh[0, alive, 0])
    np.testing.assert_allclose(frame.colors, np.clip(colors, 0, 1), atol=1e-5)
    np.testing.assert_allclose(session.opacities, 1 / (1 + np.exp(-2.0)), rtol=1e-5)


def test_codes_follow_the_sliders(session):
    wave, jump = (session.sources[name] for name in NAMES[:2])
    choices = dataclasses.replace(session.begin(), source=wave, target=jump)
    np.testing.assert_array_equal(session.code(choices), wave.code)
    for line in ("linear", "spherical"):
        np.testing.assert_allclose(session.code(dataclasses.replace(choices, share=1.0, line=line)), jump.code)
    half = dataclasses.replace(choices, share=0.5)
    np.testing.assert_allclose(session.code(half), 0.5 * (wave.code + jump.code), rtol=1e-6)
    assert len(session.axis_shares) == 2  # three codes span a plane
    assert sum(session.axis_shares) == pytest.approx(1.0)
    codes = np.stack([source.code for source in session.sources.values()])
    values, vectors = np.linalg.eigh(np.cov(codes.T, bias=True))
    aside = np.asarray(session.code(dataclasses.replace(choices, offsets=(2.0, 0.0))) - wave.code)
    assert np.linalg.norm(aside) == pytest.approx(2 * np.sqrt(values[-1]), rel=1e-4)
    assert abs(aside @ vectors[:, -1]) == pytest.approx(np.linalg.norm(aside), rel=1e-4)
    assert session.describe(half) == "wave → jump, 50%"
    assert session.describe(dataclasses.replace(choices, offsets=(2.0, 0.0))) == "wave, axis 1 +2.0 σ"


def test_edges_are_those_of_the_graph_each_once(session):
    motion = session.settle(session.begin())
    pairs = {(k, j) for k, row in enumerate(np.asarray(motion.neighbors.controls)) for j in row if j != k}
    assert {tuple(edge) for edge in motion.edges.tolist()} == {tuple(sorted(map(int, pair))) for pair in pairs}
    assert motion.trajectories.shape == (6, 16, 3)
    np.testing.assert_allclose(motion.trajectories[4], clip_of(session, motion.code, 4)[1], atol=1e-6)


def test_no_slider_compiles_anything(session, traces, viewer):
    before = len(traces)
    assert before >= 1
    for share, frame, line in ((0.3, 1, "linear"), (0.61, 2.2, "spherical"), (1.0, 5.0, "linear")):
        viewer.choose(share=share, frame=frame, line=line, target=session.sources["left"], offsets=(share, -1.0))
        assert viewer.update()
    viewer.choose(source=session.draw(5))
    viewer.update()
    assert len(traces) == before


def test_only_what_has_changed_is_computed_and_shown(session, viewer, shown):
    assert viewer.update()
    assert not viewer.update()
    assert len(shown) == 1
    viewer.choose(opacity=0.5)
    viewer.update()
    assert shown[1][0] is shown[0][0]
    assert shown[1][1] is shown[0][1]
    viewer.choose(frame=3.0)
    viewer.update()
    assert shown[2][0] is shown[0][0]
    assert np.max(np.abs(shown[2][1].means - shown[0][1].means)) > 1e-3
    viewer.choose(share=0.5, target=session.sources["jump"])
    viewer.choose(share=0.75)
    viewer.update()
    assert len(shown) == 4  # the choice in between was never shown
    np.testing.assert_allclose(shown[3][0].code, session.code(viewer.choices))
    assert np.max(np.abs(shown[3][1].means - shown[2][1].means)) > 1e-3


def test_a_motion_plays_at_its_rate_and_begins_again(viewer, shown):
    viewer.choose(playing=True)
    viewer.update(0.25)
    assert viewer.choices.frame == pytest.approx(2.5)  # at 10 frames a second
    viewer.choose(speed=0.5)
    viewer.update(0.65)
    assert viewer.choices.frame == pytest.approx(5.75)
    last = viewer.session.pose(shown[-1][0], 5.0)
    np.testing.assert_array_equal(shown[-1][1].means, last.means)  # the last frame stands
    viewer.update(0.1)
    assert viewer.choices.frame == pytest.approx(0.25)
    viewer.choose(playing=False)
    viewer.update(1.0)
    assert viewer.choices.frame == pytest.approx(0.25)


def test_the_loop_follows_and_stops(viewer, shown):
    stop = threading.Event()
    thread = threading.Thread(target=viewer.run, args=(stop,))
    thread.start()
    viewer.choose(frame=4.0)
    deadline = time.monotonic() + 30
    while not (shown and shown[-1][2].frame == 4.0) and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert shown[-1][2].frame == 4.0


def test_a_draw_is_that_of_the_sample_app(session):
    assert session.draw(3).label == "sample 3"
    np.testing.assert_array_equal(session.draw(3).code, session.draw(3).code)
    assert np.max(np.abs(session.draw(3).code - session.draw(4).code)) > 1e-3


def test_nodes_get_the_arrays_of_the_chosen_layers(server, session, workdir, tmp_path):
    asked = prompts.Prompts(session.model, workdir)
    viewer = view.build(server, session, asked, out=tmp_path, size=64)
    viewer.update()
    splats, points, trails, graph = (
        server.scene.get_handle_by_name(name) for name in ("/gaussians", "/key_points", "/trajectories", "/graph")
    )
    assert [node.visible for node in (splats, points, trails, graph)] == [True, False, False, False]
    motion = session.settle(viewer.choices)
    for frame in (0.0, 3.0):
        viewer.choose(frame=frame)
        viewer.update()
        pose = session.pose(motion, frame)
        np.testing.assert_allclose(splats.scale * splats.centers, pose.means, atol=1e-6)
        np.testing.assert_allclose(splats.scale**2 * splats.covariances, pose.covariances, rtol=2e-3, atol=1e-8)
    np.testing.assert_allclose(splats.opacities[:, 0], 255 * session.opacities, atol=1)
    np.testing.assert_allclose(splats.rgbs, 255 * pose.colors, atol=1)
    assert not np.any(points.points)  # hidden, so never sent
    viewer.choose(layers=frozenset({"Key points", "Trajectories", "Motion graph"}))
    viewer.update()
    assert [node.visible for node in (splats, points, trails, graph)] == [False, True, True, True]
    np.testing.assert_allclose(points.points, pose.key_points, atol=1e-6)
    np.testing.assert_allclose(trails.points.reshape(20, 16, 2, 3)[11, :, 1], motion.trajectories[3], atol=1e-6)
    np.testing.assert_allclose(graph.points, pose.key_points[motion.edges], atol=1e-6)
    assert graph.points.shape == (len(motion.edges), 2, 3)


def test_small_gaussians_survive_the_half_floats_of_the_wire(server, session):
    scene = view.Scene(server, session)
    motion = session.settle(session.begin())
    frame = session.pose(motion, 0.0)
    tiny = dataclasses.replace(frame, covariances=np.full_like(frame.covariances, 2.5e-7))  # half a millimetre
    scene.show(motion, tiny, session.begin())
    splats = server.scene.get_handle_by_name("/gaussians")
    np.testing.assert_allclose(splats.scale**2 * splats.covariances, tiny.covariances, rtol=1e-3)
    huge = dataclasses.replace(frame, covariances=np.full_like(frame.covariances, 1e3))
    scene.show(motion, huge, session.begin())
    assert np.isfinite(splats.covariances).all()


@pytest.fixture
def shot(session):
    camera = exports.camera_of(np.array([0.0, 0, 2]), np.array([0.0, 1, 0, 0]), fov=0.6, aspect=1.5, height=32)
    choices = dataclasses.replace(session.begin(), frame=2.0, layers=frozenset({"Gaussians", "Key points"}))
    return exports.Shot(session.model, session.code(choices), choices, "“a/b” → c", camera)


def test_exports_hold_what_is_on_the_screen(shot, session, tmp_path):
    kinds = [kind for kind in exports.EXPORTS if "mesh" not in kind]
    ply, film, rig, curves, motion = (exports.export(shot, kind, tmp_path) for kind in kinds)
    names = [path.name for path in (ply, film, rig, curves, motion)]
    assert names == ["a_b_c.ply", "a_b_c.mp4", "a_b_c.glb", "a_b_c.npz", "a_b_c_motion.npz"]
    gaussians, _ = clip_of(session, shot.code, 2.0)
    np.testing.assert_array_equal(read_gaussians(ply).means, gaussians.means[0, 20:])
    frames = imageio.v3.imread(film)
    assert frames.shape == (6, 32, 48, 3)
    assert np.std(frames[0].astype(float)) > 5
    fields = read_trajectories(curves)
    np.testing.assert_allclose(fields["trajectories"][0], session.settle(shot.choices).trajectories, atol=1e-6)
    np.testing.assert_array_equal(fields["times"], frame_times(6))
    with np.load(motion) as data:
        np.testing.assert_allclose(data["key_points"], fields["trajectories"][0], atol=1e-6)
        np.testing.assert_allclose(data["means"][2], gaussians.means[0, 20:], atol=1e-5)
    (clip,) = read_json(rig)["animations"]
    assert clip["name"] == shot.title
    assert len(clip["channels"]) >= 16  # a joint for each key point, at least


def read_json(path):
    """The JSON of a GLB."""
    data = path.read_bytes()
    return json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])


def test_a_mesh_needs_the_source_that_the_data_came_from(shot, session, workdir, tmp_path):
    (kind,) = (kind for kind in exports.EXPORTS if "mesh" in kind)
    given = dataclasses.replace(shot, mesh=SourceMesh(session.model, workdir, source=""))
    with pytest.raises(UserError, match=r"--source: not given, expected the \.glb"):
        exports.export(given, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_export_replaces_no_other(shot, tmp_path):
    kind = next(iter(exports.EXPORTS))
    long = dataclasses.replace(shot, title="x" * 200)
    assert [exports.export(long, kind, tmp_path).name for _ in range(2)] == ["x" * 70 + ".ply", "x" * 70 + "_2.ply"]
    moved = dataclasses.replace(shot, title="wave, axis 1 +2.0 σ")
    assert exports.export(moved, kind, tmp_path).name == "wave_axis_1_+2.0.ply"
    names = [exports.export(shot, kind, tmp_path).name for _ in range(3)]
    assert names == ["a_b_c.ply", "a_b_c_2.ply", "a_b_c_3.ply"]


def test_visitors_who_export_at_once_get_a_file_each(shot, tmp_path, monkeypatch):
    def write(shot, path):
        time.sleep(0.05)
        path.write_text("mine")

    monkeypatch.setitem(exports.EXPORTS, "slow", (".txt", write))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: exports.export(shot, "slow", tmp_path), range(4)))
    assert sorted(path.name for path in paths) == ["a_b_c.txt", "a_b_c_2.txt", "a_b_c_3.txt", "a_b_c_4.txt"]


def test_a_visitors_camera_is_a_pinhole_of_ours():
    like = orbit([70.0], 20.0, radius=2.5, fov_deg=40.0, height=60, width=90)
    pose = np.asarray(like.world_to_camera[0], np.float64)
    wxyz = Rotation.from_matrix(pose[:3, :3].T).as_quat(scalar_first=True)
    eye = -pose[:3, :3].T @ pose[:3, 3]
    camera = exports.camera_of(eye, wxyz, fov=np.deg2rad(40.0), aspect=1.5, height=60)
    np.testing.assert_allclose(camera.world_to_camera, pose, atol=1e-6)
    np.testing.assert_allclose(camera.focal, like.focal[0], rtol=1e-6)
    np.testing.assert_allclose(camera.center, like.center[0])
    assert (camera.height, camera.width) == (60, 90)


class Letters:
    """An encoder that counts letters."""

    pooling, sha256 = "mean", "letters"

    def embed(self, sentences):
        return np.array([[each.count(c) for c in "walkevsjumphndrit ,"] for each in sentences], np.float32)


def test_a_prompt_becomes_a_motion_and_is_read_once(session, workdir, monkeypatch):
    loads = []
    monkeypatch.setattr(prompts, "load_encoder", lambda *a, **k: loads.append(1) or Letters())
    asked = prompts.Prompts(session.model, workdir)
    for name, caption in zip(NAMES, CAPTIONS):
        made = asked.make(f"  {caption} ")
        distances = {other.label: np.linalg.norm(other.code - made.code) for other in session.sources.values()}
        assert min(distances, key=distances.get) == name
        assert made.label == f"“{caption}”"
        assert f"({name}, similarity 1.00)" in made.words
    assert len(loads) == 1
    assert (workdir / captions.FILE).is_file()
    with pytest.raises(UserError, match="prompt: found no words"):
        asked.make(" \n ")


def test_a_run_that_cannot_be_written_to_answers_prompts_all_the_same(session, tmp_path, workdir, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(captions, "_write", refuse)
    speaker, _ = captions.speak_for(session.model, tmp_path, text_options(load_config(workdir)), Letters())
    assert speaker.codes(speaker.embeddings[:1]).shape == (1, 4)
    assert not list(tmp_path.iterdir())


class Screen:
    """A visitor who is shown notes."""

    def __init__(self):
        self.note = SimpleNamespace(remove=lambda: setattr(self, "removed", True))
        self.removed = False

    def add_notification(self, title, body, **options):
        vars(self.note).update(options, title=title, body=body)
        return self.note


def test_what_fails_is_told_to_the_visitor():
    from dimo_jax.views.viewer.notices import Notice

    screen = Screen()
    with Notice(screen, "Reading", "wait"):
        raise UserError("text: package tokenizers not found")
    assert (screen.note.body, screen.note.loading) == ("text: package tokenizers not found", False)
    assert not screen.removed
    with pytest.raises(ZeroDivisionError), Notice(screen, "Reading", "wait"):
        raise ZeroDivisionError
    assert (screen.note.title, screen.note.body) == ("That did not work", "ZeroDivisionError")
    with Notice(screen, "Reading", "wait"):
        pass
    assert screen.removed


def test_the_list_grows_by_what_is_made(session):
    source = session.add(Source("sample 7", np.zeros(4, np.float32)))
    assert list(session.sources) == [*NAMES, "sample 7"]
    del session.sources[source.label]


@pytest.mark.parametrize(("flags", "says"), [
    (dict(port=70_000), "--port: found 70000, expected 0 to 65535"),
    (dict(size=0), "--size: found 0, expected at least 1"),
    (dict(hide="hat"), "--hide: found 'hat', expected --source with it"),
    (dict(source="none.glb"), "--source: found 'none.glb', expected the .glb or .gltf file"),
    (dict(workdir="none"), "no such folder"),
    (dict(host="192.0.2.1"), "--host=192.0.2.1 --port=0: cannot listen there"),
])  # fmt: skip
def test_bad_flags_are_refused(flags, says, workdir, tmp_path, monkeypatch):
    pytest.importorskip("viser", reason="viser is not installed (pip install 'dimo_jax[view]')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        view.run(**(dict(workdir=str(workdir)) | flags))
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_refused(workdir, monkeypatch):
    pytest.importorskip("viser", reason="viser is not installed (pip install 'dimo_jax[view]')")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: cannot listen there"):
            view.run(workdir=str(workdir), port=port)


def test_without_viser_one_line_says_how_to_install_it(tmp_path):
    (tmp_path / "viser.py").write_text("raise ImportError('no such package')")
    environment = os.environ | dict(PYTHONPATH=str(tmp_path), JAX_PLATFORMS="cpu")
    command = [sys.executable, str(ROOT / "launch.py"), "--app=view", "--workdir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: --app=view: package viser not found")
    assert "pip install 'dimo_jax[view]'" in line
    assert not (tmp_path / "run").exists()
