"""Values of JSON files that other code cannot hold are refused where they are read."""

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.io.json_fields import get_array, get_field, load_json, parse_json


def test_halves_of_characters_are_refused(tmp_path):
    assert parse_json('{"name": "l\\u00e4uft \\ud83d\\ude00 \\\\ud800"}') == {"name": "läuft 😀 \\ud800"}
    for text in ('{"name": "\\ud800"}', '{"\\uDFFF x": 1}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError, match=r"a\.json: not valid JSON \(.*surrogates not allowed"):
            load_json(tmp_path / "a.json")


def test_numbers_that_no_type_holds_are_refused():
    with pytest.raises(UserError, match=r"here: size is '1000.*', expected int or float"):
        get_field({"size": 10**400}, "size", (int, float), "here")
    assert get_field({"size": -(2**40)}, "size", int, "here") == -(2**40)
    for value in (1e39, float("nan"), -float("inf")):
        with pytest.raises(UserError, match=r"here: focal has values that are not finite, or beyond 1e\+30"):
            get_array({"focal": [1.0, value]}, "focal", (2,), "here")
    with pytest.raises(UserError, match="focal is not an array of numbers"):
        get_array({"focal": [1, 10**400]}, "focal", (2,), "here")
    np.testing.assert_array_equal(get_array({"focal": [1, 1e29]}, "focal", (2,), "here"), np.float32([1, 1e29]))
