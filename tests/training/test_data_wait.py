"""What counts as waiting for data: time without a batch while no step runs."""

import time

import pytest

from dimo_jax.training.data_wait import MAX_AHEAD, DataWait


class Output:
    """A step's output that is there or not."""

    def __init__(self, ready):
        self.ready, self.waited_for = ready, False

    def is_ready(self):
        return self.ready

    def block_until_ready(self):
        self.waited_for = True


def slow_batches():
    while True:
        time.sleep(0.05)
        yield "batch"


@pytest.mark.parametrize(("ready", "share"), [(True, 1.0), (False, 0.0)])
def test_only_an_idle_device_waits(ready, share):
    wait, batches = DataWait(), slow_batches()
    assert wait.next(lambda: next(batches)) == "batch"
    wait.take_share()  # the first batch comes before the first step
    for _ in range(3):
        wait.dispatched(Output(ready))
        wait.next(lambda: next(batches))
    assert wait.take_share() == pytest.approx(share, abs=0.3)
    assert wait.take_share() == 0
    assert ("0.0%" in wait.describe()) == (share == 0)


def test_the_host_runs_a_few_steps_ahead():
    wait, batches = DataWait(), iter(range(100))
    outputs = [Output(False) for _ in range(10)]
    for output in outputs:
        wait.next(lambda: next(batches))
        wait.dispatched(output)
    assert [output.waited_for for output in outputs] == [True] * (10 - MAX_AHEAD) + [False] * MAX_AHEAD
