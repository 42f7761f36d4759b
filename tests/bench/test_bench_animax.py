import numpy as np
import pytest

from bench import animax
from dimo_jax.core.errors import UserError
from dimo_jax.data.clips import ClipShards


def embed(sentences):
    """As many columns as letters, so that sentences of like letters are near."""
    return np.array([[sentence.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for sentence in sentences])


@pytest.fixture(scope="module")
def shards(clip_shards):
    return ClipShards(clip_shards, embed=embed)


def test_the_table_has_the_truth_under_the_baselines(shards, monkeypatch):
    pytest.importorskip("cv2")
    features = lambda videos: 100 * videos.mean(axis=(2, 3)).reshape(len(videos), -1)  # noqa: E731  # I3D takes 9 frames
    monkeypatch.setattr(animax, "video_features", features)
    table = animax.compare(shards, "clip", sampler=animax.draw_truth, num_fvd=3)
    assert list(table) == ["rest", "truth", "still", "retrieval", "sampler"]
    assert table["truth"]["mpjpe"] < 0.5 * table["rest"]["mpjpe"]
    assert table["sampler"]["mpjpe"] == table["truth"]["mpjpe"]
    assert table["still"]["dynamic"] == 0
    assert table["sampler"]["fvd"] == pytest.approx(0, abs=1e-6)
    assert table["still"]["fvd"] > 1e-4
    assert "fvd" not in table["truth"]
    assert len(table["retrieval"]["clips"]) == len(shards.select("clip"))
    with pytest.raises(UserError, match=r"--sampler: returned uint8 of \[4, 2, 32, 32, 3\], expected uint8 of"):
        animax.judge(shards, shards.select("clip"), lambda shards, sample: shards.read(sample).stills)


def test_retrieval_takes_the_nearest_sentence_of_what_trains(shards):
    (sample,) = shards.select("clip")
    known = shards.select("train", canonical=True)
    found = animax.find_nearest(shards, sample, known)
    wanted, features = embed([sample.caption])[0], embed([each.caption for each in known])
    cosines = features @ wanted / np.linalg.norm(features, axis=1)
    assert found == known[cosines.argmax()]
    assert found.split == "train"
    with pytest.raises(UserError, match="has no training clip of puppet"):
        animax.find_nearest(shards, sample, [])


def test_transfer_to_the_same_rig_is_that_clip(shards):
    (sample,) = shards.select("clip")
    found = animax.find_nearest(shards, sample, shards.select("train", canonical=True))
    np.testing.assert_allclose(animax.transfer_points(shards, sample), shards.read(found).points, atol=1e-5)
