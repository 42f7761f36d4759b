"""The whole chain. Real: the openai client over HTTP, OpenCV's flow, subprocess, all files, the dataset's reader.
Stand-ins, in stand_ins.py: the language model behind the server, the video model, BERT, and SV4D's program."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from stand_ins import KEY, read_manifest

from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.data.formats.native import read_dataset
from dimo_jax.metrics.motion import measure_flow
from dimo_jax.priors import video_steps
from dimo_jax.priors.chain import run_chain
from dimo_jax.priors.manifest import digest_path


def run(setting, prompts=None, **changes):
    return run_chain(setting.config | changes, image=setting.image, out=setting.out, prompts=prompts)


def by_step(setting, step):
    return {record["item"]: record for record in read_manifest(setting.out) if record["step"] == step}


def everything_written(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_from_a_picture_to_a_dataset(setting, capfd):
    setting.config["num_prompts"] = 3
    dataset = read_dataset(run(setting))
    assert dataset.names == ("sways_left_and_right", "bobs_up_and_down")
    assert dataset.captions == ("sways left and right", "bobs up and down")
    assert dataset.sentences[1] == ("bobs up and down", "The ball bobs up and down.")
    assert dataset.frames.shape == (2, 5, 12, 48, 48, 4)
    assert dataset.frame_rate == 7.333  # 12 of 13 frames at 8 a second
    decisions = {item: (record["decision"], record["reason"]) for item, record in by_step(setting, "prompt").items()}
    assert decisions["sways_left_and_right_again"][0] == "drop"
    assert "like 'sways left and right' (cosine" in decisions["sways_left_and_right_again"][1]
    video = by_step(setting, "video")["bobs_up_and_down"]
    assert "The ball bobs up and down" in video["prompt"]
    assert "A spotted ball. A ball with dark spots. Calm" in video["prompt"]
    assert (video["seed"] >= 0, video["model"], video["height"], video["width"]) == (True, "stand-in", 64, 80)
    for record in read_manifest(setting.out):
        for name, sha256 in record.get("files", {}).items():
            assert digest_path(setting.out / name) == sha256
    selected = by_step(setting, "select")
    assert selected["stands_still"]["decision"] == "drop"
    assert selected["stands_still"]["reason"].startswith("too still (amplitude 0.0")
    assert set(by_step(setting, "score")) == {"sways_left_and_right", "bobs_up_and_down"}  # no money for the others
    view = by_step(setting, "view")["bobs_up_and_down"]
    assert view["exit_status"] == 0
    assert view["command"][1] == "scripts/sampling/simple_video_sample_4d2.py"
    assert "no key" in (setting.out / view["log"]).read_text()
    with Image.open(setting.out / "contact_sheet.png") as sheet:
        assert sheet.height > 3 * 90
    # The stand-in turns views upside down; view 0 is the input itself.
    upright, novel = (dataset.frames[0, view, 0, ..., 3].astype(float) for view in (0, 1))
    assert upright.mean() > 20
    assert np.abs(novel[::-1] - upright).mean() < 3
    seen = setting.server.requests[0]
    assert seen["headers"]["authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in everything_written(setting.out)
    assert KEY not in "".join(capfd.readouterr())


def test_nothing_is_done_twice_and_thresholds_cost_no_videos(setting, tmp_path):
    run(setting)
    before, asked = (setting.out / "manifest.jsonl").read_bytes(), len(setting.server.requests)
    run(setting)
    assert (setting.out / "manifest.jsonl").read_bytes() == before
    setting.config["judge_points"]["least_each"] = 4.5
    with pytest.raises(UserError, match=r"no video passed the filters .*artifacts 4 of 5: fine"):
        run(setting)
    assert len(setting.server.requests) == asked
    assert (tmp_path / "calls.txt").read_text().count("\n") == 2
    (setting.out / "videos/stands_still/000003.png").write_bytes(b"damaged")
    setting.config["judge_points"]["least_each"] = 2
    run(setting)
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert len(calls) == 3
    assert "stands still" in calls[-1]


def test_prompts_of_a_file_and_no_language_model(setting, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    path = tmp_path / "motions.txt"
    path.write_text("# mine\nsways left\n\nbobs up | The ball bobs up and down.\nSways left!\n")
    setting.config["score"]["fn"] = ""
    setting.config["client"]["base_url"] = ""
    dataset = read_dataset(run(setting, prompts=path))
    assert dataset.captions == ("sways left", "bobs up")
    assert not setting.server.requests
    assert by_step(setting, "prompt")["sways_left_2"]["reason"] == "the same as 'sways left'"
    setting.config["score"]["fn"] = "dimo_jax.priors.score:rate_video"
    with pytest.raises(UserError, match=r"has no OPENAI_API_KEY.*--prompts=FILE --config.score.fn="):
        run(setting, prompts=path)


def test_what_is_missing_is_said_before_anything_is_written(setting):
    setting.config["views"]["checkout"] = str(setting.checkout / "elsewhere")
    with pytest.raises(UserError, match=r"found no .*elsewhere/scripts/sampling/simple_video_sample_4d2.py"):
        run(setting)
    assert not setting.out.exists()
    setting.config["mask"]["fn"] = "dimo_jax.priors.masks:nothing"
    with pytest.raises(UserError, match=r"config.mask.fn: module .* has no function 'nothing'"):
        run(setting)
    assert not setting.server.requests


def test_an_endpoint_that_is_down(setting):
    setting.server.close()
    with pytest.raises(UserError, match=r"describe image: http://127.0.0.1:\d+/v1 cannot be reached"):
        run(setting)
    assert by_step(setting, "describe")["image"]["status"] == "failed"


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ((429, {"retry-after": "7", "x-should-retry": "false"}, {"error": {"message": "slow down"}}),
         r"answered 429, its rate limit .*, run the same command again in 7 s"),
        ((401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), r"answered 401 .*expected a key"),
        ((200, {}, {"hello": "world"}), r"found no chat completion in its answer"),
        ((200, {}, {"choices": [{}]}), r"found no chat completion in its answer"),
    ],
    ids=["rate", "key", "protocol", "message"],
)  # fmt: skip
def test_an_endpoint_that_refuses_stops_the_step_and_the_next_run_goes_on(setting, fault, match, capfd, caplog):
    caplog.set_level("DEBUG")
    setting.server.faults.append(fault)
    with pytest.raises(UserError, match=match) as error:
        run(setting)
    record = by_step(setting, "describe")["image"]
    assert record["status"] == "failed"
    written = everything_written(setting.out).decode(errors="replace") + str(error.value) + "".join(capfd.readouterr())
    assert KEY not in written + caplog.text
    setting.server.points["identity"] = 1  # the rest of the chain has tests of its own
    with pytest.raises(UserError, match="no video passed"):
        run(setting)
    assert by_step(setting, "describe")["image"]["status"] == "done"


def test_refusals_of_single_videos_are_recorded_and_can_be_skipped(setting):
    setting.server.refuse = "You judge"
    with pytest.raises(UserError, match=r"score sways_left_and_right: stand-in refused: I cannot help with that\."):
        run(setting)
    assert by_step(setting, "score")["sways_left_and_right"]["status"] == "failed"
    setting.server.refuse = ""
    assert run(setting).is_dir()


def test_nan_frames_are_recorded_and_the_others_go_on(setting):
    setting.config["num_prompts"] = 3
    setting.config["video"]["fault"] = "bobs"
    with pytest.raises(UserError, match=r"bobs_up_and_down: .*NaN .* in 13 of 13 frames, try .*skip_failed goes on"):
        run(setting)
    assert by_step(setting, "video")["bobs_up_and_down"]["suggestion"].startswith("try --config.video.dtype")
    assert by_step(setting, "video")["sways_left_and_right"]["status"] == "done"
    assert read_dataset(run(setting, skip_failed=True)).names == ("sways_left_and_right",)


def broken_flow(frames):
    """A flow that is not finite where the clip moves up and down, as a network's may be."""
    found = measure_flow(frames)
    return found * np.nan if np.abs(found[..., 1]).max() > np.abs(found[..., 0]).max() else found


