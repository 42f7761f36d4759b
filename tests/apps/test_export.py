"""`--app=export` from an untrained model in one file: every format, every choice of a motion, what it refuses."""

import dataclasses
import functools
import inspect
import json
import re
import subprocess

import imageio.v3
import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.textured_model import textured_model

from dimo_jax.apps import export, sample, view
from dimo_jax.cameras.turntable import Turntable
from dimo_jax.cameras.upright import turn_to_y
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import join_names
from dimo_jax.data.formats.native import write_dataset
from dimo_jax.data.formats.rigged.passes import Timing
from dimo_jax.data.formats.rigged.plan import Options, import_gltf
from dimo_jax.geometry.world import World
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.ply import read_gaussians
from dimo_jax.runs.motions import find_motions, read_codes
from dimo_jax.runs.restore import restore, save_facts
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.training.config_file import to_plain
from dimo_jax.training.model_file import load_model_file, write_model
from dimo_jax.views import gallery
from dimo_jax.views.camera_path import make_camera_path
from dimo_jax.views.viewer import exports
from dimo_jax.views.viewer.session import Session
from dimo_jax.views.viewer.source_mesh import SourceMesh


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file of an untrained model, and beside it the source and the dataset that it stands for."""
    folder = tmp_path_factory.mktemp("export")
    source = textured_model(folder / "source.glb")
    data = import_gltf(
        source, Options(timing=Timing(num_frames=4), turntable=Turntable(size=16, samples=1), num_surface_points=8)
    )
    write_dataset(data, folder / "data")
    save_facts(data, folder)
    config = get_config("smoke")
    config.data.path = str(folder / "data")
    step = stages.build_stages(config)[1].span.last_step
    template = stages.template(config, build_components(config), step=step, num_motions=2, num_frames=4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), template.params)
    small = dict(log_scales=params.gaussians.log_scales - 4, logit_opacities=params.gaussians.logit_opacities + 1)
    params = params.replace(gaussians=params.gaussians.replace(**small))
    alive = np.arange(len(params.gaussians.means)) != 3
    facts = json.loads((folder / "facts.json").read_text())
    write_model(params, alive, folder / "model.npz", config=to_plain(config), facts=facts, step=step)
    return folder


@pytest.fixture(autouse=True)
def keep_models(monkeypatch):
    """Restores a file once for all tests: most of their time is XLA's compiler."""
    monkeypatch.setattr(export, "restore", restore_once)


restore_once = functools.cache(restore)


