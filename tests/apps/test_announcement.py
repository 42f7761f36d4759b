"""What a training says of itself when it begins."""

import pytest

from dimo_jax.apps.train import PRESETS, describe_preset
from dimo_jax.configs.dimo import get_config


@pytest.mark.parametrize("preset", PRESETS)
def test_the_preset_that_runs_is_named_and_all_others_offered(preset):
    said = describe_preset(get_config(preset), "2 x cpu")
    assert said.startswith(f"preset {preset} (as asked by --config: 2 x cpu); choose another with --config=configs/")
    assert all((f":{other}" in said) == (other != preset) for other in PRESETS)


def test_no_preset_is_left_out():
    with pytest.raises(ValueError, match="expected one of") as raised:
        get_config("none")
    assert sorted(str(raised.value).split("expected one of ")[1].split(", ")) == sorted(PRESETS)


def test_who_chose_it_is_said():
    config = get_config()
    assert describe_preset(config, "1 x cpu").startswith(f"preset {config.preset} (chosen for this machine: 1 x cpu)")
