"""Compiled programs are kept between tests, processes and runs: most of the suite's time is XLA's compiler."""

import ctypes
import gc
import os
import sys
from pathlib import Path

import pytest


def pytest_configure(config):
    """Points jax, here and in the processes that tests start, to a folder of compiled programs."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


# Of the 65,530 that Linux grants a process, beyond which XLA's compiler aborts without a word.
MOST_MAPPINGS = 30_000
MOST_MEMORY = 5 * 2**30  # bytes: two processes have grown until the kernel ended one


@pytest.fixture(scope="module", autouse=True)
def few_mappings():
    """Forgets compiled programs where a process has many: each takes some ten mappings of memory and keeps them."""
    yield
    maps, pages = Path("/proc/self/maps"), Path("/proc/self/statm")
    if "jax" not in sys.modules or not maps.exists():
        return
    memory = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if maps.read_bytes().count(b"\n") > MOST_MAPPINGS or memory > MOST_MEMORY:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # of glibc, which else keeps what is free


@pytest.fixture(scope="module")
def quick_compile():
    """Leaves out LLVM's expensive passes, for modules that compile much and compute little: half of their time."""
    import jax  # after pytest_configure has set its environment

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def clip_shards(tmp_path_factory):
    """A folder of shards: four clips of the puppet, one held out, at 32 pixels."""
    from dimo_jax.data.formats.rigged.shard_plan import ShardOptions
    from dimo_jax.data.formats.rigged.shards import write_shards
    from dimo_jax.data.puppet.rig import write_puppet_rig

    place = tmp_path_factory.mktemp("clip_shards")
    rig = write_puppet_rig(place / "puppet.glb", num_motions=7)
    options = dict(clips="walk,squat,wave_left,bow_deeply", size=32, num_frames=4, samples=1, test_share=0.25)
    write_shards(str(rig), place / "shards", ShardOptions(variants=2, **options))
    return place / "shards"


@pytest.fixture
def informed():
    """Logs as launch.py does."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield
    logging.set_verbosity(before)


class Watcher:
    """Stands for checkpoints and metrics files in `fit`: keeps no states, remembers the scalars."""

    def __init__(self):
        self.rows = []

    def save(self, step, state, *, notes):
        self.last = step

    def wait(self):
        pass

    def restore_latest(self, template_at):
        return None

    def scalars(self, step, stage, values):
        self.rows.append((stage, dict(values)))

    def images(self, step, stage, state, preview):
        pass

    def resumed(self, step):
        pass


@pytest.fixture
def watcher():
    """What `fit` reports to."""
    return Watcher()