def run(model, out, **flags):
    export.run(workdir=str(model / "model.npz"), out=str(out), **flags)
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_model_file_is_what_every_app_restores(model, tmp_path):
    assert run(model, tmp_path, format="checkpoint") == ["model.npz"]
    once, twice = restore_once(model / "model.npz"), restore(tmp_path / "model.npz")
    for a, b in zip(jax.tree.leaves(once.player.params), jax.tree.leaves(twice.player.params), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(once.player.alive, twice.player.alive)
    assert not twice.player.alive[3]
    assert (twice.step, twice.facts) == (once.step, once.facts)
    assert restore(str(tmp_path / "model.npz")).step == once.step  # a path as a text, too
    sample.run(workdir=str(tmp_path / "model.npz"), num_samples=1)
    assert (tmp_path / "model/samples/samples_0.mp4").stat().st_size > 0


def test_all_formats_of_a_trained_motion(model, tmp_path, capsys):
    files = run(
        model, tmp_path, format="ply,splat,gltf,glb,npz,mesh", motion="Bend,1", source=str(model / "source.glb")
    )
    assert files == [
        *(f"Bend{suffix}" for suffix in (".glb", ".npz")),
        *(f"Bend_gltf/{frame:06d}.glb" for frame in range(4)),
        *(f"Bend_ply/{frame:06d}.ply" for frame in range(4)),
        "Bend_ply/canonical.ply",
        *(f"Bend_splat/{frame:06d}.splat" for frame in range(4)),
        *(f"Fly{suffix}" for suffix in (".glb", ".npz")),
        *(f"Fly_gltf/{frame:06d}.glb" for frame in range(4)),
        *(f"Fly_ply/{frame:06d}.ply" for frame in range(4)),
        "Fly_ply/canonical.ply",
        *(f"Fly_splat/{frame:06d}.splat" for frame in range(4)),
        "source_mesh.glb",
    ]
    restored = restore_once(model / "model.npz")
    player, world = restored.player, restored.world
    assert (world.of, world.is_identity) == ("model", False)  # files are in the units and at the place of source.glb
    clip = player.play(player.latent(1), stages.frame_times(4))
    found = read_gaussians(tmp_path / "Fly_ply/000002.ply")
    np.testing.assert_allclose(found.means, world.undo(clip.gaussians.means[2][player.alive]), atol=1e-5)
    shades = np.asarray(clip.gaussians.sh)[:, player.alive]  # what turns under the light changes colour
    assert np.abs(shades - shades[0]).max() > 1e-3
    np.testing.assert_allclose(found.sh, shades[2], atol=1e-6)
    with np.load(tmp_path / "Fly.npz") as data:
        np.testing.assert_allclose(data["key_points"], world.undo(clip.key_points), atol=1e-5)
        np.testing.assert_allclose(data["means"], world.undo(clip.gaussians.means[:, player.alive]), atol=1e-5)
        np.testing.assert_allclose(data["shades"], shades, atol=1e-6)
    assert [clip.name for clip in load_scene(tmp_path / "source_mesh.glb").clips] == ["Bend", "Fly"]
    printed = capsys.readouterr().out
    assert re.search(
        r"8 vertices follow \d+ key points; over 2 training motions they are [\d.]+% of the height", printed
    )
    assert "skin up to" not in printed  # eight influences show the model as it is


def test_the_viewer_writes_the_same_rig_and_mesh(model, tmp_path):
    source = str(model / "source.glb")
    run(model, tmp_path, format="glb,mesh", motion="Fly", source=source)
    restored = restore_once(model / "model.npz")
    session = Session(restored)
    choices = dataclasses.replace(session.begin(), source=session.sources["Fly"])
    mesh = SourceMesh(restored, model / "model.npz", source=source)
    shot = exports.Shot(restored, session.code(choices), choices, "Fly", restored.camera(), mesh)
    for kind, name in (("rig", "Fly.glb"), ("mesh", "Fly_mesh.glb")):
        (told,) = (each for each in exports.EXPORTS if kind in each)
        path = exports.export(shot, told, tmp_path / "viewed")
        assert (path.name, path.read_bytes()) == (name, (tmp_path / name).read_bytes())


def test_files_come_back_in_the_users_units(model, tmp_path, monkeypatch):
    turn = turn_to_y(np.array([0.0, 0.0, 1.0]))
    center = np.array([300.0, 10.0, -20.0])
    worlds = {"metres": World(rotation=turn), "centimetres": World(0.01, center, turn)}
    for name, world in worlds.items():
        restored = restore_once(model / "model.npz")
        moved = dataclasses.replace(restored, facts={**restored.facts, "world": world.to_json()})
        monkeypatch.setattr(export, "restore", lambda *_, moved=moved, **__: moved)
        run(model, tmp_path / name, format="ply,splat,npz,glb,gltf", motion="Fly", frame=1)
    small, large = (read_gaussians(tmp_path / name / "Fly_ply/000001.ply") for name in worlds)
    np.testing.assert_allclose(large.means, 100 * np.asarray(small.means) + center, atol=1e-3)
    np.testing.assert_allclose(large.log_scales, small.log_scales + np.log(100), atol=1e-5)
    np.testing.assert_array_equal(large.quats, small.quats)
    splats = [np.fromfile(tmp_path / name / "Fly_splat/000001.splat", "<f4").reshape(-1, 8)[:, :6] for name in worlds]
    np.testing.assert_allclose(splats[1][:, :3], 100 * splats[0][:, :3] + center, atol=1e-3)
    np.testing.assert_allclose(splats[1][:, 3:], 100 * splats[0][:, 3:], rtol=1e-4)
    with np.load(tmp_path / "metres/Fly.npz") as metres, np.load(tmp_path / "centimetres/Fly.npz") as centimetres:
        np.testing.assert_allclose(centimetres["key_points"], 100 * metres["key_points"] + center, atol=1e-3)
    x, y, z = center
    for name in ("Fly.glb", "Fly_gltf/000001.glb"):  # +Y up, as glTF has it
        first, second = (_bounds(tmp_path / folder / name) for folder in worlds)
        np.testing.assert_allclose(second, 100 * first + [x, z, -y], atol=1e-2)


def _bounds(path):
    """Least and largest position [2,3] of what a GLB shows."""
    data = path.read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    accessor = next(each for each in content["accessors"] if len(each.get("min", [])) == 3)
    return np.array([accessor["min"], accessor["max"]])


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (dict(num_samples=2, seed=3), "sample_3_2"),
        (dict(num_samples=1, around="Fly"), "Fly_0_1"),
        (dict(motions="Bend,Fly", share=0.5), "Bend_Fly_linear_0.5"),
        (dict(motions="Bend,Fly", path="spherical"), "Bend_Fly_spherical"),
    ],
)
def test_other_motions(model, tmp_path, flags, name):
    files = run(model, tmp_path, format="npz,ply", num_frames=4, frame_rate=12.0, frame=3, **flags)
    assert {f"{name}.npz", f"{name}_ply/000003.ply"} <= set(files)
    with np.load(tmp_path / f"{name}.npz") as data:
        fields = {key: data[key] for key in data.files}
    np.testing.assert_allclose(fields["seconds"], np.arange(4) / 12)
    found = read_gaussians(tmp_path / f"{name}_ply/000003.ply")
    np.testing.assert_allclose(found.means, fields["means"][3], atol=1e-6)
    if "motions" in flags:
        restored = restore_once(model / "model.npz")
        player = restored.player
        ends = [np.asarray(player.latent(m)) for m in (0, 1)]
        middle = [0.5 * (ends[0] + ends[1])] * 2 if "share" in flags else ends
        np.testing.assert_allclose(fields["codes"][[0, -1]], middle, atol=1e-6)
        posed = player.walk(jnp.asarray(fields["codes"]), fields["times"]).key_points
        np.testing.assert_allclose(fields["key_points"], restored.world.undo(posed), atol=1e-4)


