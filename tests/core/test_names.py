"""Names of users in any script: chosen from lists and by patterns, and made into files' names and captions."""

import unicodedata

import numpy as np
import pytest
from support.gltf_writer import moving_square

from dimo_jax.cameras.framing import Framing
from dimo_jax.core.errors import UserError
from dimo_jax.core.names import LONGEST_BYTES, choose_names, make_distinct, split_list, to_file_name
from dimo_jax.data.formats.rigged.plan import Options, describe_motions, humanize, name_motions
from dimo_jax.io.gltf.scene import load_scene, select_clips
from dimo_jax.io.json_fields import check_name

KNOWN = ["Walk[1]", "Walk1", "Idle, relaxed", "Idle", "relaxed", "Что, a?", "jump*", "jump_high", "Ärger"]


def choose(asked, *, patterns=True):
    rows = choose_names(asked, KNOWN, fail=lambda part: UserError(f"no {part!r}"), patterns=patterns)
    return [[KNOWN[index] for index in row] for row in rows]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Walk[1]", [["Walk[1]"]]),  # as a pattern it would be Walk1 alone
        ("Walk[12]", [["Walk1"]]),
        ("Idle, relaxed", [["Idle, relaxed"]]),
        ("relaxed, Idle", [["relaxed"], ["Idle"]]),
        ("Walk1,idle, relaxed ,Что, a?, Walk?", [["Walk1"], ["Idle, relaxed"], ["Что, a?"], ["Walk1"]]),
        ("jump*", [["jump*"]]),
        ("JUMP_*", [["jump_high"]]),
        ("*ärger", [["Ärger"]]),
        (unicodedata.normalize("NFD", "ärger"), [["Ärger"]]),
        (("Idle, relaxed", "walk1"), [["Idle, relaxed"], ["Walk1"]]),
        ("", []),
    ],
)
def test_a_name_that_is_there_is_taken_before_it_is_read_as_a_list_or_a_pattern(asked, expected):
    assert choose(asked) == expected


@pytest.mark.parametrize(
    ("asked", "part"), [("Idle,Run", "Run"), ("Walk[1]x", "Walk[1]x"), (("Idle,Walk1",), "Idle,Walk1")]
)
def test_what_fits_nothing_is_said_as_it_was_asked_for(asked, part):
    with pytest.raises(UserError) as error:
        choose(asked)
    assert str(error.value) == f"no {part!r}"


def test_patterns_are_for_flags_that_take_them():
    with pytest.raises(UserError, match="no 'Walk"):
        choose("Walk*", patterns=False)
    assert split_list(" a, ,b") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("歩く", "歩く"),
        ("Бег Быстро", "Бег_Быстро"),
        ("चलना", "चलना"),  # vowel signs are marks, not letters
        (unicodedata.normalize("NFD", "Größe"), "Größe"),
        ("می‌رود", "میرود"),  # a zero-width non-joiner
        ("a b/c\\d:e", "a_b_c_d_e"),
        ("../..", "motion"),
        ("CON", "_CON"),
        ("nul.walk", "_nul.walk"),
        ("half \ud800 pair", "half_pair"),
        ("line\nbreak", "line_break"),
        ("🕺 dance", "🕺_dance"),
    ],
)
def test_files_are_named_in_the_users_script(text, name):
    found = to_file_name(text, default="motion")
    assert found == name
    check_name(found, "here")


@pytest.mark.parametrize("letter", ["a", "漢", "🕺"])
def test_long_names_stay_within_what_file_systems_take(letter):
    name = to_file_name(letter * 300, default="motion")
    assert set(name) == {letter}
    assert len(name) <= 80
    assert len(name.encode()) <= LONGEST_BYTES


def test_names_are_distinct_where_case_is_ignored():
    assert make_distinct(["Шаг", "шаг", "straße", "STRASSE"], taken=("x",)) == ("Шаг", "шаг_2", "straße", "STRASSE_2")


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("歩く", "歩く"),
        ("Armature|БегБыстро_2", "бег быстро 2"),
        ("चलना", "चलना"),
        ("take2Run", "take2 run"),
        ("★\n★", "★ ★"),
        ("\n?", "?"),
    ],
)
def test_captions_keep_every_script(name, caption):
    assert humanize(name) == caption


@pytest.fixture
def scene(tmp_path):
    writer = moving_square("dataset.json")
    for name in ("歩く", "走る", "Бег", "Walk[1]", "Idle, relaxed", "a!", "a?", "half \ud800"):
        writer.clip(name, 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [1, 0, 0]]))
    return load_scene(writer.write(tmp_path / "a.glb"))


def test_motions_of_a_model_have_its_names_whichever_are_chosen(scene):
    names = ("dataset.json_2", "歩く", "走る", "Бег", "Walk_1", "Idle_relaxed", "a", "a_2", "half")
    assert name_motions(scene.clips) == names
    chosen = select_clips(scene, "Idle, relaxed,Walk[1],a[?],歩*")
    assert [clip.name for clip in chosen] == ["歩く", "Walk[1]", "Idle, relaxed", "a?"]
    assert describe_motions(scene, chosen, Options(), Framing(np.zeros(3), 1.0)).names == (
        "歩く",
        "Walk_1",
        "Idle_relaxed",
        "a_2",
    )
    assert scene.clips[-1].name.encode()  # half a surrogate pair is no text


def test_the_message_calls_the_flag_by_its_name(scene):
    with pytest.raises(UserError, match=r"test_clips='Run' matches no clip, expected some of: dataset.json, 歩く"):
        select_clips(scene, "Run", flag="test_clips")
