"""One process of a small training on one or several hosts; run by test_hosts.py.

    check_hosts.py WORKDIR NUM_DEVICES ACCUMULATE [COORDINATOR NUM_PROCESSES PROCESS_ID]

Prints "step N" after every step and at last one JSON object: losses, and a hash of every parameter.
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from check_devices import Memory, make_config, make_dataset

from dimo_jax.runs.build import build_system
from dimo_jax.runtime import hosts
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.loop import fit


class Printing(Memory):
    """Says how far training is."""

    def scalars(self, step, stage, values):
        super().scalars(step, stage, values)
        print("step", step, flush=True)

    def resumed(self, step):
        print("resumed", step, flush=True)


def hash_of(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def main(workdir, num_devices, accumulate, coordinator=None, num_processes=None, process_id=None):
    if coordinator is not None:
        hosts.join(coordinator, num_processes=int(num_processes), process_id=int(process_id))
    config = make_config(int(num_devices), int(accumulate))
    config.stage3.num_steps = 0  # its means differ in last bits from one process's (docs/multihost.md)
    watcher = Printing()
    with Checkpoints(Path(workdir), keep=10) as checkpoints:
        dataset = make_dataset()
        trained = fit(config, build_system(config, dataset), dataset, checkpoints, watcher)
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(trained.state))
    hashes = {jax.tree_util.keystr(path): hash_of(leaf) for path, leaf in leaves}
    print(json.dumps(dict(losses=watcher.losses, hashes=hashes)))


if __name__ == "__main__":
    with hosts.ending_together():
        main(*sys.argv[1:])
