"""The notebooks of examples/ run, with few steps, in a kernel of their own; what is committed came from a run."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install -e '.[test]')")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install -e '.[test]')")

ROOT = Path(__file__).resolve().parents[2]
BOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MAX_PICTURE = 100_000  # bytes


def read(path):
    return nbformat.read(path, as_version=4)


def find_pictures(cell):
    """PNG files in what a cell shows."""
    return [
        base64.b64decode(output["data"]["image/png"])
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def check_picture(png):
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert min(picture.shape[:2]) > 90
    assert picture.std() > 5


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_what_is_committed_has_run(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert all(line.startswith("WARNING:absl:stage ") for line in said.splitlines() if line)
    pictures = [png for cell in cells for png in find_pictures(cell)]
    assert len(pictures) >= 3
    for png in pictures:
        assert len(png) <= MAX_PICTURE
        check_picture(png)


@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    book = read(path)
    (parameters,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    assert parameters.source.startswith("num_steps = ")
    parameters.source = "num_steps = 320"  # so many that some Gaussians become opaque
    shows = [bool(find_pictures(cell)) for cell in book.cells]
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert [bool(find_pictures(cell)) for cell in book.cells] == shows
    for png in [png for cell in book.cells for png in find_pictures(cell)]:
        check_picture(png)
