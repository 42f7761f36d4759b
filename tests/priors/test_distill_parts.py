"""The parts of the chain by themselves."""

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import KEY, disc_clip, read_manifest, write_checkout

from dimo_jax.core.errors import UserError
from dimo_jax.networks.bert import load_encoder
from dimo_jax.priors import client, framing, masks, novel_views, prompts
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.manifest import Manifest, digest_path
from dimo_jax.priors.score import judge_points, shrink
from dimo_jax.priors.video_steps import read_image

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def ask(server, **options):
    endpoint = client.open_endpoint(base_url=server.url, model="m", **options)
    return client.ask(endpoint, "You count.", [client.text_part("how many?")], schema=SCHEMA, name="n")


@pytest.mark.parametrize(
    "text",
    ['{"n": 3}', '```json\n{"n": 3}\n```', 'Sure! Here it is: {"n": 3,} I hope it helps.'],
    ids=["plain", "fence", "words"],
)
def test_json_is_found_inside_an_answer(server, text):
    server.faults.append(text)
    assert ask(server) == {"n": 3}
    assert len(server.requests) == 1
    assert server.requests[0]["path"] == "/v1/chat/completions"


def test_wrong_answers_are_sent_back_with_what_is_wrong(server):
    server.faults += ["no idea", '{"n": "three"}', '{"n": 3}']
    assert ask(server) == {"n": 3}
    said = [message["content"] for message in server.requests[-1]["body"]["messages"]]
    assert "it holds no JSON object" in said[3]
    assert "n: 'three' is not of type 'integer'" in said[5]
    server.faults += ["{}"] * 3
    with pytest.raises(
        Failure, match=r"m gave no JSON of the asked kind in 3 attempts \(the object: 'n' is a required"
    ):
        ask(server)


def test_rate_limits_are_waited_for(server):
    server.faults.append((429, {"retry-after-ms": "30"}, {"error": {"message": "slow down"}}))
    server.faults.append((503, {"retry-after-ms": "30"}, {"error": {"message": "busy"}}))
    server.faults.append('{"n": 3}')
    assert ask(server, num_retries=2) == {"n": 3}
    assert len(server.requests) == 3


@pytest.mark.parametrize("kind", ["json_schema", "json_object", "text"])
def test_the_format_that_is_asked_for(server, kind):
    server.faults.append('{"n": 3}')
    ask(server, response_format=kind, max_tokens=99)
    body = server.requests[0]["body"]
    assert body.get("response_format", {}).get("type", "text") == kind
    assert body["max_completion_tokens"] == 99


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(key_variable=KEY), "config.client.key_variable: found no name"),
        (dict(base_url="http://user:secret@host/v1"), "config.client.base_url: found something else"),
        (dict(base_url="host/v1"), "config.client.base_url: found something else"),
        (dict(response_format="xml"), "config.client.response_format: found 'xml'"),
    ],
    ids=["key", "password", "scheme", "format"],
)
def test_bad_endpoints_are_refused_without_repeating_secrets(options, match):
    with pytest.raises(UserError, match=match) as error:
        client.open_endpoint(**options)
    assert KEY not in str(error.value)
    assert "secret" not in str(error.value)


def test_an_endpoint_does_not_show_its_key(server):
    assert KEY not in repr(client.open_endpoint(base_url=server.url))


def test_directions_make_another_motion_whatever_the_embedding():
    captions = ["lifts the left hand", "lifts the right hand", "Lifts the left hand!", "lifts the hand", "jumps"]

    def blind(sentences):
        return np.array([[1.0, 0.1 * ("jump" in each)] if "jump" not in each else [0.0, 1.0] for each in sentences])

    found = prompts.find_duplicates(captions, embed=blind)
    assert found[0] == found[1] == found[4] == ""
    assert found[2] == "the same as 'lifts the left hand'"
    assert found[3].startswith("like 'lifts the left hand' (cosine 1.00)")
    assert prompts.find_duplicates(captions[:4], embed=blind) == found[:4]  # later ones change nothing


