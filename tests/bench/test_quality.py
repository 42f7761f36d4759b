"""The benchmark of quality: pace from a short run, figures with their spread, subjects that are not there."""

import json

import pytest

from bench import quality
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError


def make_rows(config, rates):
    return [
        dict(stage=name, resolution=size, steps_per_second=rate)
        for (name, size), rate in rates.items()
        for rate in (0.1, rate, rate)  # the first of a phase is slow
    ]


def test_the_pace_of_each_phase_counts_for_its_steps():
    config = get_config("demo")
    rates = {("stage1", 32): 100.0, ("stage1", 64): 50.0, ("stage2", 64): 20.0, ("stage2", 128): 10.0}
    rates["stage3", 128] = 12.5
    pace = quality.measure_pace(make_rows(config, rates), config)
    assert pace.seconds == pytest.approx(573 / 100 + 1_027 / 50 + 525 / 20 + 1_575 / 10 + 400 / 12.5)
    config.stage3.num_steps = 0
    assert quality.measure_pace(make_rows(config, rates), config).seconds == pytest.approx(pace.seconds - 400 / 12.5)
    del rates["stage2", 64]
    with pytest.raises(UserError, match=r"found no row of stage2 at 64 px"):
        quality.measure_pace(make_rows(config, rates), config)


def test_spread_is_half_of_what_seeds_differ_by_and_missing_figures_stay_missing():
    runs = [dict.fromkeys(quality.FIGURES, value) | {"surface": None} for value in (1.0, 2.0, 4.0)]
    found = quality.summarize(runs)
    assert found["psnr"] == pytest.approx(7 / 3)
    assert found["psnr_spread"] == 1.5
    assert found["surface"] is None
    row = quality.describe("puppet", found)
    assert "2.33 ± 1.50" in row
    assert row.count("|") == len(quality.FIGURES) + 2
    json.dumps(found, allow_nan=False)


def test_a_failed_run_names_its_log(tmp_path, monkeypatch):
    class Failed:
        returncode = 1

    monkeypatch.setattr(quality.subprocess, "run", lambda *_, **__: Failed())
    with pytest.raises(UserError, match=r"puppet, seed 2: the run failed, see .*log\.txt"):
        quality.launch("puppet", 2, tmp_path / "puppet_2", quality.Settings())


def test_subjects_that_do_not_exist_are_refused(capsys):
    assert quality.read_settings(["--subjects=puppet", "--budget=2"]).subjects == ("puppet",)
    with pytest.raises(SystemExit):
        quality.read_settings(["--subjects=dragon"])
    assert "found 'dragon', expected some of puppet, knight, fox, spider" in capsys.readouterr().err
