"""Every ablation's config is valid, trains two steps a stage, and takes away what it says and nothing else."""

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
from dimo_jax.data.sources import load
from dimo_jax.errors import UserError
from dimo_jax.model import latents
from dimo_jax.train.loop import fit

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs/ablations").glob("*.py"))
STRINGS = {"no_joint_training": ["smoke@1"], "no_latent_space": ["smoke", "smoke@none"]}
SPECS = [f"{path}:{string}" for path in FILES for string in STRINGS.get(path.stem, ["smoke"])]
BASE = f"{ROOT}/configs/dimo.py:smoke"


class Nothing:
    """Keeps no states; remembers the scalars."""

    def __init__(self):
        self.rows = []

    def save(self, step, state):
        self.last = step

    def restore_latest(self, template_at):
        return None

    def scalars(self, step, stage, values):
        self.rows.append((stage, dict(values)))

    def images(self, step, stage, state, preview):
        pass

    def resumed(self, step):
        pass


@pytest.fixture(autouse=True)
def cached(tmp_path_factory, monkeypatch):
    """One cache of the tiny puppet for all cases."""
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path_factory.getbasetemp() / "puppet"))


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=ablate.name_run)
def test_ablation_trains(spec):
    config = ablate.load_config(spec, 1.0)
    check_config(config)
    dataset = load(config.data)
    check_data(config, dataset)
    watcher = Nothing()
    trained = fit(config, dataset, watcher, watcher)
    state = trained.state
    assert int(state.step) == watcher.last == 4
    assert all(np.isfinite(value) for _, row in watcher.rows for value in row.values())
    name = Path(spec.partition(":")[0]).stem
    assert {stage for stage, _ in watcher.rows} == ({"stage2"} if name == "no_pretraining" else {"stage1", "stage2"})
    assert dataset.num_motions == (1 if name == "no_joint_training" else 3)
    terms = {term for _, row in watcher.rows for term in row}
    assert ("loss/kl" in terms) == (name not in ("no_latent_space", "plain_codes"))
    assert ("loss/chamfer" in terms) == (name != "no_pretraining")
    if name == "no_latent_space":
        make = latents.zero_codes if "none" in spec else latents.number_codes
        expected = make(jax.random.key(0), num_motions=3, mu_std=1.0).mu
        np.testing.assert_array_equal(state.params.latents.mu, expected)
    player = Player(config, trained.components, state, num_frames=dataset.num_frames)
    clip = player.play(player.latent(0), dataset.times)
    assert clip.gaussians.means.shape == (6, 64, 3)
    assert clip.key_points.shape == (6, 16, 3)
    assert bool(jnp.all(jnp.isfinite(clip.gaussians.means)))


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
