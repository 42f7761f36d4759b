import numpy as np
import pytest

from dimo_jax.systems.atop.sentence import KINDS, read_sentence


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("open the cupboard door", "hinge"),
        ("close the lid of the box", "hinge"),
        ("open the top drawer", "pull"),
        ("slide the door open", "slide"),
        ("push the button", "press"),
        ("turn the dial", "spin"),
        ("rotate the steering wheel clockwise", "spin"),
        ("turn the door handle", "crank"),
        ("pull the trigger", "lever"),
        ("flip the switch", "lever"),
        ("open the drawer below the oven door", "pull"),
        ("open the lid of the jar", "spin"),
        ("Open the bottle's cap.", "spin"),
        ("open the bottle drawer", "pull"),
    ],
)
def test_plain_sentences_mean_one_kind(sentence, kind):
    chances = read_sentence(sentence).chances
    assert max(chances, key=lambda each: chances[each]) == kind
    assert sum(chances.values()) == pytest.approx(1, abs=0.01)


def test_directions_and_hinges_are_read():
    assert read_sentence("lift the window upwards").directions == {"up"}
    assert read_sentence("turn it anti-clockwise").directions == {"counterclockwise"}
    assert read_sentence("raise the lid").directions == {"up"}
    assert read_sentence("open the lower drawer").directions == set()
    assert read_sentence("open the oven door").hinge == "bottom"
    assert read_sentence("open the fridge door").hinge == "side"
    assert read_sentence("close the door").closes


@pytest.mark.parametrize(
    ("sentence", "way"),
    [
        ("turn the gas valve", {"counterclockwise"}),
        ("open the tap", {"counterclockwise"}),
        ("turn the knob of the stove", {"counterclockwise"}),
        ("close the tap", set()),
        ("screw the cap on", set()),
        ("turn the tap clockwise", {"clockwise"}),
        ("turn the knob of the oven", set()),
    ],
)
def test_threads_and_taps_open_against_the_clock(sentence, way):
    assert read_sentence(sentence).directions == way


def test_unknown_words_say_nothing_unless_there_is_an_encoder():
    assert len(set(read_sentence("frobnicate it").chances.values())) == 1

    def encode(texts):
        return np.array([[float("knob" in text or "frob" in text), 1.0 - ("frob" in text)] for text in texts])

    chances = read_sentence("frobnicate it", encode).chances
    assert max(chances, key=lambda each: chances[each]) == "spin"
    assert set(chances) == set(KINDS)
