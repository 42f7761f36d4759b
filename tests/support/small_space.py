"""A motion space that was never trained, as `restore` gives one: a cloud of Gaussians, moved at random."""

from bench.view import make_facts, random_state
from dimo_jax.configs.dimo import get_config
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.player import Player

SIZES = dict(num_motions=3, num_frames=6)
BASIS = dict(
    fn="dimo_jax.systems.dimo.basis_decoder:basis_decoder", rank=16, width=32, trunk_depth=2, branch_depth=2,
    scale=0.05, num_position_bands=4, num_time_bands=4, branch_activation="silu",
    dtype="float32",
)  # fmt: skip


def make_config(**changes):
    """The smallest preset with a basis decoder; `changes` by dotted keys, written with __ for a dot."""
    config = get_config("smoke")
    config.decoder = BASIS
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for name in parents:
            node = node[name]
        node[last] = value
    return config


def make_space(config, *, num_gaussians=160, num_dead=10, **facts):
    """A `Restored` of a config; `facts` replace some of those of `make_facts`."""
    state = random_state(config, num_gaussians=num_gaussians, **SIZES)
    state = state.replace(alive=state.alive.at[:num_dead].set(False))
    player = Player(config, build_components(config), state, num_frames=SIZES["num_frames"])
    return Restored(player, make_facts(**SIZES) | facts, int(state.step), config)
