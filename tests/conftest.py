"""Compiled programs are kept between tests, processes and runs: most of the suite's time is XLA's compiler."""

import os


def pytest_configure(config):
    """Points jax, here and in the processes that tests start, to a folder of compiled programs."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
