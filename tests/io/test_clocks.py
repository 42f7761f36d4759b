"""Times come from each frame's own stamp, never from a mean rate or a container's duration."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from support.recordings import disc_frames, write_cameras, write_video

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.assembly import assemble, plan_recording
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.io.clips import open_clip
from dimo_jax.io.clocks import Clock, Sampling, pick_frames, steady_clock

FRONT = [{"name": "front", "azimuth_deg": 0, "fov_deg": 33.9}]
MIXED = np.concatenate([np.arange(12) / 30, 0.4 + np.arange(12) / 15])  # as a phone records in the dark


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


def write_stamped(path, times, *, ticks=600, extra=()):
    """A video whose frames are shown at `times` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name("plain.mkv")
    write_video(plain, disc_frames(len(times)))
    stamps = "+".join(f"eq(N,{index})*{round(time * ticks)}" for index, time in enumerate(times))
    ffmpeg(
        "-i", plain, *extra, "-vf", f"settb=1/{ticks},setpts='{stamps}'", "-fps_mode", "passthrough", "-enc_time_base",
        f"1/{ticks}", "-c:v", "libx264", "-bf", 0, "-qp", 0, "-pix_fmt", "yuv444p", path,
    )  # fmt: skip
    plain.unlink()


def test_a_phones_uneven_video_keeps_its_time(tmp_path):
    folder = write_cameras(tmp_path / "set", FRONT)
    write_stamped(folder / "walk/front.mp4", MIXED)
    clip = open_clip(folder / "walk/front.mp4")
    clock = clip.read_clock()
    np.testing.assert_allclose(clock.times, MIXED, atol=1e-3)
    assert clock.end == pytest.approx(1.2, abs=0.035)
    assert (clock.is_steady, clock.rate) == (False, 30)
    assert len(list(clip.frames())) == 24
    whole = plan_recording(describe_videos(folder))
    assert (whole.shape[2], whole.frame_rate) == (pytest.approx(36, abs=1), 30)
    np.testing.assert_array_equal(np.unique(whole.keep[0, 0]), np.arange(24))  # none is lost
    assert "33.3 to 66.7 ms apart; at 30 a second it has" in whole.notes[0]
    paced = assemble(describe_videos(folder), sampling=Sampling(frame_rate=8))
    assert (paced.num_frames, paced.frame_rate) == (10, 8)
    nearest = np.abs(MIXED[:, None] - np.arange(10) / 8).argmin(axis=0)
    np.testing.assert_array_equal(pick_frames(clock, Sampling(frame_rate=8), "x")[0], nearest)
    spread = plan_recording(describe_videos(folder), sampling=Sampling(num_frames=4))
    np.testing.assert_array_equal(
        spread.keep[0, 0], np.abs(MIXED[:, None] - np.linspace(0, MIXED[-1], 4)).argmin(axis=0)
    )
    assert any("not evenly spaced" in note for note in inspect_folder(folder).notes)


def test_a_screen_recorders_stamps_are_taken_as_they_are(tmp_path):
    rng = np.random.default_rng(3)
    steps = rng.choice([16, 17, 33, 50, 84, 133], 22, p=[0.25, 0.25, 0.2, 0.1, 0.1, 0.1])
    times = np.concatenate([[0], np.cumsum(steps)]) / 1000
    write_stamped(tmp_path / "a.mkv", times, ticks=1000)
    clock = open_clip(tmp_path / "a.mkv").read_clock()
    np.testing.assert_allclose(clock.times, times, atol=1e-3)
    assert clock.rate == pytest.approx(1000 / 16.5, rel=0.04)
    picked, rate = pick_frames(clock, Sampling(), "a")
    assert len(picked) / rate == pytest.approx(clock.end, abs=0.02)  # no slower and no faster than it was
    np.testing.assert_array_equal(np.unique(picked), np.arange(23))


@pytest.mark.parametrize("rate", [8, 12, 23.976, 24, 25, 29.97, 30, 50, 60, 120])
def test_rounded_stamps_of_an_even_pace_are_that_pace(rate):
    exact = {23.976: 24000 / 1001, 29.97: 30000 / 1001}.get(rate, rate)
    times = np.round(np.arange(200) / exact, 3)
    clock = Clock(times, float(times[-1] + np.round(1 / exact, 3)), tick=0.001)
    assert clock.is_steady
    assert clock.rate == pytest.approx(exact, rel=1e-5)
    assert len(pick_frames(clock, Sampling(), "x")[0]) == 200
    assert len(pick_frames(clock, Sampling(frame_rate=exact), "x")[0]) == 200


def test_a_film_in_a_televisions_pace_is_even_and_a_lost_frame_is_not():
    pulldown = np.cumsum(np.tile([2, 3], 24))[:-1] / 60
    assert Clock(np.concatenate([[0], pulldown]), 2.0).rate == 24
    lost = np.delete(np.arange(100) / 30, 50)
    clock = Clock(lost, 100 / 30)
    picked, rate = pick_frames(clock, Sampling(), "x")
    assert (rate, len(picked)) == (30, 100)
    np.testing.assert_array_equal(np.delete(picked, 50), np.arange(99))


