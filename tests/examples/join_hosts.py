"""One process of a run that asks its cluster who takes part; stands for launch.py in test_cluster.py.

Prints its number, that of all processes, and the limit of memory that they agree on where the second has less.
"""

import sys

import jax

from dimo_jax.configs.static import get_config
from dimo_jax.runtime import hosts
from dimo_jax.training import memory
from dimo_jax.training.parallel import Layout

hosts.join(next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--coordinator=")))
index, count = jax.process_index(), jax.process_count()
memory._limit_here = lambda layout: (10 - 2 * index) * memory.GIB  # as devices of different sizes name it
limit = memory.find_limit(get_config("smoke"), Layout(num_processes=count, grid=(1, count, 1)))
print(f"process {index} of {count}, {limit / memory.GIB:g} GiB", flush=True)
