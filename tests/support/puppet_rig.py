"""The embedded rig as a file, once a session."""

import functools
import tempfile
from pathlib import Path

from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.io.gltf.scene import load_scene


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="puppet_rig_")  # removed when the process ends


@functools.cache
def puppet_file():
    """A puppet with four clips of nine keys."""
    return write_puppet_rig(Path(_folder().name) / "puppet.glb", num_motions=4, num_frames=9, frame_rate=8)


@functools.cache
def puppet_scene():
    return load_scene(puppet_file())