def test_a_code_from_a_file(model, tmp_path):
    z = np.asarray(restore_once(model / "model.npz").player.latent(0))
    np.savez(tmp_path / "found.npz", z=z)
    run(model, tmp_path / "out", format="npz", code=str(tmp_path / "found.npz"))
    run(model, tmp_path / "out", format="npz", motion="0")
    with np.load(tmp_path / "out/found.npz") as a, np.load(tmp_path / "out/Bend.npz") as b:
        np.testing.assert_allclose(a["means"], b["means"], atol=1e-6)


def test_names_with_commas_and_brackets_can_be_chosen(model, tmp_path):
    known = restore_once(model / "model.npz")
    names = ["Walk, then[1]", "walk"]
    told = dataclasses.replace(known, facts={**known.facts, "names": names})
    assert told.find_motions("walk,walk, Then[1]", flag="motions") == [1, 0]
    assert find_motions(told, "Walk, then[1],1") == [0, 1]
    with pytest.raises(UserError, match="--motions: found 'then', expected a training motion"):
        told.find_motions("Walk,then", flag="motions")


@pytest.mark.parametrize("name", ["text.npz", "cut.npz", "array.npy", "empty.npz"])
def test_files_without_codes_are_refused(tmp_path, name):
    np.savez(tmp_path / "cut.npz", z=np.zeros(8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-30])
    np.save(tmp_path / "array.npy", np.zeros(8))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UserError, match=rf"--code=.*{name}: cannot be read as .* expected an npz with a field z"):
        read_codes(tmp_path / name, 8)


def test_a_walk_over_many_motions_has_a_short_name():
    assert join_names(["a", "b"]) == "a_b"
    name = join_names([f"a_motion_with_a_long_name_{index}" for index in range(40)])
    assert name == "a_motion_with_a_long_name_0_38_more_a_motion_with_a_long_name_39"
    assert len(join_names(["歩" * 60] * 3).encode()) <= 150  # what counts for a file system is bytes


