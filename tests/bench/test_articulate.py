"""Which objects the measurement of joints takes."""

import pytest

from bench.articulate import find_objects
from dimo_jax.core.errors import UserError


def test_objects_are_taken_by_name_and_a_mistyped_name_is_said(tmp_path):
    for name in ("drawer", "door", "knob"):
        (tmp_path / name).mkdir()
        for file in ("object.glb", "truth.json"):
            (tmp_path / name / file).touch()
    assert [folder.name for folder in find_objects(tmp_path)] == ["door", "drawer", "knob"]
    assert [folder.name for folder in find_objects(tmp_path, "knob, door")] == ["door", "knob"]
    with pytest.raises(UserError, match=r"--names: found 'dor'.*did you mean 'door'"):
        find_objects(tmp_path, "knob,dor")
    with pytest.raises(UserError, match=r"found no NAME/object\.glb"):
        find_objects(tmp_path / "door")
