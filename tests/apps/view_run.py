"""The workdir of a run that was never trained: a cloud of Gaussians, moved at random; for the viewer's tests."""

import json

from bench.view import make_facts, random_state
from dimo_jax.configs.dimo import get_config
from dimo_jax.runs.restore import FACTS_FILE
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import save_config

SIZES = dict(num_motions=3, num_frames=6)
NAMES = ["wave", "jump", "left"]
CAPTIONS = ["it waves the hand", "a jump", "the left, and the right"]  # in the words of `bert_folder`


def make_config():
    config = get_config("smoke")
    config.latent_init.dim = 4
    config.text.fit.update(num_steps=100, num_members=2)
    return config


def write_run(folder):
    """Writes config, facts and a checkpoint; returns the state."""
    config = make_config()
    state = random_state(config, num_gaussians=320, **SIZES)
    state = state.replace(alive=state.alive.at[:20].set(False))
    save_config(config, folder)
    facts = make_facts(**SIZES) | dict(names=NAMES, captions=CAPTIONS)
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(int(state.step), state)
    return state