def test_samples_that_are_too_many_for_a_row_stand_in_several(model, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_WIDTH", 2 * 192)
    sample.run(workdir=str(model / "model.npz"), out=str(tmp_path), num_samples=3, num_frames=2)
    frames = imageio.v3.imread(tmp_path / "samples_0.mp4")
    assert frames.shape[1:] == (2 * (192 + 30), 2 * 196 + 4, 3)
    assert np.std(frames[0, 30:222, 4:196]) > 5  # something is shown first, and nothing last
    assert frames[0, 222:, 204:].min() > 240


def test_nothing_is_overwritten_unasked(model, tmp_path):
    flags = dict(format="npz,ply,checkpoint,video", motion="Bend", num_frames=2, frame=0, size=16)
    first = run(model, tmp_path, **flags)
    assert first == ["Bend.mp4", "Bend.npz", "Bend_ply/000000.ply", "Bend_ply/canonical.ply", "model.npz"]
    (tmp_path / "Bend.npz").write_bytes(b"mine")
    second = run(model, tmp_path, **flags)
    numbered = [name.replace("Bend", "Bend_2").replace("model", "model_2") for name in first]
    assert second == sorted([*first, *numbered])
    assert (tmp_path / "Bend.npz").read_bytes() == b"mine"
    assert run(model, tmp_path, overwrite=True, **flags) == second
    assert (tmp_path / "Bend.npz").stat().st_size > 100


def test_samples_carry_how_they_were_drawn_and_stand_alone_too(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "restore", restore_once)
    draw = functools.partial(sample.run, workdir=str(model / "model.npz"), out=str(tmp_path), num_samples=2, size=16)
    draw(num_frames=3)
    draw(num_frames=3)
    draw(num_frames=2, around="Fly", spread=0.2, prior="standard", camera="orbit", azimuths="0,90", elevation=5.0)
    draw(num_frames=2, spread=0.2, diverse=True)
    stems = ["samples_0", "samples_0_2", "samples_0_around_Fly_0.2_standard_orbit_0_to_90_elevation_5"]
    stems.append("samples_0_spread_0.2_diverse")
    expected = [*(f"{stem}.mp4" for stem in stems), *(f"{stem}/sample_{n}.mp4" for stem in stems for n in (1, 2))]
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.mp4"))
    assert found == sorted(expected)
    grid, alone = (imageio.v3.imread(tmp_path / f"samples_0{each}.mp4") for each in ("", "/sample_1"))
    assert len(alone) == len(grid) == 3
    assert grid.shape[2] > alone.shape[2]
    before = (tmp_path / "samples_0.mp4").stat().st_mtime_ns
    draw(num_frames=3, overwrite=True)
    assert (tmp_path / "samples_0.mp4").stat().st_mtime_ns > before
    assert not (tmp_path / "samples_0_3.mp4").exists()


def test_a_folder_that_is_none_is_found_before_the_work(model, tmp_path):
    (tmp_path / "model.npz").write_bytes((model / "model.npz").read_bytes())
    (tmp_path / "model").mkdir()
    (tmp_path / "model/exports").write_text("mine")
    with pytest.raises(UserError, match="model/exports: found a file, expected a folder"):
        export.run(workdir=str(tmp_path / "model.npz"), format="checkpoint")


def test_videos_by_container_layer_and_camera(model, tmp_path):
    common = dict(format="video", motion="Bend", size=32, camera="orbit", azimuths="0,90")
    run(model, tmp_path, layers="color,key_points,depth,normals", background="0,0.5,1", **common)
    decode = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-i",
        str(tmp_path / "Bend.mp4"),
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    decoded = subprocess.run(decode, capture_output=True, check=True)
    assert "Video: h264" in decoded.stderr.decode()
    frames = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 32, 128, 3)
    assert len(frames) == 4
    corners = np.stack([frames[-1][0, column] for column in (0, 64, 96)])
    assert np.abs(corners.astype(int) - [0, 128, 255]).max() < 12  # the background, all over
    run(model, tmp_path / "dark", layers="key_points", background="0,0,0.1", **common)
    dark = imageio.v3.imread(tmp_path / "dark/Bend.mp4")
    assert np.abs(dark[:, 0, 0].astype(int) - [0, 0, 26]).max() < 12  # a dark ground stays dark under key points
    run(model, tmp_path, container="gif", **common)
    with Image.open(tmp_path / "Bend.gif") as gif:
        assert (gif.n_frames, gif.size) == (4, (32, 32))
    run(model, tmp_path, container="png", layers="color,key_points", **common)
    pictures = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "Bend_png").iterdir())])
    assert pictures.shape == (4, 32, 64, 4)
    assert pictures[:, 0, 0, 3].max() == 0
    # Straight alpha over white is what the player renders over white.
    model_ = restore_once(model / "model.npz")
    camera = make_camera_path(model_.camera(32), "orbit", 4, azimuths="0,90")
    clip = model_.player.play(model_.player.latent(0), stages.frame_times(4))
    truth = model_.player.film(clip.gaussians, camera)
    alpha = pictures[:, :, :32, 3:] / 255
    np.testing.assert_allclose(pictures[:, :, :32, :3] / 255 * alpha + 1 - alpha, truth, atol=2 / 255)


