"""Every ablation's config is valid and its steps trace; those whose stages differ train two steps of each."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bench import ablate
from dimo_jax.apps.checks import check_config, check_data
from dimo_jax.apps.player import Player
from dimo_jax.checkpoints import config_sha256
from dimo_jax.data.sampler import Sampler, batch_sizes
from dimo_jax.data.sources import load
from dimo_jax.errors import UserError
from dimo_jax.model import latents
from dimo_jax.model.dimo import build_components
from dimo_jax.train import stages
from dimo_jax.train.frozen import load_frozen
from dimo_jax.train.loop import fit
from dimo_jax.train.step import build_step

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs/ablations").glob("*.py"))
STRINGS = {"no_joint_training": ["smoke@1"], "no_latent_space": ["smoke", "smoke@none"]}
SPECS = [f"{path}:{string}" for path in FILES for string in STRINGS.get(path.stem, ["smoke"])]
# Those that change what a stage does, not only a function in it.
TRAINED = [spec for spec in SPECS if Path(spec.partition(":")[0]).stem in ("no_factorization", "no_pretraining")]
BASE = f"{ROOT}/configs/dimo.py:smoke"


@pytest.fixture(autouse=True)
def cached(tmp_path_factory, monkeypatch):
    """One cache of the tiny puppet for all cases."""
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path_factory.getbasetemp() / "puppet"))


def check_terms(spec, terms):
    name = Path(spec.partition(":")[0]).stem
    assert ("kl" in terms) == (name not in ("no_latent_space", "plain_codes"))
    assert ("chamfer" in terms) == (name != "no_pretraining")


@pytest.mark.slow
@pytest.mark.parametrize("spec", TRAINED, ids=ablate.name_run)
def test_ablation_trains(spec, watcher):
    config = ablate.load_config(spec, 1.0)
    check_config(config)
    dataset = load(config.data)
    check_data(config, dataset)
    trained = fit(config, dataset, watcher, watcher)
    state = trained.state
    assert int(state.step) == watcher.last == 4
    assert all(np.isfinite(value) for _, row in watcher.rows for value in row.values())
    skips = "no_pretraining" in spec
    assert {stage for stage, _ in watcher.rows} == ({"stage2"} if skips else {"stage1", "stage2"})
    check_terms(spec, {term.removeprefix("loss/") for _, row in watcher.rows for term in row})
    player = Player(config, trained.components, state, num_frames=dataset.num_frames)
    clip = player.play(player.latent(0), dataset.times)
    assert clip.gaussians.means.shape == (6, 64, 3)
    assert clip.key_points.shape == (6, 16, 3)
    assert bool(jnp.all(jnp.isfinite(clip.gaussians.means)))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in TRAINED], ids=ablate.name_run)
def test_ablation_traces(spec):
    config = ablate.load_config(spec, 1.0)
    check_config(config)
    dataset = load(config.data)
    check_data(config, dataset)
    assert dataset.num_motions == (1 if "no_joint_training" in spec else 3)
    components = build_components(config)
    batch = Sampler(dataset, **batch_sizes(config)).sample(0)
    for stage in stages.build_stages(config):
        state = stages.template(
            config, components, step=stage.first_step, num_motions=dataset.num_motions, num_frames=dataset.num_frames
        )
        step = build_step(components, stage.options)
        after, metrics = jax.eval_shape(step, state, batch, load_frozen(stage.options.terms), jax.random.key(0))
        assert jax.tree.structure(after) == jax.tree.structure(state)
    check_terms(spec, metrics.terms)


@pytest.mark.parametrize(("kind", "make"), [("", latents.number_codes), ("@none", latents.zero_codes)])
def test_without_latent_space_no_code_is_learned(kind, make):
    config = ablate.load_config(f"{ROOT}/configs/ablations/no_latent_space.py:smoke{kind}", 1.0)
    codes = stages.resolve_latent_init(config)(jax.random.key(0), num_motions=3)
    np.testing.assert_array_equal(codes.mu, make(jax.random.key(0), num_motions=3).mu)
    assert config.stage1.rates.latents.initial == config.stage2.rates.latents.initial == 0


@pytest.mark.parametrize("spec", SPECS, ids=ablate.name_run)
def test_ablation_differs_from_its_preset(spec):
    assert config_sha256(ablate.load_config(spec, 1.0)) != config_sha256(ablate.load_config(BASE, 1.0))


def test_number_codes_tell_sixty_motions_apart():
    codes = np.asarray(latents.number_codes(jax.random.key(0), num_motions=60).mu)
    apart = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 9 * np.eye(60)
    assert apart.min() > 0.5
    assert codes.shape == (60, 32)


def test_budget_scales_every_schedule():
    config = ablate.load_config(f"{ROOT}/configs/dimo.py:demo", 0.25)
    assert (config.stage1.num_steps, config.stage2.num_steps) == (300, 500)
    assert config.stage2.phases == ((0, 64), (125, 128))
    assert config.stage2.rates.means.num_steps == 500
    assert config.stage2.prune_every == 50
    assert config.stage1.anneal_every == 108
    check_config(config)
    check_config(ablate.load_config(f"{ROOT}/configs/dimo.py:demo", 1e-4))


def finish(spec, workdir, budget, *, psnr):
    config = ablate.load_config(spec, budget)
    scores = dict(psnr=psnr, psnr_foreground=10.0, ssim=0.5, lpips_vgg=0.25, num_images=3, num_lpips_images=1)
    summary = dict(held_out_views=scores, seconds=dict(stage1=1.0, stage2=2.0), config_sha256=config_sha256(config))
    workdir.mkdir(parents=True)
    (workdir / "summary.json").write_text(json.dumps(summary))


def test_finished_runs_are_skipped_and_failures_named(tmp_path):
    started = []

    def start(spec, workdir, budget):
        started.append(spec)
        if "rigid_arap" in spec:
            return "killed"
        finish(spec, workdir, budget, psnr=20.0 + 2 * len(started))
        return ""

    specs = [f"{ROOT}/configs/ablations/{name}.py:smoke" for name in ("no_joint_training", "rigid_arap")]
    rows, failures = ablate.run_all([BASE, *specs], tmp_path, 1.0, start=start)
    assert [row["name"] for row in rows] == ["dimo_smoke", "no_joint_training_smoke"]
    assert rows[1]["psnr"] == pytest.approx(np.mean([24, 26, 28]))  # its three motions
    assert (rows[1]["num_runs"], rows[1]["seconds"], rows[0]["steps"]) == (3, 9.0, 4)
    assert failures == [f"{specs[1]}: killed"]
    started.clear()
    again, _ = ablate.run_all([BASE, *specs], tmp_path, 1.0, start=start)
    assert again == rows
    assert started == specs[1:]
    table = ablate.make_table(rows, budget=1.0)
    assert "| no_joint_training_smoke | 26.00 | 10.00 | 0.5000 | 0.2500 | 3 x 4 | 9 |" in table


@pytest.mark.parametrize("spec", ["nope.py:demo", f"{BASE}er", f"{ROOT}/configs/ablations/no_latent_space.py:demo@x"])
def test_bad_specs_are_refused(spec):
    with pytest.raises(UserError, match="configs"):
        ablate.load_config(spec, 1.0)


def test_motions_out_of_range_are_refused():
    config = ablate.load_config(f"{ROOT}/configs/ablations/no_joint_training.py:smoke@7", 1.0)
    assert isinstance(config, ConfigDict)
    with pytest.raises(UserError, match=r"config.data.motions: found 7, expected 0 to 2"):
        load(config.data)
