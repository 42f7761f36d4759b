import json
import tarfile

import numpy as np
import pytest

from dimo_jax.cameras.triangulation import project
from dimo_jax.core.errors import UserError
from dimo_jax.data.clip_sentences import make_sentence
from dimo_jax.data.clips import ClipShards, augment_sample
from dimo_jax.data.formats.rigged.shard_plan import ShardOptions, find_rigs
from dimo_jax.data.formats.rigged.shards import write_shards
from dimo_jax.data.puppet.rig import write_puppet_rig

CLIPS = ("walk", "squat", "wave_left", "bow_deeply")  # of `clip_shards`


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    return write_puppet_rig(tmp_path_factory.mktemp("rig") / "puppet.glb", num_motions=7)


@pytest.fixture(scope="module")
def folder(clip_shards):
    return clip_shards


def embed(sentences):
    return np.array([[len(sentence), hash(sentence) % 97] for sentence in sentences], np.float32)


def test_a_folder_tells_its_rigs_clips_and_who_trains(folder):
    shards = ClipShards(folder)
    assert (shards.size, shards.num_views, shards.num_frames) == (32, 4, 4)
    rig = shards.rigs["puppet"]
    assert len(rig.markers) == len(rig.colors) == len(rig.rest) <= 16
    assert {sample.name for sample in shards.samples} == {f"puppet/{name}" for name in CLIPS}
    assert len(shards.select("train")) == 6
    assert len(shards.select("clip")) == 1
    assert not shards.select("rig")
    assert len(shards.select("train", canonical=True)) == 3
    assert shards.captions["puppet/walk"] == "it walks"


def test_a_sample_shows_its_markers_where_they_are(folder):
    shards = ClipShards(folder)
    for sample in shards.samples:
        found, rig = shards.read(sample), shards.rigs["puppet"]
        assert found.videos.shape == (4, 2, 4, 32, 32, 3)
        assert found.stills.shape == (4, 2, 32, 32, 3)
        assert (found.videos[:, 0, :, 0] == 255).all()
        assert (found.videos[:, 1, :, 0] == 0).all()
        pixels, depths = project(found.points.astype(float), found.cameras)
        front = np.flatnonzero(found.kept)[depths[0, 0, found.kept].argmin()]  # nothing hides it
        x, y = np.floor(pixels[0, 0, front]).astype(int)
        assert np.abs(found.videos[0, 1, 0, y, x].astype(int) - rig.colors[front]).max() <= 8
        assert found.kept.all() == (sample.variant == 0) or sample.variant > 0


def test_a_batch_depends_on_its_arguments_alone_and_hosts_share_it(folder):
    first, second = ClipShards(folder, embed=embed), ClipShards(folder, embed=embed)
    options = dict(seed=3, step=7, augment=True)
    one, names = first.batch("train", 4, **options)
    first.batch("train", 4, seed=3, step=8)
    again, same = second.batch("train", 4, **options)
    assert names == same
    assert one.videos.shape == (4, 4, 2, 4, 32, 32, 3)
    assert one.words.shape == (4, 1, 2)
    assert one.cameras.world_to_camera.shape == (4, 4, 4, 4)
    np.testing.assert_array_equal(one.videos, again.videos)
    halves = [first.batch("train", 4, host=host, hosts=2, **options) for host in range(2)]
    np.testing.assert_array_equal(np.concatenate([half.videos for half, _ in halves]), one.videos[[0, 2, 1, 3]])
    steps = first.batches("train", 4, **options)
    np.testing.assert_array_equal(next(steps)[0].stills, one.stills)
    assert not np.array_equal(next(steps)[0].stills, one.stills)
    with pytest.raises(UserError, match="batch_size: found 3, expected a positive multiple of 2 hosts"):
        first.batch("train", 3, seed=0, step=0, hosts=2)
    with pytest.raises(UserError, match="has no sample of split 'rig'"):
        first.batch("rig", 1, seed=0, step=0)


def test_augmenting_keeps_backgrounds_and_what_stills_say_of_videos(folder):
    shards = ClipShards(folder)
    found = shards.read(shards.samples[0])
    still = np.repeat(found.stills[:, :, None], 2, axis=2)
    videos, stills = augment_sample(still, found.stills, 5)
    np.testing.assert_array_equal(videos[:, :, 0], stills)
    assert (videos[:, 0, :, 0] == 255).all()
    assert (videos[:, 1, :, 0] == 0).all()
    assert not np.array_equal(stills, found.stills)
    assert sorted(map(tuple, np.sort(stills[:, 1], -1).reshape(-1, 3).tolist())) == sorted(
        map(tuple, np.sort(found.stills[:, 1], -1).reshape(-1, 3).tolist())
    )


