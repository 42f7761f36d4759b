"""The puppet walking on: a walk whose ends meet but for its way across the ground, and a tiny run of that."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from support.puppet_rig import puppet_file, puppet_scene

from dimo_jax.apps import train
from dimo_jax.configs.rig import get_config
from dimo_jax.io.gltf.append import NewClip, append_clips
from dimo_jax.rigs.channels import find_carriers
from dimo_jax.rigs.forward import make_rig
from dimo_jax.rigs.markers import find_joints
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.skeleton import LINEAR, Channel, Clip
from dimo_jax.rigs.travel import find_movers, travel

FRAMES = 31
WAY = (0.3, 1.2, 0.8)


def _go(scene, way, still):
    rig, clip = make_rig(scene), next(clip for clip in scene.clips if clip.name == "walk")
    times = np.linspace(clip.start, clip.end, FRAMES)
    pose = sample_clip(rig, clip, np.full(FRAMES, clip.start) if still else times)
    tops = find_movers(rig, find_carriers(rig, find_joints(scene)), [sample_clip(rig, clip, times)])
    return rig, clip, times, tops, travel(rig, tops, pose, np.array(way), np.linspace(0, 1, FRAMES))


def walk_on(scene, way, *, still=False):
    """A rig and its clip "on": the puppet's walk with a way across the ground; `still`: in one pose."""
    rig, clip, times, tops, gone = _go(scene, way, still)
    places, turns = (np.asarray(each, float) for each in (gone.translations, gone.rotations))
    channels = [Channel(node, "translation", LINEAR, times, places[:, node]) for node in tops]
    for node in range(rig.num_nodes):
        channels.append(Channel(node, "rotation", LINEAR, times, np.roll(turns[:, node], -1, axis=-1)))
    return rig, Clip("on", clip.start, clip.end, tuple(channels))


def write_walking_puppet(path, way):
    """The puppet's file with a clip "on" more."""
    rig, _, times, _, gone = _go(puppet_scene(), way, False)
    append_clips(puppet_file(), path, rig, [NewClip("on", times, gone)])
    return path


@functools.cache
def walking_run():
    """The workdir of a tiny run of three loops, among them "on", which goes along `WAY`; one for all tests."""
    folder = Path(tempfile.mkdtemp(prefix="walker_"))
    config = get_config("smoke")
    source = write_walking_puppet(folder / "walker.glb", WAY)
    config.data.update({"path": str(source), "clips": "on,jumping_jacks,walk", "test_clips": ""})
    train.run(config=config, workdir=str(folder / "run"))
    return folder / "run"
