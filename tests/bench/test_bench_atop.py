import numpy as np
import pytest

from bench import atop, imagined
from dimo_jax.data.articulated.categories import make_shape
from dimo_jax.data.articulated.videos import film
from dimo_jax.geometry.joint import make_joint


def test_figures_tell_the_still_from_the_truth(monkeypatch):
    monkeypatch.setattr(atop, "lpips", lambda pred, truth: np.abs(pred - truth).mean(axis=(1, 2, 3)))
    truth = film(make_shape("oven", 1000), num_frames=3, side=32).frames
    still = np.repeat(truth[:, :1], 3, axis=1)
    same, worse = atop.judge(truth, truth), atop.judge(still, truth)
    assert same["moved"] == pytest.approx(1)
    assert worse["moved"] == 0
    assert same["lpips"] == 0 < worse["lpips"]
    assert worse["moving"] < worse["psnr"] < same["psnr"]


@pytest.mark.parametrize("seed", [1000, 1003])
def test_another_drawer_is_seen_and_is_not_the_part(seed):
    found = film(make_shape("drawer", seed), num_frames=2, side=64)
    other, own = atop.mask_other_drawer(seed, found) > 0, found.masks[:, 0] > 0
    assert other.sum() > 100
    assert not (other & own).any()
    assert found.frames[:, 0, ..., 3][other].mean() > 200


def test_few_frames_are_held_until_the_network_takes_them(monkeypatch):
    seen = []
    monkeypatch.setattr(atop, "video_features", lambda videos: seen.append(videos) or videos.mean(axis=(1, 2, 3)))
    truth = film(make_shape("oven", 1000), num_frames=3, side=16).frames
    found = atop.measure_fvd([truth, truth], {})
    assert [each.shape[:2] for each in seen] == [(4, 12)] * 3  # one video a view
    np.testing.assert_array_equal(seen[0][:, 0], seen[0][:, 3])
    np.testing.assert_array_equal(seen[1][:, 0], seen[1][:, 11])  # the still
    assert found["drawn"] == pytest.approx(0, abs=1e-9)
    assert found["still"] > 1e-6


def test_runs_are_joined_by_mean_and_spread():
    runs = [dict(still=dict(psnr=10.0), drawn=dict(psnr=value), rows=[]) for value in (1.0, 3.0)]
    assert atop.join_runs(runs) == dict(still=dict(psnr=(10.0, 0.0)), drawn=dict(psnr=(2.0, 1.0)))


def test_no_joint_is_a_failure_of_its_object(monkeypatch):
    monkeypatch.setattr(imagined, "find_joints", lambda *_: [])
    monkeypatch.setattr(imagined, "joint_from_generator", lambda *_, **__: [])
    (thing,) = imagined.list_made(["drawer"], [1000])
    rows = [imagined.try_object(thing, generator=None, guidance=1.0)]
    assert imagined.summarize(rows, "geometry")["success"] == 0
    assert imagined.count_both(rows)["wrong and wrong"] == 1


def test_both_ways_to_a_joint_are_judged_and_counted(monkeypatch):
    """A model that finds each joint but the oven's, whose axis it has upright."""

    def know(body, part, generator, sentence, key, *, up, guidance):
        made = next(each for name, each in shapes.items() if each.sentence == sentence)
        turned = make_joint("revolute", (0.0, 1.0, 0.0), made.joint.origin, made.joint.range, confidence=0.5)
        return [turned if made is shapes["oven"] else made.joint]

    shapes = {name: make_shape(name, 1000) for name in ("drawer", "oven")}
    monkeypatch.setattr(imagined, "joint_from_generator", know)
    things = imagined.list_made(list(shapes), [1000])
    rows = [imagined.try_object(thing, generator=None, guidance=1.0) for thing in things]
    means = imagined.summarize(rows, "generated")
    assert (means["type"], means["success"], means["mae"]) == (1.0, 0.5, pytest.approx(45.0))
    right = sum(row["geometry"]["success"] for row in rows)
    both = imagined.count_both(rows)
    assert sum(both.values()) == 2
    assert both["right and right"] + both["right and wrong"] == right
    assert both["right and wrong"] + both["wrong and wrong"] == 1
