"""Programs that we did not write, for tests of exports: the Khronos glTF validator, three.js, VTK and Blender."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
VALIDATE = """
const files = process.argv.slice(1), validator = require('gltf-validator'), fs = require('fs');
Promise.all(files.map(f => validator.validateBytes(new Uint8Array(fs.readFileSync(f)), {maxIssues: 0})))
  .then(reports => console.log(JSON.stringify(reports.map(r => r.issues.messages))));
"""


def validate(*paths):
    """Messages of the Khronos validator above "information", as (code, pointer), of all files together.

    Skips where node or the package is absent; `npm install --no-save gltf-validator` in the repository brings it.
    """
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the Khronos glTF validator cannot run")
    node = ["node", "-e", VALIDATE, *map(str, paths)]
    done = subprocess.run(node, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    if "Cannot find module 'gltf-validator'" in done.stderr:
        pytest.skip("gltf-validator is not installed: npm install --no-save gltf-validator (or set NODE_PATH)")
    assert done.returncode == 0, done.stderr
    return [(m["code"], m["pointer"]) for each in json.loads(done.stdout) for m in each if m["severity"] < 2]


def play_in_three(path, moments):
    """What three.js makes of a file: names of its `clips` and `nodes`, and for each moment a frame of vertices.

    Skips where node or the package is absent; `npm install --no-save three` in the repository brings it.

    Args:
      path: the file.
      moments: pairs of a clip's index, -1 for none, and seconds.

    Returns:
      A dict with `clips`, `nodes` in the file's order, and `frames`: for each moment a dict from (node, primitive) to
      [p,3] in the world.
    """
    if shutil.which("node") is None:
        pytest.skip("node is not installed: three.js cannot run")
    moments = json.dumps([[int(clip), float(seconds)] for clip, seconds in moments])
    node = ["node", str(ROOT / "tests/support/three_player.mjs"), str(path), moments]
    done = subprocess.run(node, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if "Cannot find module 'three'" in done.stderr:
        pytest.skip("three.js is not installed: npm install --no-save three (or set NODE_PATH)")
    assert done.returncode == 0, done.stderr
    played = json.loads(done.stdout)
    played["frames"] = [
        {tuple(map(int, place.split("."))): np.reshape(values, (-1, 3)) for place, values in frame.items()}
        for frame in played["frames"]
    ]
    return played


def play_in_blender(path, clip, seconds, folder):
    """What Blender makes of a file: `names` of objects and bones, `clips`, and vertices [P,3] at times of a clip.

    Skips unless BPY_PYTHON is a Python with Blender's package `bpy`, which is on PyPI; it needs an environment of its
    own, since it takes NumPy 1 alone.
    """
    python = os.environ.get("BPY_PYTHON", "")
    if not python:
        pytest.skip("BPY_PYTHON is not set: Blender cannot run (a Python with `pip install bpy`)")
    script, out = str(ROOT / "tests/support/blender_player.py"), folder / "blender.npz"
    command = [python, script, str(path), clip, json.dumps(list(map(float, seconds))), str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as table:
        frames = [table[f"frame_{index}"] for index in range(len(seconds))]
        return {"names": table["names"].tolist(), "clips": table["clips"].tolist(), "frames": frames}


class Player:
    """Plays a skinned GLB with VTK."""

    def __init__(self, path):
        vtk = pytest.importorskip(
            "vtk", reason="vtk, an independent glTF reader, is not installed", exc_type=ImportError
        )
        self._to_numpy = pytest.importorskip("vtk.util.numpy_support", exc_type=ImportError).vtk_to_numpy
        self._reader = vtk.vtkGLTFReader()
        self._reader.SetFileName(str(path))
        self._reader.ApplyDeformationsToGeometryOn()
        self._reader.UpdateInformation()
        self.names = [self._reader.GetAnimationName(i) for i in range(self._reader.GetNumberOfAnimations())]

    def vertices(self, clip, seconds):
        """Deformed vertices of every primitive at a time of a clip, in the file's order."""
        for other in range(len(self.names)):
            self._reader.DisableAnimation(other)
        self._reader.EnableAnimation(clip)
        self._reader.UpdateTimeStep(seconds)
        self._reader.Update()
        blocks, iterator = [], self._reader.GetOutput().NewIterator()
        iterator.InitTraversal()
        while not iterator.IsDoneWithTraversal():
            blocks.append(np.array(self._to_numpy(iterator.GetCurrentDataObject().GetPoints().GetData())))
            iterator.GoToNextItem()
        return blocks


def read_array(document, index):
    """An accessor of a document that pygltflib has read, in the stored type, [count,width]."""
    accessor = document.accessors[index]
    view, width = document.bufferViews[accessor.bufferView], WIDTHS[accessor.type]
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    values = np.frombuffer(document.binary_blob(), DTYPES[accessor.componentType], accessor.count * width, start)
    return values.reshape(accessor.count, width)


def read_attributes(path):
    """A document and its first primitive's attributes by name, read with pygltflib."""
    gltf = pytest.importorskip("pygltflib", reason="pygltflib, an independent glTF reader, is not installed")
    document = gltf.GLTF2().load(str(path))
    attributes = vars(document.meshes[0].primitives[0].attributes)
    return document, {name: read_array(document, index) for name, index in attributes.items() if index is not None}
