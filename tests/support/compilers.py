"""The compilers for GPUs, which `python -m bench.compile` installs and `.ci/run` before the tests: no test does."""

import pytest

from bench.compile import environment


def find_compilers():
    """The Python of their environment; skips where it was not made."""
    python = environment.find_made("gpu")
    if python is None:
        pytest.skip("no compiler for GPUs was installed (python -m bench.compile --target=h100 --preset=smoke does)")
    return python
