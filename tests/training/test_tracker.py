"""Metrics are fetched now and then, the first bad step is found, and a checkpoint's notes carry the rest."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.training.system import Metrics
from dimo_jax.training.tracker import WINDOW, LossNotFinite, Tracker


def make_metrics(*, loss=1.0, rgb=0.5, psnr=20.0, overflow=0):
    terms = {"rgb": jnp.float32(rgb), "kl": jnp.float32(1)}
    preview = jnp.zeros((2, 4, 4, 3))
    return Metrics(jnp.float32(loss), terms, jnp.float32(psnr), jnp.int32(overflow), preview)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_bad_step_and_its_terms_are_named(bad):
    tracker = Tracker()
    tracker.add(1, make_metrics())
    tracker.add(2, make_metrics(loss=bad, rgb=bad))
    tracker.add(3, make_metrics(loss=np.nan, rgb=np.nan))
    with pytest.raises(LossNotFinite, match=rf"step 2: the loss is {bad} \(terms: rgb\)") as caught:
        tracker.look()
    assert (caught.value.step, caught.value.terms, caught.value.exit_code) == (2, ("rgb",), 3)


def test_overflow_is_counted_between_reports():
    tracker = Tracker()
    for step, overflow in enumerate((0, 3, 4), start=1):
        tracker.add(step, make_metrics(overflow=overflow))
    tracker.look()
    tracker.look()
    assert (tracker.take_lost(), tracker.take_lost()) == (7, 0)


def test_score_is_the_mean_psnr_of_a_phase_and_survives_a_resume():
    def run(tracker, first, last):
        for step in range(first, last):
            tracker.add(step, make_metrics(psnr=step % 7, overflow=1))
        tracker.look()

    unbroken = Tracker()
    unbroken.begin_phase(2, 64)
    run(unbroken, 0, WINDOW - 1)
    assert "score" not in unbroken.notes()
    run(unbroken, WINDOW - 1, WINDOW + 30)

    broken = Tracker()
    broken.begin_phase(2, 64)
    run(broken, 0, 40)
    notes = json.loads(json.dumps(broken.notes()))
    broken = Tracker()
    broken.load(notes)
    broken.begin_phase(2, 64)
    run(broken, 40, WINDOW + 30)

    assert broken.notes() == unbroken.notes()
    assert unbroken.notes()["score"] == [2, 64, np.mean([step % 7 for step in range(30, WINDOW + 30)])]
    unbroken.begin_phase(2, 128)
    assert "score" not in unbroken.notes()