def test_a_page_of_the_whole_run(model, tmp_path, capsys):
    assert run(model, tmp_path, format="html") == ["player.html"]
    assert run(model, tmp_path, format="html,checkpoint", half=True) == ["model_2.npz", "player.html", "player_2.html"]
    assert re.search(r"half: pictures of the page at \d+\.\d dB of the model's", capsys.readouterr().out)
    assert (tmp_path / "player_2.html").stat().st_size < (tmp_path / "player.html").stat().st_size
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    for name, message in (("empty", "found no sentence"), ("binary", "expected a text file of UTF-8")):
        with pytest.raises(UserError, match=rf"--prompts=.*{name}.txt: .*{message}"):
            run(model, tmp_path / "out", format="html", prompts=str(tmp_path / f"{name}.txt"))
    assert not (tmp_path / "out").exists()


def test_sentences_of_a_file_get_the_codes_that_a_prompt_would(model, tmp_path, monkeypatch):
    codes = {"a jump": np.float32([1, 2]), "runs": np.float32([3, 4])}
    seen = {}
    monkeypatch.setattr(export, "write_page", lambda model, path, **how: seen.update(how) or path)
    monkeypatch.setattr(
        export, "encode_prompts", lambda model, workdir, texts, bert: [codes[text] for text in texts if bert == "b"]
    )
    (tmp_path / "prompts.txt").write_text("a jump\n\n runs \na jump\n")
    run(model, tmp_path / "out", format="html", prompts=str(tmp_path / "prompts.txt"), bert="b")
    assert [text for text, _ in seen["prompts"]] == ["a jump", "runs"]
    np.testing.assert_array_equal([code for _, code in seen["prompts"]], [[1, 2], [3, 4]])


def test_a_code_is_taken_as_text(model, tmp_path):
    code = np.asarray(restore_once(model / "model.npz").player.latent(1))
    run(model, tmp_path, format="npz", code=",".join(f"{x:.9g}" for x in code), num_frames=2)
    run(model, tmp_path, format="npz", motion="Fly", num_frames=2)
    with np.load(tmp_path / "code.npz") as given, np.load(tmp_path / "Fly.npz") as trained:
        np.testing.assert_array_equal(given["means"], trained["means"])
        np.testing.assert_array_equal(given["code"] if "code" in given else given["codes"], np.stack([code] * 2))
    with pytest.raises(UserError, match=r"--code: found '1,2', expected \d+ numbers separated by commas"):
        run(model, tmp_path / "out", format="npz", code="1,2")


def test_videos_are_as_large_as_the_viewers(model, tmp_path):
    run(model, tmp_path, format="video", motion="Bend", num_frames=2)
    assert imageio.v3.imread(tmp_path / "Bend.mp4").shape == (2, 512, 512, 3)
    defaults = [inspect.signature(app.run).parameters["size"].default for app in (export, view)]
    assert defaults == [512, 512]