def test_a_sound_that_is_longer_is_no_error(tmp_path):
    write_video(tmp_path / "mute.mp4", disc_frames(24), rate=24)
    sound = ("-f", "lavfi", "-i", "sine=duration=3", "-c:v", "copy")
    ffmpeg("-i", tmp_path / "mute.mp4", *sound, "-c:a", "aac", tmp_path / "a.mp4")
    ffmpeg("-i", tmp_path / "mute.mp4", *sound, "-c:a", "libopus", tmp_path / "a.mkv")
    ffmpeg("-itsoffset", 0.5, "-i", tmp_path / "mute.mp4", *sound, "-c:a", "aac", tmp_path / "late.mp4")
    for name in ("a.mp4", "a.mkv", "late.mp4"):
        clip = open_clip(tmp_path / name)
        clock = clip.read_clock()
        assert (clock.count, clock.rate, clock.times[0]) == (24, 24, 0), name
        assert clock.end == pytest.approx(1, abs=2e-3)
        assert len(list(clip.frames())) == 24


@pytest.mark.parametrize("suffix", ["mp4", "fast.mp4", "webm", "mkv", "avi"])
def test_a_video_that_was_cut_off_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    codec = ("-c:v", "libvpx-vp9", "-g", "1") if suffix == "webm" else ("-c:v", "mpeg4", "-g", "1")
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3)).astype(np.uint8)
    write_video(path, noise, codec=(*codec, *(("-movflags", "+faststart") if suffix == "fast.mp4" else ())))
    assert open_clip(path).read_clock().count == 24
    data = path.read_bytes()
    for share in (0.5, 0.98):
        path.write_bytes(data[: int(share * len(data))])
        expected = "cannot be read|expected a whole video" if suffix == "mp4" else "bytes, expected a whole video"
        with pytest.raises(UserError, match=rf"a\.{suffix}: .*({expected})"):
            open_clip(path).read_clock()


def test_a_video_whose_middle_is_damaged_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", noise)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    data[len(data) // 4 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 4)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mp4: cannot be read"):
        open_clip(tmp_path / "a.mp4").read_clock()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_every_frame_of_an_animation_has_its_own_delay(tmp_path, suffix):
    images = [Image.fromarray(frame) for frame in disc_frames(6)]
    delays = [100, 100, 300, 40, 0, 100]  # milliseconds
    options = {"lossless": True} if suffix == "webp" else {}
    images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], duration=delays, **options)
    clip = open_clip(tmp_path / f"a.{suffix}")
    clock = clip.read_clock()
    shown = [0.1, 0.1, 0.3, 0.04, 0.1, 0.1]  # no delay is a tenth of a second in every browser
    np.testing.assert_allclose(np.append(clock.times, clock.end), np.concatenate([[0], np.cumsum(shown)]), atol=1e-6)
    assert len(list(clip.frames())) == 6
    assert not clock.is_steady


def test_clips_of_several_paces_are_refused_and_brought_to_one(tmp_path):
    views = [*FRONT, {"name": "side", "azimuth_deg": 90, "fov_deg": 33.9}]
    folder = write_cameras(tmp_path / "set", views)
    write_video(folder / "walk/front.mp4", disc_frames(24), rate=24)
    write_video(folder / "walk/side.mp4", disc_frames(24), rate=12)
    with pytest.raises(UserError, match=r"side\.mp4: 12 frames a second, expected 24 as in .*front.*--frame_rate"):
        assemble(describe_videos(folder))
    with pytest.raises(UserError, match=r"side\.mp4: 16 frames, expected 8 as in"):
        assemble(describe_videos(folder), sampling=Sampling(frame_rate=8))
    both = plan_recording(describe_videos(folder), sampling=Sampling(frame_rate=8, num_frames=8))
    np.testing.assert_array_equal(both.keep[0, 0], np.arange(8) * 3)
    at_twelve = pick_frames(steady_clock(24, 12), Sampling(frame_rate=8, num_frames=8), "x")[0]
    np.testing.assert_array_equal(both.keep[0, 1], at_twelve)
    spread = plan_recording(describe_videos(folder), sampling=Sampling(num_frames=8))
    assert "walk: its clips last 1 to 2 s, and --num_frames spreads over each" in spread.notes[0]


def test_an_uneven_video_in_a_dataset_folder_is_refused(tmp_path):
    folder = write_cameras(tmp_path / "set", FRONT)
    write_video(folder / "walk/front.mp4", disc_frames(24), rate=24)
    write_dataset(assemble(describe_videos(folder)), tmp_path / "native")
    for path in (tmp_path / "native/walk/front").iterdir():
        path.unlink()
    (tmp_path / "native/walk/front").rmdir()
    write_video(tmp_path / "native/walk/front.mp4", disc_frames(24), rate=24)
    assert read_dataset(tmp_path / "native").num_frames == 24
    write_stamped(tmp_path / "native/walk/front.mp4", MIXED)
    with pytest.raises(UserError, match=r"front\.mp4: its frames are not evenly spaced"):
        read_dataset(tmp_path / "native")
