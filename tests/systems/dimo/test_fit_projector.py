"""The projector: deterministic, right on what it saw and on what lies near it, with one sentence a motion and many."""

import jax
import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.systems.dimo.fit_projector import fit_projector
from dimo_jax.systems.dimo.projector import build_projector, find_scaling, project, scale_inputs, unit

MLP = dict(fn="dimo_jax.systems.dimo.projector:mlp", width=32)
LINEAR = dict(fn="dimo_jax.systems.dimo.projector:linear")
FAST = dict(num_steps=200, num_members=2)


def make_case(counts, seed=0, blur=0.3):
    """Embeddings [s,E] around one centre per motion, others like them, and codes [M,D]."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(len(counts), 24))
    seen = [c + blur * generator.normal(size=(n, 24)) for c, n in zip(centers, counts)]
    unseen = centers + blur * generator.normal(size=centers.shape)
    codes = 0.3 * generator.normal(size=(len(counts), 5)) + 2.0
    return seen, unseen, codes.astype(np.float32)


def nearest(found, codes):
    return np.argmin(np.linalg.norm(found[:, None] - codes[None], axis=-1), axis=1)


@pytest.mark.parametrize("spec", [MLP, LINEAR], ids=["mlp", "linear"])
@pytest.mark.parametrize("counts", [(1,) * 8, (5, 1, 3, 4, 2, 6, 5, 5)], ids=["captions", "paraphrases"])
def test_unseen_sentences_find_their_motion(spec, counts):
    seen, unseen, codes = make_case(counts)
    module = build_projector(spec, num_features=codes.shape[1])
    projector = fit_projector(module, seen, codes, **FAST)
    found = np.asarray(project(module, projector, unseen))
    np.testing.assert_array_equal(nearest(found, codes), np.arange(len(codes)))
    # Saying the mean code has the codes' own variance as its error; noise keeps answers to one sentence near that mean.
    assert np.mean((found - codes) ** 2) < 0.5 * np.mean(np.var(codes, axis=0))


def test_the_same_arguments_give_the_same_projector():
    seen, _, codes = make_case((2, 3, 1))
    module = build_projector(MLP, num_features=codes.shape[1])
    first, second, other = (fit_projector(module, seen, codes, seed=seed, num_steps=5) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    kernels = [np.asarray(p.members["params"]["last"]["kernel"]) for p in (first, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
    assert kernels[0].shape[0] == 4  # networks


def test_scaling_ignores_the_length_of_embeddings():
    seen, _, codes = make_case((3, 3, 3))
    flat = np.concatenate(seen)
    scaling = find_scaling(flat, codes)
    scaled = np.asarray(scale_inputs(scaling, flat))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.mean(scaled.var(axis=0)), 1, rtol=1e-4)
    np.testing.assert_allclose(scale_inputs(scaling, 7.0 * flat), scaled, atol=1e-4)
    np.testing.assert_array_equal(unit(np.zeros((1, 4))), np.zeros((1, 4)))


def test_one_motion_and_bad_numbers():
    module = build_projector(LINEAR, num_features=3)
    code = np.array([[1.0, -2.0, 0.5]], np.float32)
    projector = fit_projector(module, [np.ones((1, 6))], code, num_steps=50)
    np.testing.assert_allclose(project(module, projector, np.ones((1, 6))), code, atol=1e-3)
    with pytest.raises(UserError, match=r"config\.text\.fit\.num_steps: found 0, expected at least 1"):
        fit_projector(module, [np.ones((1, 6))], code, num_steps=0)
    with pytest.raises(UserError, match=r"config\.text\.projector\.depth: not an option"):
        build_projector(LINEAR | dict(depth=2), num_features=3)
