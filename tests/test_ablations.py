"""Every ablation's config is valid and its steps trace; those whose stages differ train two steps of each."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bench import ablate
from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.core.errors import UserError
from dimo_jax.data.sampler import Sampler, batch_sizes
from dimo_jax.data.sources import load
from dimo_jax.metrics.fvd import frechet_distance
from dimo_jax.runs.build import build_system
from dimo_jax.runs.checks import check_config, check_dataset
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.training import latents
from dimo_jax.training.config_file import config_sha256
from dimo_jax.training.images import composite_truth
from dimo_jax.training.loop import fit

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs/ablations").glob("[!_]*.py"))
STRINGS = {"no_joint_training": ["smoke@1"], "no_latent_space": ["smoke", "smoke@none"]}
SPECS = [f"{path}:{string}" for path in FILES for string in STRINGS.get(path.stem, ["smoke"])]
# Those that change what a stage does, not only a function in it.
TRAINED = [spec for spec in SPECS if Path(spec.partition(":")[0]).stem in ("no_factorization", "no_pretraining")]
BASE = f"{ROOT}/configs/dimo.py:smoke"


def load_config(spec, budget=1.0):
    return ablate.load_config(ablate.Plan(spec, budget))


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
    config = load_config(spec)
    check_config(config)
    dataset = load(config.data)
    check_dataset(config, dataset)
    trained = fit(config, build_system(config, dataset), dataset, watcher, watcher)
    state = trained.state
    assert int(state.step) == watcher.last == stages.build_stages(config)[-1].span.last_step > 0
    assert all(np.isfinite(value) for _, row in watcher.rows for value in row.values())
    skips = "no_pretraining" in spec
    assert {stage for stage, _ in watcher.rows} == ({"stage2", "stage3"} if skips else {"stage1", "stage2"})
    check_terms(spec, {term.removeprefix("loss/") for _, row in watcher.rows for term in row})
    player = Player(config, trained.system.components, state, num_frames=dataset.num_frames)
    clip = player.play(player.latent(0), dataset.times)
    assert clip.gaussians.means.shape == (6, 64, 3)
    assert clip.key_points.shape == (6, 16, 3)
    assert bool(jnp.all(jnp.isfinite(clip.gaussians.means)))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in TRAINED], ids=ablate.name_run)
def test_ablation_traces(spec):
    config = load_config(spec)
    check_config(config)
    dataset = load(config.data)
    check_dataset(config, dataset)
    assert dataset.num_motions == (1 if "no_joint_training" in spec else 3)
    components = build_components(config)
    batch = Sampler(dataset, **batch_sizes(config)).sample(0)
    for stage in stages.build_stages(config)[:2]:  # whose terms differ
        state = stages.template(
            config,
            components,
            step=stage.span.first_step,
            num_motions=dataset.num_motions,
            num_frames=dataset.num_frames,
        )
        step = build_step(components, stage.options)
        after, metrics = jax.eval_shape(step, state, batch, load_fixed(stage.options.terms), jax.random.key(0))
        assert jax.tree.structure(after) == jax.tree.structure(state)
    check_terms(spec, metrics.terms)


@pytest.mark.parametrize(("kind", "make"), [("", latents.number_codes), ("@none", latents.zero_codes)])
def test_without_latent_space_no_code_is_learned(kind, make):
    config = load_config(f"{ROOT}/configs/ablations/no_latent_space.py:smoke{kind}")
    codes = stages.resolve_latent_init(config)(jax.random.key(0), num_motions=3)
    np.testing.assert_array_equal(codes.mu, make(jax.random.key(0), num_motions=3).mu)
    assert config.stage1.rates.latents.initial == config.stage2.rates.latents.initial == 0
    assert config.stage3.fit.code_rate == 0


@pytest.mark.parametrize("spec", SPECS, ids=ablate.name_run)
def test_ablation_differs_from_its_preset(spec):
    assert config_sha256(load_config(spec)) != config_sha256(load_config(BASE))


def test_number_codes_tell_sixty_motions_apart():
    codes = np.asarray(latents.number_codes(jax.random.key(0), num_motions=60).mu)
    apart = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 9 * np.eye(60)
    assert apart.min() > 0.5
    assert codes.shape == (60, 32)
    other = np.asarray(latents.number_codes(jax.random.key(1), num_motions=60).mu)
    np.testing.assert_allclose(np.sort(codes, axis=0), np.sort(other, axis=0), atol=1e-5)  # the same, dealt out anew
    assert not np.allclose(codes, other)


def test_budget_scales_every_schedule():
    config = load_config(f"{ROOT}/configs/dimo.py:demo", 0.25)
    assert (config.stage1.num_steps, config.stage2.num_steps) == (400, 525)
    assert config.stage1.phases == ((0, 32), (143, 64))
    assert config.stage2.rates.means.num_steps == 525
    assert config.stage2.prune_every == 88
    assert load_config(f"{ROOT}/configs/dimo.py:paper", 0.25).stage1.anneal_every == 250
    assert config.stage1.anneal_every == 0
    turn = config.stage1.losses.turn
    assert (turn.start, turn.stop) == (143, 287)
    check_config(config)
    check_config(load_config(f"{ROOT}/configs/dimo.py:demo", 1e-4))


MOTIONS = ("walk", "wave", "jump")


def make_result(names, *, psnr, seed=0):
    """Scores of some motions; the truth's features depend on the motion, the prediction's on the seed as well."""
    truth = np.stack([np.random.default_rng(MOTIONS.index(name)).normal(size=(2, 400)) for name in names])
    predicted = truth + 0.1 * np.random.default_rng(100 + seed).normal(size=truth.shape)
    scores = {name: np.full(len(names), 0.5) for name in ablate.IMAGE_SCORES} | dict(psnr=np.full(len(names), psnr))
    return ablate.Result(tuple(names), scores, predicted, truth, steps=4, seconds=3.0)


def finish(plan, workdir, *, names, psnr):
    workdir.mkdir(parents=True)
    ablate.write_result(workdir, make_result(names, psnr=psnr), ablate.load_config(plan))


def test_finished_runs_are_skipped_and_failures_named(tmp_path):
    started = []

    def start(plan, workdir):
        started.append(plan.spec)
        if "rigid_arap" in plan.spec:
            return "killed"
        _, _, motion = plan.spec.partition("@")
        names = [MOTIONS[int(motion)]] if motion else MOTIONS
        finish(plan, workdir, names=names, psnr=20.0 + 2 * len(started))
        return ""

    specs = [f"{ROOT}/configs/ablations/{name}.py:smoke" for name in ("no_joint_training", "rigid_arap")]
    plans = [ablate.parse_plan(spec, budget=1.0) for spec in [BASE, *specs]]
    rows, failures = ablate.run_all(plans, tmp_path, start=start)
    assert list(rows) == ["dimo_smoke", "no_joint_training_smoke"]
    assert failures == [f"{specs[1]}: killed"]
    started.clear()
    again, _ = ablate.run_all(plans, tmp_path, start=start)
    assert started == specs[1:]
    table = ablate.make_tables(again, budget=1.0)
    assert table == ablate.make_tables(rows, budget=1.0)
    (line,) = [line for line in table.splitlines() if line.startswith("| no_joint_training_smoke |")]
    assert line.startswith("| no_joint_training_smoke | 26.00 |")  # its three motions: 24, 26, 28
    assert line.endswith("| 3 x 4 | 9 |")


def test_rows_are_compared_on_the_motions_that_they_share():
    rows = {"whole": [make_result(MOTIONS, psnr=20.0)], "alone": [make_result(["jump"], psnr=30.0, seed=1)]}
    rows["whole"][0].scores["psnr"][:] = [10.0, 20.0, 30.0]
    first, second = ablate.make_tables(rows, budget=1.0).split("1 motions:")
    assert "| whole | 20.00 |" in first
    assert "| alone |" not in first
    assert "| whole | 30.00 |" in second
    assert "| alone | 30.00 |" in second


def test_an_undefined_figure_of_a_motion_is_in_no_mean():
    rows = {"whole": [make_result(MOTIONS, psnr=20.0)]}
    rows["whole"][0].scores["psnr"][:] = [10.0, np.nan, 30.0]
    rows["whole"][0].scores["psnr_foreground"][:] = np.nan
    assert "| whole | 20.00 | - | 0.5000 |" in ablate.make_tables(rows, budget=1.0)


def test_fvd_is_that_of_all_videos_of_a_row():
    result = make_result(MOTIONS, psnr=20.0)
    expected = frechet_distance(result.predicted.reshape(6, 400), result.truth.reshape(6, 400))
    parts = [
        ablate.Result((name,), {key: value[[i]] for key, value in result.scores.items()}, result.predicted[[i]],
                      result.truth[[i]], 4, 1.0) for i, name in enumerate(MOTIONS)
    ]  # fmt: skip
    for results in ([result], parts):
        assert f"| {expected:.1f} |" in ablate.make_row("row", results, MOTIONS)


def test_a_budget_of_its_own_stands_behind_a_config():
    plan = ablate.parse_plan(f"{BASE}@0.5", budget=1.0, changes=["seed=1"])
    assert plan == ablate.Plan(BASE, 0.5, ("seed=1",))
    assert ablate.parse_plan("a.py:demo@3", budget=1.0) == ablate.Plan("a.py:demo@3", 1.0)
    with pytest.raises(UserError, match=r"--configs=a.py:demo@0.x: found '0.x'"):
        ablate.parse_plan("a.py:demo@0.x", budget=1.0)


def test_changes_reach_every_config():
    config = ablate.load_config(ablate.Plan(BASE, 1.0, ("stage2.num_per_key_point=3", "data.path=some/where")))
    assert (config.stage2.num_per_key_point, config.data.path) == (3, "some/where")
    for change in ("stage2.nothing=3", "seed=[", "nothing"):
        with pytest.raises(UserError, match="--set="):
            ablate.load_config(ablate.Plan(BASE, 1.0, (change,)))


@pytest.mark.slow
def test_a_run_is_scored_by_motion(tmp_path):
    plan = ablate.Plan(BASE, 1.0)
    config = ablate.load_config(plan)
    config.data.source.update(num_frames=10, num_test_views=1)  # FVD's network takes at least 9
    dataset = load(config.data)
    components = build_components(config)
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
    state = stages.begin_first(config, components, **sizes, key=jax.random.key(0))
    state = stages.begin_second(state, jax.random.key(1), config=config, components=components, num_frames=10)
    player = Player(config, components, state, num_frames=10)
    result = ablate.score(player, dataset, config, steps=4, seconds=1.0, cache=tmp_path / "truth")
    assert result.names == tuple(dataset.names)
    assert result.predicted.shape == result.truth.shape == (3, 1, 400)
    clip = player.play(player.latent(1), dataset.times)
    rgb, _ = player.render(clip.gaussians, select_cameras(dataset.cameras, [3]))
    truth, _ = composite_truth(jnp.asarray(dataset.frames[1, [3]]), player.background)
    frames = [0, 1, 2, 3, 5, 6, 7, 8, 9]  # every fifth is held out, but for the last
    error = np.mean((rgb - np.asarray(truth))[0, frames] ** 2, axis=(1, 2, 3))
    assert result.scores["psnr"][1] == pytest.approx(np.mean(-10 * np.log10(error)), abs=1e-3)
    assert len(list((tmp_path / "truth").glob("*.npy"))) == 3
    np.testing.assert_array_equal(ablate.true_features(np.asarray(truth), tmp_path / "truth"), result.truth[1])
    ablate.write_result(tmp_path, result, config)
    again = ablate.read_result(tmp_path, config)
    np.testing.assert_array_equal(again.scores["lpips_alex"], result.scores["lpips_alex"])
    config.seed = 7
    assert ablate.read_result(tmp_path, config) is None


@pytest.mark.parametrize("spec", ["nope.py:demo", f"{BASE}er", f"{ROOT}/configs/ablations/no_latent_space.py:demo@x"])
def test_bad_specs_are_refused(spec):
    with pytest.raises(UserError, match="configs"):
        load_config(spec)


def test_motions_out_of_range_are_refused():
    config = load_config(f"{ROOT}/configs/ablations/no_joint_training.py:smoke@7")
    assert isinstance(config, ConfigDict)
    with pytest.raises(UserError, match=r"config.data.motions: found 7, expected 0 to 2"):
        load(config.data)
