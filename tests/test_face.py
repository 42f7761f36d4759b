"""`import dimo_jax as dj`: few names, imported lazily, that do in a few lines what docs/library.md says."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dimo_jax as dj
from dimo_jax.apps import train
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = (ROOT / "docs/library.md").read_text()


def test_the_import_is_quick_and_loads_no_jax():
    code = (
        "import time; start = time.perf_counter(); import dimo_jax, sys; took = time.perf_counter() - start;"
        "print(took, 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    took, has_jax, has_numpy = done.stdout.split()
    assert float(took) < 0.2
    assert has_jax == has_numpy == "False"


def test_every_name_is_there_and_has_words():
    assert set(dj.__all__) <= set(dir(dj))
    for name in dj.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(dj, name)) or "") > 40, name
    with pytest.raises(AttributeError, match=r"has no attribute 'rendr'; it has .*render"):
        dj.rendr  # noqa: B018


def test_the_package_that_renders_is_called_by_the_functions_name():
    code = (
        "import dimo_jax as dj; face = dj.render; import dimo_jax.render; from dimo_jax.render import project, render;"
        "assert dj.render is face and dj.render.project is project and callable(render) and callable(face)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = get_config("smoke")
    config.evaluation.update(num_videos=0, num_samples=1)
    folder = tmp_path_factory.mktemp("face") / "run"
    train.run(config=config, workdir=str(folder))
    return folder


def test_ten_lines_sample_a_run_and_render_it(workdir):
    code = re.search(r"```\n(import dimo_jax as dj\n\nrun = .*?)```", LIBRARY, re.S)[1]
    assert 'load_run("runs/dimo")' in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = {}
    exec(code.replace("runs/dimo", str(workdir)), names)
    assert names["image"].shape == (256, 256, 3)
    assert names["clip"].key_points.shape[0] == 42
    run = names["run"]
    assert run.render(names["clip"], run.camera(16)).shape == (42, 16, 16, 3)
    half = run.blend(run.motions[:2], (0.5, 0.5))
    np.testing.assert_allclose(half, (run.code(run.motions[0]) + run.code(run.motions[1])) / 2, rtol=1e-5, atol=1e-7)
    assert np.any(np.asarray(run.sample(seed=1)) != np.asarray(run.sample(seed=2)))
    with pytest.raises(UserError, match=r"no training motion|--motion"):
        run.code("nobody")


def test_fifteen_lines_take_a_training_step():
    code = next(each for each in re.findall(r"```python\n(.*?)```", LIBRARY, re.S) if "make_trainer" in each)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_a_preset_that_is_not_there_is_named():
    with pytest.raises(UserError, match="preset 'dimo:nothing'"):
        dj.load_preset("dimo:nothing")
    with pytest.raises(UserError, match="preset 'nobody'"):
        dj.load_preset("nobody")


def test_stretched_schedules_keep_their_shape():
    config = dj.load_preset("dimo:demo")
    short = dj.stretch(config, 0.1)
    assert config.stage1.num_steps == 1_600
    assert (short.stage1.num_steps, short.stage2.num_steps) == (160, 210)
    assert short.stage1.phases == ((0, 32), (57, 64))
    assert (short.stage1.densify_from, short.stage1.densify_until) == (23, 112)
    assert short.stage1.rates.decoder.num_steps == 160
    assert short.stage1.losses.turn.start == 57
    assert short.stage1.refresh_every == config.stage1.refresh_every
    shortest = dj.stretch(config, 1e-4).stage1.losses.turn
    assert (shortest.start, shortest.stop) == (1, 2)
    assert short.stage1.capacity == config.stage1.capacity
    assert short.checkpoint_every == config.checkpoint_every  # not of a stage
    still = dj.stretch(dj.load_preset("static:demo"), 1e-3)
    assert still.static.num_steps == 2
    assert still.static.phases == ((0, 64), (1, 512))  # both later ones begin at step 1
    assert still.static.densify_every == 1
    with pytest.raises(UserError, match="found no stages with phases"):
        dj.stretch(dj.load_preset("animax:demo"), 2)


def test_a_run_is_made_of_a_trainer_past_its_first_stage():
    config = dj.load_preset("dimo:smoke")
    trainer = dj.make_trainer(config, dj.make_puppet(num_motions=3, num_frames=6, size=32, num_train_views=3))
    with pytest.raises(UserError, match=r"step 0, expected one past its first stage \(2\)"):
        dj.make_run(trainer, trainer.init())
    trainer.close()
    still = dj.load_preset("static:smoke")
    dataset = dj.make_puppet(num_motions=1, num_frames=1, size=32, num_train_views=3)
    with pytest.raises(UserError, match="expected a motion space"):
        dj.make_run(dj.make_trainer(still, dataset), None)


def test_tiles_are_pictures_of_floats_and_bytes():
    images = np.linspace(0, 1, 2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
    picture = dj.tile(images, column_labels=["one", "two"])
    assert picture.size == (2 * (128 + 4) + 4, 128 + 22 + 2 * 4)
    assert dj.tile(images[0], min_height=1).size == (40, 40)
    exact = np.asarray(dj.tile((255 * images).astype(np.uint8)[None], min_height=1))
    np.testing.assert_array_equal(exact[4:36, 4:36], (255 * images[0]).astype(np.uint8))
    with pytest.raises(ValueError, match="expected \\[H,W,3\\]"):
        dj.tile(images[0, 0])
