"""The programs of AnimaX and ATOP at the published sizes: which there are, and that the compiler takes them."""

import jax
import numpy as np
import pytest
from support.compilers import find_compilers

from bench.compile import generators, report, supervise
from bench.compile.targets import find_target
from dimo_jax.core.errors import UserError

LISTS = {"animax": generators.list_animax, "atop": generators.list_atop}
NAMES = {
    "animax": ["joint", "multi_view", "draw", "encode", "decode"],
    "atop": ["motion", *["draw", "distill", "encode", "decode"]],
}


def count_bytes(tree):
    return sum(
        int(np.prod(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if x.dtype != jax.eval_shape(lambda: jax.random.key(0)).dtype
    )


@pytest.mark.parametrize("system", LISTS)
def test_programs_are_listed_with_the_weights_of_the_published_sizes(system):
    preset = supervise.SYSTEMS[system][1]
    programs = LISTS[system](preset=preset, changes={})
    assert [program.name for program in programs] == NAMES[system]
    step = programs[0]
    assert step.is_step
    assert step.cut.layout.accumulate == 1
    weights = count_bytes(step.arguments[0].params)
    billions = {"animax": 1.4, "atop": 1.0}[system]  # Wan2.1-T2V-1.3B, ImageDream; what is added is float32
    assert 2e9 * billions < weights < 3e9 * billions


def test_samples_are_shared_by_devices_and_cut_into_parts():
    step, *others = generators.list_atop(preset="imagedream", changes={"batch.motions": 8}, num_devices=8)
    assert not others
    assert step.arguments[1].seeds.shape == (8, 1)
    assert step.arguments[0].step.shape == (8,)
    step = generators.list_atop(preset="imagedream", changes={"batch.motions": 8, "batch.accumulate": 4})[0]
    assert step.arguments[1].seeds.shape == (4, 2)
    step = generators.list_atop(preset="imagedream", changes={"batch.memory_gib": 7})[0]
    assert step.cut.limit_gib == 7


@pytest.mark.parametrize(
    ("how", "match"),
    [
        (dict(preset="demo", changes={}), "--preset=demo: expected imagedream"),
        (dict(preset="imagedream", changes={}, phase=128), "--phase=128"),
        (
            dict(preset="imagedream", changes={"batch.memory": 7}),
            "--set=batch.memory=7: preset imagedream has no such key",
        ),
        (dict(preset="imagedream", changes={"seed.a": 7}), "--set=seed.a=7: preset imagedream has no such key"),
        (dict(preset="imagedream", changes={"batch.motions": "all"}), "--set=batch.motions=all"),
        (dict(preset="imagedream", changes={}, num_devices=8), "cannot share a batch of 2 x 1 x 1"),
    ],
)
def test_what_cannot_be_compiled_is_said(how, match):
    with pytest.raises(UserError, match=match):
        generators.list_atop(**how)


def test_an_autoencoder_compiles_for_a_gpu_that_is_not_there():
    target = find_target("a100")
    arguments = dict(preset="imagedream", changes={}, num_devices=1, phase=0, pairs=0)
    job = supervise.Job(target, 1, ("decode",), arguments, source=supervise.SYSTEMS["atop"][0])
    found = supervise.run(job, find_compilers(), lambda name, found: None)["decode"]
    report.complete(found, target)
    assert 2e13 < found["flops"] < 3e13  # 40 pictures of 256 pixels
    assert found["needed_gib"] < 10