def test_captions_are_edited(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "captions.txt").write_text("puppet/walk: it strolls\n")
    shards = ClipShards(tmp_path)
    assert shards.captions["puppet/walk"] == "it strolls"
    assert shards.captions["puppet/squat"] == ClipShards(folder).captions["puppet/squat"]
    (tmp_path / "captions.txt").write_text("puppet/fly: it flies\n")
    with pytest.raises(UserError, match=r"captions.txt: line 1 names motion 'puppet/fly'"):
        ClipShards(tmp_path)


def test_damaged_shards_are_refused_in_one_line(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "train-00000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    shards = ClipShards(tmp_path)
    with pytest.raises(UserError, match=r"train-00000.tar: damaged, its SHA-256 is not that of index.json") as error:
        shards.read(shards.select("train")[0])
    assert "\n" not in str(error.value)
    shard.write_bytes(content[:-600])
    with pytest.raises(UserError, match=r"train-00000.tar: \d+ bytes, expected \d+ bytes as index.json says"):
        ClipShards(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00000.tar: no such file"):
        ClipShards(tmp_path)
    table = json.loads((tmp_path / "index.json").read_text())
    for key, value, says in (("colors", 256, "numbers of 0 to 255"), ("parents", 99, "those of markers, or -1")):
        changed = json.loads(json.dumps(table))
        changed["rigs"][0][key] = (np.zeros_like(changed["rigs"][0][key]) + value).tolist()
        (tmp_path / "index.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=rf"index.json: rigs\[0\]: {key} is .* expected {says}"):
            ClipShards(tmp_path)
    del table["rigs"][0]["rest"]
    (tmp_path / "index.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"index.json: rigs\[0\]: key 'rest' is missing"):
        ClipShards(tmp_path)
    with pytest.raises(UserError, match=r"found no index.json, expected a folder of --app=import_data --pose_maps"):
        ClipShards(tmp_path / "none")


def test_shards_are_tar_files_of_whole_samples(folder):
    with tarfile.open(folder / "train-00000.tar") as tar:
        names = tar.getnames()
    assert names[:4] == ["000000.json", "000000.rgb.png", "000000.pose.png", "000000.points.npy"]
    assert len(names) == 4 * 6


@pytest.mark.parametrize(
    ("source", "changes", "says"),
    [
        ("", dict(clips="fly"), "--clips=fly: fits nothing in any rig"),
        ("", dict(hide="cape*"), r"--hide=cape\*: fits nothing in any rig"),
        ("puppet", dict(test_rigs="fox"), "--test_rigs=fox: fits no rig, expected some of puppet"),
        ("", dict(test_rigs="puppet"), "--test_rigs=puppet: holds out every clip"),
        ("none.glb", {}, "--source=none.glb: no such file or folder"),
    ],
)
def test_bad_input_writes_nothing(rig, tmp_path, source, changes, says):
    with pytest.raises(UserError, match=says):
        write_shards(
            source or str(rig), tmp_path / "out", ShardOptions(**dict(num_frames=4, clips="walk,squat") | changes)
        )
    assert list(tmp_path.iterdir()) == []


def test_options_are_checked():
    for changes, says in (
        (dict(size=33), "--size: found 33, expected an even number of 16 to 1024"),
        (dict(variants=0), "--variants: found 0, expected 1 to 99"),
        (dict(azimuths_deg=(20.0,)), r"--azimuths: found \(20.0,\), expected 2 to 64 cameras"),
    ):
        with pytest.raises(UserError, match=says):
            ShardOptions(**changes)


def test_rigs_are_found(tmp_path):
    (tmp_path / "a.glb").write_bytes(b"")
    (tmp_path / "b.gltf").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    found = find_rigs(f"{tmp_path}, {tmp_path / 'a.glb'},puppet")
    assert [(name, named) for name, _, named in found] == [("a", 0), ("b", 0), ("a_2", 1), ("puppet", 1)]
    with pytest.raises(UserError, match=r"notes.txt: a file of another kind, expected .glb"):
        find_rigs(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Armature|Walk_Fwd", "it walks forwards"),
        ("Walking_Backwards", "it walks backwards"),
        ("1H_Melee_Attack_Chop", "it attacks and chops with one hand"),
        ("Sit_Floor_Idle", "it sits and stays so on the floor"),
        ("Sit_Floor_StandUp", "it sits and stands up on the floor"),
        ("Idle_2_HeadLow", "it stands idle with its head low, version 2"),
        ("Lie_Down", "it lies down"),
        ("Snake_Attack", "it attacks"),
        ("mixamo.com", "it moves: mixamo com"),
        ("走る", "it moves: 走る"),
        ("|", "it moves"),
    ],
)
def test_names_become_sentences(name, sentence):
    assert make_sentence(name, known=("q", "snake")) == sentence
