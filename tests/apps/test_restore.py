"""What a run knows of its data is read, or refused in one line."""

import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.runs.restore import FACTS_FILE, read_facts


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{", "[]", '{"names": 3, "num_frames": 2}', '{"names": ["a"], "num_frames": 1e999}'],
    ids=["deep", "cut", "list", "no list of names", "infinite"],
)
def test_damaged_facts_are_one_line(tmp_path, text):
    (tmp_path / FACTS_FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FACTS_FILE}: cannot read it") as caught:
        read_facts(tmp_path)
    assert "\n" not in str(caught.value)
