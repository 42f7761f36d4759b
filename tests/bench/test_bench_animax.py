import types

import jax
import numpy as np
import pytest

from bench import animax
from dimo_jax.core.errors import UserError
from dimo_jax.data.clips import ClipShards
from dimo_jax.systems.animax import parts
from dimo_jax.systems.animax.model import init_params
from dimo_jax.systems.animax.player import AnimaxPlayer


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


def test_a_model_that_draws_the_still_explains_nothing_of_the_change(shards):
    backbone = parts.small(num_layers=1, num_heads=1, head_dim=12, ffn_dim=16, freq_dim=8, text_dim=26)
    params = init_params(
        jax.random.key(0), backbone.begin(jax.random.key(1)), backbone.config, rank=0, multi_view_layers=True
    )
    options = dict(attend="xla", predicts="change")

    def look(params):
        player = AnimaxPlayer(options, parts.pixels(), backbone, params, num_frames=shards.num_frames)
        return animax.see_through_noise(types.SimpleNamespace(player=player), shards, shards.select("clip"))

    seen = look(params)
    assert list(seen) == ["0.98", "0.9", "0.8", "0.5", "0.2"]
    np.testing.assert_allclose(list(seen.values()), 0, atol=1e-4)
    head = params.backbone.head.replace(bias=params.backbone.head.bias + 0.3)
    worse = look(params.replace(backbone=params.backbone.replace(head=head)))
    assert np.all(np.array(list(worse.values())) < -0.1)
