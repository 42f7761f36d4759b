"""The step moves what learns, and compiles once; tests/training/test_parallel.py maps it over devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.sampler import Sampler, Share
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo import step as step_module
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.projector import stack_sentences
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.training import parallel
from dimo_jax.training.images import composite_truth
from dimo_jax.training.schedules import due


def make_setup(**changes):
    config = get_config("smoke")
    config.update(changes)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, size=(2, 3, 4, 16, 16, 4), dtype=np.uint8)
    cameras = orbit((0, 120, 240), (0, 0, 0), radius=2.0, fov_deg=33.9, height=16, width=16)
    names = ("a", "b")
    dataset = Dataset(frames, cameras, names, names, ("train",) * 2, ("x", "y", "z"), ("train",) * 3, 12.0, "noise")
    components = build_components(config)
    first = stages.build_stages(config)[0]
    state = stages.begin_first(config, components, num_motions=2, num_frames=4, key=jax.random.key(0))
    sampler = Sampler(dataset, batch_motions=2, batch_views=2, batch_frames=2, held_out_every=0)
    return components, first, state, sampler


def run_steps(num_steps=3):
    components, stage, state, sampler = make_setup()

    chex.clear_trace_counter()

    def build(**layout):
        return chex.assert_max_traces(build_step(components, stage.options, **layout), n=1)  # a second one raises

    step = parallel.parallelize(build, parallel.Layout())
    for i in range(num_steps):
        state, metrics = step(state, sampler.sample(i), {}, jax.random.key(1))
    return state, metrics


def test_step_compiles_once_and_changes_every_parameter_that_learns():
    _, _, before, _ = make_setup()
    state, metrics = run_steps()
    assert int(state.step) == 3
    assert bool(jnp.isfinite(metrics.loss))
    assert set(metrics.terms) == {"rgb", "mask", "arap", "kl"}
    for name in ("means", "log_scales", "logit_opacities", "sh"):
        moved = getattr(state.params.gaussians, name) - getattr(before.params.gaussians, name)
        assert float(jnp.max(jnp.abs(moved))) > 0, name
    assert float(jnp.max(jnp.abs(state.params.latents.mu - before.params.latents.mu))) > 0
    assert float(state.density.images.sum()) > 0


SKINNING = "dimo_jax.skinning.weights"


def read_inputs(monkeypatch, **changes):
    """What the loss terms see in the first step, and the state before it."""
    components, stage, state, sampler = make_setup(**changes)
    seen = []
    monkeypatch.setattr(
        step_module, "evaluate", lambda terms, inputs, step: (seen.append(inputs), (jnp.sum(inputs.rgb), {}))[1]
    )
    step_module.compute_loss(
        state.params,
        jnp.zeros((2, 2, 2, state.alive.shape[0], 2)),
        state,
        jax.tree.map(jnp.asarray, sampler.sample(0)),
        {},
        jax.random.key(1),
        components,
        stage.options,
    )
    return seen[0], state


@pytest.mark.parametrize(("weights", "power"), [("rbf_weights", 2.0), ("rbf_weights_authors", 1.0)])
def test_first_stage_weighs_neighbours_by_the_radius_of_its_points(weights, power, monkeypatch):
    inputs, state = read_inputs(monkeypatch, skinning=dict(fn=f"{SKINNING}:{weights}"), radius_power=power)
    points, radius, alive = np.asarray(state.params.gaussians.means, np.float64), 0.03, np.asarray(state.alive)
    assert 0 < alive.sum() < len(alive)
    for edges, found in zip(np.asarray(inputs.edges), np.asarray(inputs.edge_weights), strict=True):
        assert alive[edges[alive]].all()  # dead slots lie among the others, and are nobody's neighbours
        others = (edges != np.arange(len(edges))[:, None]) & alive[:, None] & alive[edges]
        assert (others.sum(axis=1)[alive] == edges.shape[1] - 1).all()
        squared = np.sum((points[:, None] - points[edges]) ** 2, axis=-1)
        expected = np.where(others, np.exp(-squared / (2 * radius**2)) + (1e-7 if power == 1 else 0), 0.0)
        expected[alive] /= expected[alive].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_step_is_the_same_however_its_batch_is_cut_into_parts():
    """Views weigh differently here, and a part may have none of the reference view; ARAP looks at times of its own."""
    arap = dict(fn="dimo_jax.systems.dimo.terms:arap_rigid", radius=9.0, num_neighbors=4, num_times=3)
    losses = dict(rgb=dict(novel_weight=0.25), arap=arap)  # all are in reach: at its edge rounding would decide
    components, stage, state, sampler = make_setup(stage1=dict(losses=losses))
    sizes = (2, 2, 2)
    moving = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), state.params.decoder)
    state = state.replace(params=state.params.replace(decoder=moving))
    novel = sampler.sample(0).novel.mean(axis=(1, 2))
    assert len(set(novel)) > 1  # its motions have different shares of novel images
    found = {}
    for parts in (1, 2, 8):
        layout = parallel.Layout(accumulate=parts, grid=parallel.choose_grid(sizes, parts))
        batch = parallel.place(Share(sampler, layout.grid, layout.own_parts).sample(0), layout)
        step = jax.jit(build_step(components, stage.options, accumulate=parts))
        _, found[parts] = step(state, batch, {}, jax.random.key(1))
    assert float(found[1].terms["arap"]) > 1e-4
    for parts in (2, 8):
        np.testing.assert_allclose(found[parts].loss, found[1].loss, rtol=1e-4)
        for name, value in found[1].terms.items():
            np.testing.assert_allclose(found[parts].terms[name], value, rtol=1e-4, err_msg=name)


def test_truth_is_composited_over_the_background():
    images = jnp.asarray([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 255, 51]]], jnp.uint8)
    rgb, alpha = composite_truth(images, jnp.asarray([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(rgb[0], [[1, 0, 0], [1, 1, 1], [0.8, 0.8, 1.0]], atol=1e-6)
    np.testing.assert_allclose(alpha[0], [1, 0, 0.2], atol=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, False), (100, True), (150, False), (300, False)])
def test_due(step, expected):
    assert due(step, every=100, start=50, until=200) == expected


def test_the_text_projector_learns_together_with_the_latents():
    config = get_config("smoke")
    config.text.joint = True
    config.stage2.num_per_key_point = 1
    components = build_components(config)
    stage = stages.build_stages(config)[1]
    sizes = dict(num_motions=2, num_frames=4, num_text_features=7)
    first = stages.begin_first(config, components, **sizes, key=jax.random.key(0))
    state = stages.begin_second(first, jax.random.key(1), config=config, components=components, num_frames=4)
    embeddings = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32)
    sentences = stack_sentences(list(embeddings), (0, 1), num_motions=2)
    sampler = make_setup()[3]
    step = jax.jit(build_step(components, stage.options))
    before = state.params
    for i in range(2):
        state, metrics = step(state, sampler.sample(i), {"sentences": sentences}, jax.random.key(1))
    assert float(metrics.terms["text"]) > 0
    for old, new in zip(jax.tree.leaves(before.projector), jax.tree.leaves(state.params.projector)):
        assert float(jnp.max(jnp.abs(new - old))) > 0
    restored = stages.template(config, components, step=config.stage1.num_steps, **sizes)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
