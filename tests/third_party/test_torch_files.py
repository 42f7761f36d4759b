"""Files of torch.save read without torch: every kind of tensor in both formats, and everything that is refused."""

import collections
import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.third_party.torch_files import load_tensors

FOLDER = Path(__file__).parent / "authors_model"


@pytest.mark.parametrize("name", ["trees.pth", "legacy.pth"])
def test_both_formats_give_the_tensors_that_torch_saved(name):
    tree = load_tensors(FOLDER / name)
    assert type(tree) is collections.OrderedDict
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(tree["whole"], whole)
    np.testing.assert_array_equal(tree["column"], whole[:, 2])
    np.testing.assert_array_equal(tree["turned"], whole[1:3].T)
    assert tree["scalar"].shape == ()
    assert tree["scalar"] == 2.5
    assert tree["empty"].shape == (0, 3)
    np.testing.assert_array_equal(tree["parameter"], [1, -2])
    kinds = ["float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    assert [str(array.dtype) for array in tree["types"]] == kinds
    for array in tree["types"]:
        np.testing.assert_array_equal(array, np.array([1, 0, 3]).astype(array.dtype))
    assert tree["others"] == (1, 2.5, None, True, "text", {"a": [(4, 6)]})


class Malicious:
    """Creates a folder when an ordinary unpickler loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_zip(path, data, *, storages=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", data)
        for key, value in (storages or {}).items():
            archive.writestr(f"x/data/{key}", value)


class Pickler(pickle.Pickler):
    """Writes what torch writes, without torch: `Tensor` as a rebuilt view of a storage."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None


class Storage:
    def __init__(self, key="0", count=4, kind="FloatStorage", extra=()):
        self.pid = ("storage", Global("torch", kind), key, "cpu", count, *extra)


class Global:
    """Pickled as a reference to a name that need not exist here."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __reduce__(self):
        return f"{self.module} {self.name}"


def pickle_tensor(storage, offset=0, size=(4,), stride=(1,), function=("torch._utils", "_rebuild_tensor_v2")):
    """A protocol 2 pickle of one tensor, put together by hand."""
    parts = [b"\x80\x02", f"c{function[0]}\n{function[1]}\n".encode(), b"("]
    pid = storage.pid
    parts += [b"(", pickle.dumps("storage", 2)[2:-1], f"ctorch\n{pid[1].name}\n".encode()]
    parts += [pickle.dumps(value, 2)[2:-1] for value in pid[2:]] + [b"t", b"Q"]
    parts += [pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride, False)]
    return b"".join(parts) + pickle.dumps(collections.OrderedDict(), 2)[2:-1] + b"tR."


GOOD = np.arange(4, dtype="<f4").tobytes()


def test_a_tensor_put_together_by_hand_is_read(tmp_path):
    write_zip(tmp_path / "a.pth", pickle_tensor(Storage()), storages={"0": GOOD})
    np.testing.assert_array_equal(load_tensors(tmp_path / "a.pth"), [0, 1, 2, 3])


BAD_TENSORS = {
    "outside": (pickle_tensor(Storage(), offset=1), "leaves its storage"),
    "strides": (pickle_tensor(Storage(), size=(2, 2), stride=(9, 1)), "leaves its storage"),
    "repeated": (pickle_tensor(Storage(), size=(10**6, 10**6), stride=(0, 0)), "leaves its storage"),
    "negative": (pickle_tensor(Storage(), size=(-1,)), "no tuple of sizes"),
    "negative offset": (pickle_tensor(Storage(), offset=-2), "without a storage, an offset"),
    "no storage": (pickle_tensor(Storage(key="7")), "no item named"),
    "short storage": (pickle_tensor(Storage(count=400)), "16 bytes, 1600 are announced"),
    "path as key": (pickle_tensor(Storage(key="../../etc/passwd")), "no item named"),
    "other storage": (pickle_tensor(Storage(kind="QInt8Storage")), r"asks for torch\.QInt8Storage"),
    "part of storage": (pickle_tensor(Storage(extra=(("0", 0, 2),))), "part of another"),
    "other function": (pickle_tensor(Storage(), function=("torch", "load")), r"asks for torch\.load"),
    "numpy": (pickle.dumps(np.zeros(3)), "asks for numpy"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_reach_outside_are_refused(tmp_path, case):
    data, message = BAD_TENSORS[case]
    write_zip(tmp_path / "a.pth", data, storages={"0": GOOD})
    with pytest.raises(UserError, match=message) as error:
        load_tensors(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_is_refused_and_not_run(tmp_path, is_zip):
    target, path = tmp_path / "made", tmp_path / "a.pth"
    data = pickle.dumps({"weights": Malicious(target)}, protocol=2)
    if is_zip:
        write_zip(path, data)
    else:
        parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join(parts) + data)
    with pytest.raises(UserError, match=r"a\.pth: refused \(it asks for .*mkdir\)"):
        load_tensors(path)
    path.write_bytes(data)  # neither format: the first pickle of the older one
    with pytest.raises(UserError, match="refused"):
        load_tensors(path)
    assert not target.exists()
    pickle.load(io.BytesIO(data))  # the attack is a real one
    assert target.exists()


def test_a_file_cannot_change_how_the_next_one_is_read(tmp_path):
    write_zip(tmp_path / "a.pth", b"\x80\x02ctorch\nFloatStorage\n}X\x05\0\0\0dtypeX\x03\0\0\0badsb.")
    with pytest.raises(UserError, match=r"a\.pth: refused"):
        load_tensors(tmp_path / "a.pth")
    test_both_formats_give_the_tensors_that_torch_saved("trees.pth")


@pytest.mark.parametrize("name", ["trees.pth", "legacy.pth"])
def test_files_cut_off_anywhere_are_refused(tmp_path, name):
    data = (FOLDER / name).read_bytes()
    for size in range(0, len(data), max(1, len(data) // 40)):
        (tmp_path / "cut.pth").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut\.pth: refused"):
            load_tensors(tmp_path / "cut.pth")


def test_a_pickle_that_numbers_more_than_it_holds_takes_no_memory(tmp_path):
    # An unpickler makes room for all numbers below: 2^30 names are 16 GiB for a file of twenty bytes.
    data = b"\x80\x02}r\x00\x00\x00\x40."
    write_zip(tmp_path / "a.pth", data)
    (tmp_path / "b.pth").write_bytes(data)
    for name in ("a.pth", "b.pth"):
        with pytest.raises(UserError, match=rf"{name}: refused \(it numbers more values than it has\)"):
            load_tensors(tmp_path / name)
    (tmp_path / "c.pth").write_bytes(b"\x80\x04\x8e" + b"\xff" * 6 + b"\0\0" + b"x" * 20)
    with pytest.raises(UserError, match=r"c\.pth: refused \(expected \d+ bytes"):
        load_tensors(tmp_path / "c.pth")


def test_an_archive_that_would_grow_is_refused(tmp_path):
    write_zip(tmp_path / "a.pth", b"\0" * 10**6, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed archive"):
        load_tensors(tmp_path / "a.pth")
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "absent.pth")
    shutil.copy(FOLDER / "expected.npz", tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"compressed archive|0 data\.pkl"):
        load_tensors(tmp_path / "b.pth")
