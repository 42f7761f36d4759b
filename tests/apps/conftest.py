"""What tests of apps share."""

import pytest


@pytest.fixture
def server():
    """A `viser.ViserServer` on a free port."""
    viser = pytest.importorskip("viser", reason="viser is not installed (pip install 'dimo_jax[view]')")
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield server
    server.stop()