def test_gaussians_in_a_glb_point_to_the_mesh_where_there_is_one(model, tmp_path, capsys):
    flags = dict(format="glb", motion="Bend", num_frames=2, geometry="points")
    run(model, tmp_path / "out", **flags)
    assert f"--format=mesh --source=FILE, the .glb or .gltf that {model / 'data'} was imported from" in (
        capsys.readouterr().out
    )
    file = load_model_file(model / "model.npz")
    file.config.data.path = ""  # as of a run on the puppet
    damage(model, tmp_path / "puppet.npz", config=np.str_(json.dumps(to_plain(file.config))))
    export.run(workdir=str(tmp_path / "puppet.npz"), out=str(tmp_path / "out"), **flags)
    assert "--format=mesh" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (dict(format="obj", motion="0"), r"--format: found 'obj'"),
        (dict(format="ply"), r"found no motion, expected one of --motion"),
        (dict(format="ply", motion="0", num_samples=2), r"found --motion and --num_samples"),
        (dict(format="ply", motion="Dance"), r"--motion: found 'Dance'"),
        (dict(format="ply", motion="7"), r"--motion: found '7'"),
        (dict(format="ply", motion="0", frame=4), r"--frame: found 4, expected 0 to 3"),
        (dict(format="ply", motion="0", share=0.5), r"--share: found 0.5"),
        (dict(format="ply", motions="Bend"), r"--motions: found 'Bend'"),
        (dict(format="ply", code="gone.npz"), r"--code=gone.npz"),
        (dict(format="video", motion="0", layers="color,flow"), r"--layers: found 'flow'"),
        (dict(format="video", motion="0", background="0,2,0"), r"--background: found '0,2,0'"),
        (dict(format="glb", motion="0", influences=5), r"--influences: found 5"),
        (dict(format="mesh", motion="0"), r"--source: found ''"),
        (dict(format="glb", motion="0", hide="x"), r"--hide: found 'x', expected --format=mesh"),
        (dict(format="ply", motion="0", layers="depth"), r"--layers: found 'depth', expected --format=video with it"),
        (dict(format="video", motion="0", frame=1), r"--frame: found 1, expected --format=ply or splat or gltf"),
        (dict(format="checkpoint", motion="0"), r"--motion: found '0', expected --format=ply or"),
        (dict(format="html", motion="0"), r"--motion: found '0', expected --format=ply or"),
        (dict(format="html", bert="b"), r"--bert: found 'b', expected --prompts=FILE with it"),
        (dict(format="html", prompts="gone.txt"), r"--prompts=gone.txt: no such file or folder, expected a text file"),
        (dict(format="ply", motion="0", half=True), r"--half: found True, expected --format=html with it"),
        (dict(format="ply", motion="0", seed=3), r"--seed: found 3, expected --num_samples=N with it"),
        (dict(format="ply", num_samples=1, spread=1.2), r"--spread: found 1.2, expected 0 to 1"),
        (
            dict(format="ply", num_samples=1, spread=0.2, prior="standard"),
            r"--spread: found 0.2, expected --around=NAME or --prior=data with it",
        ),
        (dict(format="ply", num_samples=1, path="spherical"), r"--path: found 'spherical', expected --motions=A,B"),
        (dict(format="video", motion="0", frame_rate=np.inf), r"--frame_rate: found inf, expected at least 0"),
        (dict(format="video", motion="0", container="gif", frame_rate=101), r"--frame_rate: found 101, .* at most 100"),
        (dict(format="video", motion="0", camera="orbit", elevation=91), r"--elevation: found 91, expected -90 to 90"),
        (dict(format="video", motion="0", camera="orbit", azimuths="0,nan"), r"--azimuths: found '0,nan', expected"),
    ],
)
def test_bad_flags_write_nothing(model, tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        run(model, tmp_path / "out", **flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_mesh_needs_the_datasets_truth(model, tmp_path):
    flags = dict(format="mesh", motion="0", source=str(model / "source.glb"))
    with pytest.raises(UserError, match="--dataset: found"):
        run(model, tmp_path / "out", dataset=str(tmp_path / "gone"), **flags)
    (tmp_path / "data/Bend").mkdir(parents=True)
    with pytest.raises(UserError, match="no true joints of 'Bend'"):
        run(model, tmp_path / "out", dataset=str(tmp_path / "data"), **flags)
    assert not (tmp_path / "out").exists()


def test_runs_without_skinned_gaussians_have_no_glb(model, tmp_path):
    file = load_model_file(model / "model.npz")
    file.config.stage2.move.fn = "dimo_jax.systems.dimo.model:stay"
    damage(model, tmp_path / "still.npz", config=np.str_(json.dumps(to_plain(file.config))))
    with pytest.raises(UserError, match="expected a run whose key points move them"):
        export.run(workdir=str(tmp_path / "still.npz"), format="ply,glb", motion="0", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def damage(model, path, **arrays):
    with np.load(model / "model.npz") as file:
        kept = {name: file[name] for name in file.files} | arrays
    np.savez(path, **{name: value for name, value in kept.items() if value is not None})


# A function that a module of components has only imported, which would write a file.
WRITES = {"fn": "dimo_jax.data.formats.rigged.folder:write_json", "value": {}}


def test_damaged_model_files_give_one_line_and_run_nothing(model, tmp_path):
    path = tmp_path / "bad.npz"
    config, facts = to_plain(load_model_file(model / "model.npz").config), load_model_file(model / "model.npz").facts
    foreign = json.dumps(config | {"skinning": {"fn": "os:system"}})
    for arrays, message in [
        (dict(config=np.str_(foreign)), r"config.skinning.fn names 'os:system'"),
        (
            dict(config=np.str_(json.dumps(config | {"decoder": WRITES | {"path": str(tmp_path / "written")}}))),
            r"config.decoder.fn names 'dimo_jax.data.formats.rigged.folder:write_json'",
        ),
        (
            dict(config=np.str_(json.dumps(config | {"skinning": {"fn": "dimo_jax.apps.train:run"}}))),
            "skinning.fn names",
        ),
        # Called without arguments by the apps that load a run's data.
        *(
            (dict(config=np.str_(json.dumps(config | {"data": {"source": {"fn": name}}}))), f"source.fn names '{name}'")
            for name in (
                "dimo_jax.training.model_file:write_model",
                "dimo_jax.training.config_file:save_config",
                "dimo_jax.data.puppet.rig:write_puppet_rig",
            )
        ),
        (dict(config=np.str_(json.dumps(config | {"stage1": 3}))), "its config or facts are damaged"),
        (
            dict(config=np.str_(json.dumps(config | {"latent": 2}))),
            r"are damaged \(config.latent: found '2', expected dict",
        ),
        (dict(facts=np.str_(json.dumps(facts | {"names": [1, 2]}))), r"facts: names is '\[1, 2\]', expected 2 texts"),
        (dict(facts=np.str_(json.dumps(facts | {"frame_rate": "x"}))), "facts: frame_rate is 'x'"),
        (dict(facts=np.str_(json.dumps(facts | {"camera": {}}))), "facts: camera: key 'width' is missing"),
        (dict(config=np.str_("[]")), "not a model file"),
        (dict(facts=np.str_("{}")), "config or facts are damaged"),
        (dict(version=np.int32(2)), "version 2, expected 1"),
        (dict(step=np.int32(0)), "still in the first stage"),
        (dict(alive=np.ones(2, bool)), "array 'alive'"),
        ({"params/latents/mu": None}, r"'params/latents/mu': found none"),
        ({"params/latents/mu": np.zeros((1, 1), np.float32)}, r"found float32 \[1, 1\]"),
        ({"params/other": np.zeros(1)}, r"'params/other'"),
        ({"params/latents/mu": np.array([{}], object)}, "expected a model file"),
    ]:
        damage(model, path, **arrays)
        with pytest.raises(UserError, match=message) as error:
            restore(path)
        assert "bad.npz" in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "written").exists()
    with pytest.raises(UserError, match=r"--checkpoint=best: found .*model\.npz, a model file"):
        restore(model / "model.npz", checkpoint="best")
    path.write_bytes((model / "model.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"bad\.npz: cannot be read as .*, expected a model file"):
        restore(path)