@pytest.mark.slow
def test_duplicates_by_a_real_text_encoder():
    try:
        load_encoder()
    except UserError as error:
        pytest.skip(f"all-MiniLM-L6-v2 cannot be had here: {error}")
    captions = ["lifts the right hand", "raises the right hand", "lifts the left hand", "jumps up and down", "bows"]
    found = prompts.find_duplicates([*captions, "bows politely", "sits down"], embed=prompts.bert_embeddings)
    assert [bool(reason) for reason in found] == [False, True, False, False, False, True, False]


def test_names_and_seeds_of_motions():
    assert prompts.name_motion("Lifts the right hand!", []) == "lifts_the_right_hand"
    assert prompts.name_motion("lifts the right hand", ["lifts_the_right_hand"]) == "lifts_the_right_hand_2"
    assert prompts.name_motion("手を上げる", []) == "手を上げる"
    assert prompts.name_motion("!", []) == "motion"
    seeds = {prompts.seed_of(name, take, seed=0) for name in "ab" for take in (0, 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("text", ["", "# only this\n", "walks |\n", "| walks\n", "x" * 1001])
def test_bad_prompt_files(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UserError, match=r"--prompts=.*p.txt: "):
        prompts.read_prompts(tmp_path / "p.txt")


def test_a_prompt_file_of_windows_is_read(tmp_path):
    (tmp_path / "p.txt").write_bytes("# mine\r\nwinkt | Sie winkt fröhlich.\r\n".encode("utf-8-sig"))
    assert prompts.read_prompts(tmp_path / "p.txt") == [{"caption": "winkt", "motion": "Sie winkt fröhlich."}]


def test_colour_key_keeps_white_inside_and_finds_the_edge():
    frames, inside = disc_clip([(48, 48)] * 2)
    frames[:, 44:52, 44:52] = 255
    cutouts = masks.color_key(frames, item="")
    np.testing.assert_allclose((cutouts[..., 3] / 255).sum(axis=(1, 2)), inside.sum(axis=(1, 2)), rtol=0.03)
    assert (cutouts[:, 44:52, 44:52, 3] == 255).all()
    assert masks.judge_cutouts(cutouts) == ""
    assert masks.judge_cutouts(cutouts * np.uint8([[[[1, 1, 1, 0]]]])).startswith("no object in 2 of 2 frames")


def test_given_masks(tmp_path):
    frames, inside = disc_clip([(48, 48)] * 2)
    (tmp_path / "walk").mkdir()
    for index, mask in enumerate(inside):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"walk/{index:05d}.png")
    cutouts = masks.given(frames, item="walk", folder=str(tmp_path))
    np.testing.assert_array_equal(cutouts[..., 3] > 0, inside)
    np.testing.assert_array_equal(cutouts[..., :3], frames)
    with pytest.raises(Failure, match=r"jump: 0 masks, expected 2"):
        masks.given(frames, item="jump", folder=str(tmp_path))
    with pytest.raises(Failure, match=r"00000.png: 96x96 pixels, expected 40x30"):
        masks.given(frames[:, :30, :40], item="walk", folder=str(tmp_path))


def test_without_rembg_its_absence_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(UserError, match=r"config.mask: package rembg not found.*dimo_jax\[distill\]"):
        masks.rembg(disc_clip([(48, 48)])[0], item="")


def test_one_square_for_all_and_a_disc_stays_round_in_its_middle():
    clips = [disc_clip([(30, 40), (50, 40)]), disc_clip([(40, 30), (40, 60)])]
    cutouts = [masks.add_alpha(frames, inside.astype(np.uint8) * 255) for frames, inside in clips]
    square = framing.fit_square([framing.bound(each) for each in cutouts], margin=0.1)
    # Boxes span x 8..72 and y 8..82: the longer one is 74 wide, and takes 80 % of the square.
    assert square.side == pytest.approx(74 / 0.8, abs=2)
    assert (square.left + square.side / 2, square.top + square.side / 2) == (
        pytest.approx(40, abs=1),
        pytest.approx(45, abs=1),
    )
    for each in cutouts:
        cut = framing.cut(each, square, size=64)
        area = (cut[..., 3] / 255.0).sum(axis=(1, 2)) * (square.side / 64) ** 2
        np.testing.assert_allclose(area, np.pi * 22**2, rtol=0.03)
        assert not cut[:, [0, -1], :, 3].any()
    np.testing.assert_array_equal(framing.on_white(cutouts[0] * np.uint8([[[[1, 1, 1, 0]]]])), 255)


def test_a_square_over_the_border_is_empty_there():
    frames, inside = disc_clip([(20, 48)])
    cut = framing.cut(masks.add_alpha(frames, inside.astype(np.uint8) * 255), framing.Square(-48, 0, 96), size=96)
    np.testing.assert_array_equal(cut[0, :, :48, 3], 0)
    np.testing.assert_allclose(cut[0, :, 48:, 3] > 127, inside[0][:, :48])


def test_the_picture_gets_room_to_move():
    frames, inside = disc_clip([(20, 70)])
    picture = framing.prepare_image(
        masks.add_alpha(frames, inside.astype(np.uint8) * 255)[0], height=60, width=90, share=0.5
    )
    rows, columns = np.nonzero(picture.mean(axis=-1) < 240)
    assert picture.shape == (60, 90, 3)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (pytest.approx(30, abs=1), pytest.approx(30, abs=1))
    assert (rows.mean(), columns.mean()) == (pytest.approx(29.5, abs=1), pytest.approx(44.5, abs=1))
    with pytest.raises(UserError, match=r"config.framing.num_frames: found 9, expected 2 to 5"):
        framing.pick_frames(5, 9)
    assert framing.pick_frames(49, 21).tolist()[::10] == [0, 24, 48]


def test_points_decide_by_their_mean_and_by_the_worst():
    good = dict(identity=4, artifacts=4, static_camera=4, prompt=4, comment="")
    assert judge_points(good) == ""
    assert judge_points(good | dict(prompt=1, comment="it sits")) == "prompt 1 of 5: it sits"
    assert judge_points(good | dict(prompt=2, artifacts=3)) == "3.25 of 5 points on average, at least 3.5"
    assert shrink(np.full((9, 6, 3), 7, np.uint8), 4).shape == (2, 1, 3)


def test_commands_of_both_samplers(tmp_path):
    root = write_checkout(tmp_path / "checkout", "sv4d2_8views.safetensors")
    options = dict(checkout=str(root), python=sys.executable, num_frames=21, size=576)
    new = novel_views.sv4d(Path("/in"), Path("/out"), extra=("--verbose=True",), **options)
    assert new.command[:2] == (sys.executable, "scripts/sampling/simple_video_sample_4d2.py")
    assert set(new.command[2:]) >= {
        "--input_path=/in", "--output_folder=/out", "--n_frames=21", "--img_size=576", "--image_frame_ratio=None",
        "--model_path=checkpoints/sv4d2_8views.safetensors", "--elevations_deg=0.0", "--verbose=True",
    }  # fmt: skip
    assert [str(path) for path in new.videos[::7]] == [
        "/out/sv4d2_8views/000000_v001.mp4", "/out/sv4d2_8views/000000_v008.mp4"
    ]  # fmt: skip
    assert len(new.azimuths_deg) == 9
    old_script = root / "scripts/sampling/simple_video_sample_4d.py"
    old_script.write_text("")
    (root / "checkpoints/sv4d.safetensors").write_text("")
    first = options | dict(model_path="checkpoints/sv4d.safetensors")
    old = novel_views.sv4d(Path("/in"), Path("/out"), encoding_t=2, **first)
    assert set(old.command) >= {"--encoding_t=2", "--num_steps=20", "--sv3d_version=sv3d_p"}
    assert not {"--n_frames=21", "--model_path=checkpoints/sv4d.safetensors"} & set(old.command)
    assert (old.videos[0], old.elevation_deg) == (Path("/out/000000_v001.mp4"), 10.0)
    with pytest.raises(UserError, match=r"found 12, expected e\.g\. 21 for sv4d\.safetensors"):
        novel_views.sv4d(Path("/in"), Path("/out"), **first | dict(num_frames=12))
    with pytest.raises(
        UserError, match=r"config.framing.num_frames: found 24, expected e\.g\. 21 or 25 for sv4d2_8views"
    ):
        novel_views.sv4d(Path("/in"), Path("/out"), **options | dict(num_frames=24))
    (root / "checkpoints/other.safetensors").write_text("")
    with pytest.raises(UserError, match=r"config.views.model_path: found 'checkpoints/other.safetensors'"):
        novel_views.sv4d(Path("/in"), Path("/out"), model_path="checkpoints/other.safetensors", **options)


def test_paths_below_the_home_folder_are_found(tmp_path, monkeypatch):
    """A shell leaves the ~ of --config.views.python=~/... as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    root = write_checkout(tmp_path / "checkout", "sv4d2_8views.safetensors")
    (tmp_path / "python").symlink_to(sys.executable)
    options = dict(checkout="~/checkout", num_frames=21, size=576)
    weights = "~/checkout/checkpoints/sv4d2_8views.safetensors"
    found = novel_views.sv4d(Path("/in"), Path("/out"), python="~/python", model_path=weights, **options)
    assert found.command[0] == str(tmp_path / "python")
    assert f"--model_path={root}/checkpoints/sv4d2_8views.safetensors" in found.command
    with pytest.raises(UserError, match=r"config.views.python: found no program '~/absent'"):
        novel_views.sv4d(Path("/in"), Path("/out"), python="~/absent", **options)


@pytest.mark.parametrize(
    ("code", "match", "status"),
    [
        (
            "print('CUDA out of memory. Tried'); raise SystemExit(3)",
            r"exit status 3: CUDA out of memory.*encoding_t",
            3,
        ),
        ("print('all fine')", r"wrote no v.mp4: all fine", 0),
        ("import time; time.sleep(60)", r"took more than 0.5 s", None),
    ],
    ids=["memory", "no files", "too long"],
)
def test_samplers_that_fail(tmp_path, code, match, status):
    sampler = novel_views.Sampler((sys.executable, "-c", code), tmp_path, (tmp_path / "v.mp4",), (0.0, 90.0), 0.0, 0.5)
    sampler = sampler if status is None else replace(sampler, timeout=60.0)
    with pytest.raises(novel_views.SamplerFailure, match=match) as error:
        novel_views.run_sampler(sampler, tmp_path / "log")
    assert error.value.status == status
    absent = replace(sampler, command=("/no/such/python",))
    with pytest.raises(novel_views.SamplerFailure, match="cannot be started"):
        novel_views.run_sampler(absent, tmp_path / "log")


def test_a_view_of_another_length_is_refused(tmp_path):
    from dimo_jax.io.video import write_video

    frames, _ = disc_clip([(48, 48)] * 3)
    path = write_video(frames, tmp_path / "v.mp4", frame_rate=10, crf=1)
    found = novel_views.read_view(path, num_frames=3, size=96)
    assert np.abs(found[..., :3].astype(int) - frames)[found[..., 3] == 255].mean() < 4
    for options, match in ((dict(num_frames=4, size=96), "v.mp4: 3 frames, expected 4"),
                           (dict(num_frames=2, size=96), "v.mp4: more frames, expected 2"),
                           (dict(num_frames=3, size=64), "v.mp4: video of 96x96, expected 64x64")):  # fmt: skip
        with pytest.raises(Failure, match=match):
            novel_views.read_view(path, **options)


def test_a_manifest_keeps_what_is_finished(tmp_path):
    with Manifest(tmp_path) as manifest:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/x.txt").write_text("1")
        manifest.done("video", "walk", "k1", files=("a",), score=float("nan"))
        manifest.failed("video", "jump", "k2", Failure("too bad", suggestion="try again"))
        with pytest.raises(UserError, match=r"--out=.*: in use by process \d+ on .*; expected a folder in which"):
            Manifest(tmp_path)
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write('{"step": "video", "it')  # a run that was killed while it wrote
    with Manifest(tmp_path) as manifest:
        assert manifest.find("video", "walk", "k1")["files"] == {"a": digest_path(tmp_path / "a")}
        assert manifest.find("video", "walk", "k0") is None
        assert manifest.find("video", "jump", "k2") is None
    assert [json.loads(line)["item"] for line in (tmp_path / "manifest.jsonl").read_text().splitlines()] == [
        "walk",
        "jump",
    ]
    (tmp_path / "a/x.txt").write_text("2")
    with Manifest(tmp_path) as manifest:
        assert manifest.find("video", "walk", "k1") is None
    assert read_manifest(tmp_path)[1]["suggestion"] == "try again"
    (tmp_path / "other" / "manifest.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"manifest\.jsonl: cannot be opened \(Is a directory\)"):
        Manifest(tmp_path / "other")
    deep = '{"step": ' + "[" * 100_000
    no_files = json.dumps({"step": "video", "item": "walk", "key": "k1", "status": "done", "files": 1e200})
    for text, says in ((deep, "line 1 is not JSON"), (no_files, "line 1 has files '1e\\+200', expected names")):
        (tmp_path / "manifest.jsonl").write_text(text + "\n")
        with pytest.raises(UserError, match=says):
            Manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"manifest.jsonl: line 1 lacks one of step"):
        Manifest(tmp_path)


def test_a_sampler_that_outlives_its_run_keeps_others_out(tmp_path):
    command = (sys.executable, "-c", "import time; time.sleep(1.5)")
    sampler = novel_views.Sampler(command, tmp_path, (), (0.0,), 0.0, 60.0)
    manifest = Manifest(tmp_path / "out")
    thread = threading.Thread(
        target=novel_views.run_sampler, args=(sampler, tmp_path / "log"), kwargs={"lock": manifest.lock}
    )
    thread.start()
    time.sleep(0.5)
    manifest.close()  # as when its process is killed
    with pytest.raises(UserError, match="or by what it has left running"):
        Manifest(tmp_path / "out")
    thread.join()
    Manifest(tmp_path / "out").close()


@pytest.mark.parametrize("how", ["turned by its camera", "of 16 bits", "a program"])
def test_pictures_as_cameras_and_other_programs_write_them(tmp_path, how):
    path = tmp_path / "photo.png"
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255  # what the sensor saw
    if how == "turned by its camera":
        exif = Image.Exif()
        exif[0x0112] = 6  # held upright: to be turned by 90 degrees clockwise
        Image.fromarray(pixels).save(path, exif=exif)
        upright = read_image(str(path))
        assert upright.shape == (60, 40, 4)
        assert (upright[:30, ..., 0] == 255).all()
        assert not upright[30:, ..., 0].any()
        return
    if how == "of 16 bits":
        Image.fromarray(np.full((40, 60), 40_000, np.uint16)).save(path)
    else:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"photo\.png: (image mode I;16, expected 8-bit|cannot be read)"):
        read_image(str(path))


@pytest.mark.slow
def test_rembg_with_a_tiny_model(tmp_path, monkeypatch):
    """Real package and runtime; the network is one that answers with how dark a pixel is."""
    absent = "package {} is absent (extra dimo_jax[distill])"
    onnx = pytest.importorskip("onnx", reason="package onnx is absent")
    pytest.importorskip("onnxruntime", reason=absent.format("onnxruntime"))
    pytest.importorskip("rembg", reason=absent.format("rembg"))
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Neg", ["mean"], ["y"]),
        ],
        "dark",
        [helper.make_tensor_value_info("x", kind, [1, 3, 320, 320])],
        [helper.make_tensor_value_info("y", kind, [1, 1, 320, 320])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "dark.onnx")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    frames, inside = disc_clip([(40, 50)])
    cutouts = masks.rembg(frames, item="", model="u2net_custom", model_path=str(tmp_path / "dark.onnx"))
    assert cutouts[0, ..., 3][inside[0]].mean() > 90
    assert cutouts[0, :8, :, 3].max() < 10
    with pytest.raises(UserError, match=r"config.mask.model: rembg cannot load 'no-such'"):
        masks.rembg(frames, item="", model="no-such")
