"""Filters on clips whose motion is known: real OpenCV flow, no stand-ins."""

import numpy as np
import pytest
from stand_ins import disc_clip

from dimo_jax.core.errors import UserError
from dimo_jax.priors.flow import judge_motion, measure_motion, raft

SIZE, RATE, FRAMES = 128, 8.0, 7
LARGEST_FIFTH = 2 / 3 * (1 - 0.8**1.5) / 0.2  # mean radius of a disc's outer fifth over its radius


def slide(step, **options):
    return disc_clip([(40 + step * t, 60) for t in range(FRAMES)], size=SIZE, radius=28, **options)


def turn(step):
    """A whole picture that turns, of which a disc of radius 40 counts: no ground meets the pixels that move most."""
    angles = [step * t for t in range(FRAMES)]
    frames, _ = disc_clip([(64, 64)] * FRAMES, size=SIZE, radius=200, angles=angles)
    return frames, disc_clip([(64, 64)] * FRAMES, size=SIZE, radius=40)[1]


@pytest.mark.parametrize("step", [1.0, 3.0, 6.0])
def test_the_amplitude_of_a_sliding_disc(step):
    found = measure_motion(*slide(step), frame_rate=RATE)
    assert found.amplitude == pytest.approx(step * RATE / SIZE, rel=0.05)


@pytest.mark.parametrize("step", [0.05, 0.1])
def test_the_amplitude_of_a_turning_disc(step):
    found = measure_motion(*turn(step), frame_rate=RATE)
    assert found.amplitude == pytest.approx(step * 40 * LARGEST_FIFTH * RATE / SIZE, rel=0.05)


def test_the_amplitude_depends_neither_on_resolution_nor_on_frame_rate():
    small = measure_motion(*slide(2.0), frame_rate=RATE)
    positions = [(80 + 2 * t, 120) for t in range(2 * FRAMES - 1)]
    large = measure_motion(*disc_clip(positions, size=2 * SIZE, radius=56), frame_rate=2 * RATE)
    assert large.amplitude == pytest.approx(small.amplitude, rel=0.05)


def test_what_moves_outside_of_the_mask_does_not_count():
    frames, masks = slide(0.0)
    other, _ = disc_clip([(100, 100 - 2 * t) for t in range(FRAMES)], size=SIZE, radius=12, seeds=[1] * FRAMES)
    assert measure_motion(np.minimum(frames, other), masks, frame_rate=RATE).amplitude < 0.01


@pytest.mark.parametrize(
    ("clip", "rate", "reason"),
    [
        (slide(0.0), RATE, "too still"),
        (slide(0.2), RATE, "too still"),
        (slide(3.0), RATE, ""),
        (turn(0.1), RATE, ""),
        (slide(9.0), 3 * RATE, "too violent"),
        (slide(0.5, seeds=[0, 0, 0, 0, 5, 5, 5]), RATE, "a cut"),
        (disc_clip([(30, 60)] * 3 + [(95, 70)] * 4, size=SIZE, radius=28), RATE, "a cut"),
        (disc_clip([(30 + 6 * t, 20 + 8 * t) for t in range(12)], size=SIZE, radius=28), RATE, "the object leaves"),
    ],
    ids=["still", "almost still", "moderate", "turning", "violent", "another object", "a jump", "leaves"],
)
def test_still_moderate_violent_and_cut(clip, rate, reason):
    found = judge_motion(measure_motion(*clip, frame_rate=rate))
    assert found.startswith(reason) if reason else found == ""


def test_no_object_anywhere():
    frames, masks = slide(1.0)
    assert judge_motion(measure_motion(frames, masks & False, frame_rate=RATE)) == "no object in any frame"


def test_raft_takes_torchvisions_weights(tmp_path):
    """Real network of torchvision with random weights from a file: the format of what comes out, not its quality."""
    torch = pytest.importorskip("torch", reason="package torch is absent (extra dimo_jax[distill])")
    network = pytest.importorskip(
        "torchvision.models.optical_flow",
        reason="package torchvision is absent (extra dimo_jax[distill])",
        exc_type=ImportError,
    )
    path = tmp_path / "raft.pth"
    torch.manual_seed(0)
    torch.save(network.raft_small(weights=None).state_dict(), path)
    frames, _ = disc_clip([(60, 60), (62, 60), (64, 60)], size=130)
    flow = raft(frames, weights=str(path), size="small", num_updates=1)
    assert (flow.shape, flow.dtype) == ((2, 130, 130, 2), np.float32)
    assert np.isfinite(flow).all()
    with pytest.raises(UserError, match=r"config.flow.weights: cannot load"):
        raft(frames, weights=str(tmp_path / "absent.pth"), size="small")


def test_raft_without_torchvision_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    monkeypatch.setitem(__import__("sys").modules, "torch", __import__("types").ModuleType("torch"))
    with pytest.raises(UserError, match=r"config.flow: cannot import torchvision .*dimo_jax\[distill\]"):
        raft(slide(1.0)[0])
