"""A step that takes more than a device has is computed in parts, by the compiled program's own analysis."""

import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dimo_jax.configs.static import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.sources import load
from dimo_jax.runs.build import make_trainer
from dimo_jax.runs.checks import check_config
from dimo_jax.training import memory
from dimo_jax.training.memory import GIB, Need, choose_parts
from dimo_jax.training.parallel import Layout, refine

pytestmark = pytest.mark.usefixtures("quick_compile")

SIZES = (4, 3, 2)


def need_in_parts(whole, *, arguments=0):
    """A step whose temporaries shrink as its parts do; remembers the parts that were compiled."""
    compiled = []

    def measure(layout):
        compiled.append(layout.accumulate)
        return Need(arguments, whole // layout.accumulate, 0, 0)

    return measure, compiled


@pytest.mark.parametrize(
    ("limit", "expected", "compiled"),
    [(24, 1, [1]), (23, 2, [1, 2]), (5, 6, [1, 6]), (2, 12, [1, 12]), (1, 24, [1, 24])],
)
def test_a_batch_is_cut_as_little_as_its_step_allows(limit, expected, compiled):
    measure, seen = need_in_parts(24)
    layout, need = choose_parts(measure, Layout(), SIZES, limit, what="a step")
    assert (layout.accumulate, seen) == (expected, compiled)
    assert np.prod(layout.grid) == expected
    assert need.total <= limit


def test_what_lies_beside_a_step_counts():
    measure, _ = need_in_parts(24, arguments=3)
    assert choose_parts(measure, Layout(), SIZES, 24, what="a step", beside=5)[0].accumulate == 2


def test_a_device_that_is_too_small_is_said_with_the_number():
    measure, seen = need_in_parts(24 * GIB, arguments=2 * GIB)
    says = r"config\.batch: a step needs 3 GiB of each device in 24 parts, .* 4 x 3 x 2 .* expected at most 1 GiB"
    with pytest.raises(UserError, match=says):
        choose_parts(measure, Layout(), SIZES, GIB, what="a step")
    assert seen == [1, 24]


def test_a_program_that_its_compiler_refuses_for_its_size_is_cut_too():
    said = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.40G of 15.75G hbm."

    def measure(layout):
        if layout.accumulate < most:
            raise jax.errors.JaxRuntimeError(said)
        return Need(0, 1, 0, 0)

    most = 4
    assert choose_parts(measure, Layout(), SIZES, 2, what="a step")[0].accumulate == 4
    most = 25
    with pytest.raises(UserError, match=r"needs more than there is .*25\.40G of 15\.75G hbm.* in 24 parts"):
        choose_parts(measure, Layout(), SIZES, 2, what="a step")
    said = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        choose_parts(measure, Layout(), SIZES, 2, what="a step")


def test_several_devices_keep_their_shares():
    layout = Layout(num_devices=8, grid=(4, 1, 2))
    assert refine(layout, SIZES, least=2) == Layout(8, 1, 3, (4, 3, 2))
    assert refine(Layout(8, 1, 3, (4, 3, 2)), SIZES, least=4) is None


def test_the_limit_is_the_config_s_or_most_of_what_the_smallest_device_names(monkeypatch):
    config = get_config("smoke")
    assert memory.find_limit(config, Layout()) is None  # a CPU names none
    devices = [SimpleNamespace(memory_stats=lambda n=n: dict(bytes_limit=n * GIB)) for n in (20, 10, 5)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert memory.find_limit(config, Layout(num_devices=2)) == int(0.9 * 10 * GIB)
    config.batch.memory_gib = 1.5
    assert memory.find_limit(config, Layout(num_devices=2)) == 1.5 * GIB


@pytest.mark.parametrize("value", [-1.0, "much"])
def test_a_limit_that_is_none_is_refused(value):
    config = get_config("smoke")
    with config.ignore_type():
        config.batch.memory_gib = value
    with pytest.raises(UserError, match=re.escape("config.batch.memory_gib: found ")):
        check_config(config)


@pytest.fixture(scope="module")
def setting():
    """Two views a batch, so that a step has one part or two; a change of resolution after two of six steps."""
    config = get_config("smoke")
    config.static.update(num_steps=6, densify_every=0, phases=((0, 16), (2, 32)))
    return config, load(config.data)


def take_steps(setting, count, *, accumulate=1, gib=0.0, after=(None, None)):
    """The losses of so many steps, how many parts each had, and the trainer's state and notes at the end."""
    config = setting[0].copy_and_resolve_references()
    config.batch.update(accumulate=accumulate, memory_gib=gib)
    trainer = make_trainer(config, setting[1])
    state = trainer.init() if after[0] is None else trainer.resume(*after)
    losses, parts = [], []
    for _ in range(count):
        state, metrics = trainer.step(state, trainer.next_batch())
        losses.append(float(metrics.loss))
        parts.append(trainer.layout.accumulate)
    end = jax.device_get(state), trainer.notes()
    trainer.close()
    return losses, parts, end


def test_a_small_device_computes_the_same_in_parts(setting, informed, caplog):
    """Memory for one of two parts at 32 px, but not for both: steps at 16 px are whole, the others are cut."""
    whole, _, _ = take_steps(setting, 4, gib=100.0)
    take_steps(setting, 4, gib=100.0, accumulate=2)
    found = [float(re.search(r"needs (\S+) of", line)[1]) for line in caplog.messages if "needs" in line]
    assert len(found) == 4
    assert found[3] < found[1]
    between = (found[1] + found[3]) / 2
    caplog.clear()
    losses, parts, end = take_steps(setting, 4, gib=between)
    assert parts == [1, 1, 2, 2]
    assert losses == pytest.approx(whole, rel=1e-4)
    lines = [line for line in caplog.messages if "needs" in line]
    assert [re.sub(r"\d\.\S+", "X", line) for line in lines] == [
        "a step of static at 16 px: in 1 part needs X of X GiB",
        "a step of static at 32 px: in 2 parts, one after the other, needs X of X GiB",
    ]
    # A run goes on with the cut that it had, to the bit, though there is more memory by now.
    unbroken, _, _ = take_steps(setting, 5, gib=between)
    resumed, parts, _ = take_steps(setting, 1, gib=100.0, after=end)
    assert parts == [2]
    assert resumed == unbroken[4:]


def test_a_step_that_fits_is_compiled_once(setting):
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    counts = []
    for gib in (0.0, 100.0):
        compiled.clear()
        take_steps(setting, 1, gib=gib)
        counts.append(sum("backend_compile" in event for event in compiled))
    jax.monitoring.unregister_event_duration_listener(listener)
    assert counts[0] == counts[1] > 0


def test_a_machine_that_is_too_small_ends_in_one_line(setting):
    with pytest.raises(
        UserError, match=r"config\.batch: a step of static at 16 px needs \S+ GiB .* in 2 parts, the most"
    ):
        take_steps(setting, 1, gib=1e-5)