def test_videos_that_could_not_be_measured_do_not_pass(setting):
    setting.config["num_prompts"] = 3
    setting.config["flow"] = dict(fn=f"{__name__}:broken_flow")
    with pytest.raises(UserError, match=r"flow bobs_up_and_down: the optical flow has values that are not finite"):
        run(setting)
    assert read_dataset(run(setting, skip_failed=True)).names == ("sways_left_and_right",)
    dropped = by_step(setting, "select")["bobs_up_and_down"]
    assert (dropped["decision"], dropped["reason"]) == ("drop", "its motion could not be measured")


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(setting, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(video_steps, "write_png_sequence", fail)
        with pytest.raises(WriteFailed, match=r"out: cannot be written or read \(No space left on device\); the same"):
            run(setting)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"found 0 MiB free, expected .* \(or fewer motions, views or pixels\)"):
            run(setting)
    assert read_dataset(run(setting)).num_motions == 1


def test_a_sampler_that_fails(setting):
    (setting.checkout / "fail").write_text("")
    with pytest.raises(UserError, match=r"exit status 1: RuntimeError: the sampler broke"):
        run(setting)
    record = by_step(setting, "view")["sways_left_and_right"]
    assert (record["status"], record["exit_status"]) == ("failed", 1)
    assert record["command"][0] == sys.executable
    assert "the sampler broke" in (setting.out / record["log"]).read_text()
    (setting.checkout / "fail").unlink()
    assert read_dataset(run(setting)).num_views == 5


def test_a_model_that_finds_too_few_motions(setting):
    setting.config["num_prompts"] = 50
    with pytest.raises(UserError, match=r"2 rounds gave 3 distinct motions, expected 50"):
        run(setting)
    known = setting.server.asked("You think")[1]["body"]["messages"][1]["content"][0]["text"]
    assert "all yours must differ from them: sways left and right; stands still; bobs up and down" in known


def test_a_picture_without_a_plain_ground(setting):
    noise = np.random.default_rng(0).integers(0, 200, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(setting.image)
    with pytest.raises(UserError, match=r"ball.png: the mask fills 100% of a frame.*masks:rembg"):
        run(setting)


def test_the_config_that_made_it_lies_beside_it(setting):
    setting.server.points["identity"] = 1
    with pytest.raises(UserError):
        run(setting)
    assert json.loads((setting.out / "config.json").read_text())["video"]["num_frames"] == 13
