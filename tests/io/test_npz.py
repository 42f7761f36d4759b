"""Archives of arrays that are damaged, or say other sizes than they have: one line, and no memory taken."""

import io
import zipfile

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.io.npz import read_npz


def write_entry(path, *, shape="(2, 3)", descr="'<f4'", size=24, kind=zipfile.ZIP_STORED):
    """An npz whose one array has a header of our own."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    text += b" " * (53 - len(text) % 64 + 64) + b"\n"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * size)


def test_arrays_come_back(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "läuft": np.array(["x", "跳"]),
        "none": np.zeros((0, 3)),
        "one": np.int8(3),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz", "arrays")
        assert found.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype
    write_entry(tmp_path / "own.npz")
    np.testing.assert_array_equal(read_npz(tmp_path / "own.npz", "arrays")["a"], np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (dict(shape="(1099511627776, 3)"), r"announces float32 \[1099511627776, 3\], 24 bytes follow"),
        (dict(shape="(-2, -3)"), "announces float32"),
        (dict(shape="(2, 2)"), "announces float32"),
        (dict(descr="'|O'"), "announces object"),
        (dict(descr="[('a', '<f4')]"), "announces "),
        (dict(descr="'x'"), "cannot be read as .npz"),
        (dict(shape="'x'"), "cannot be read as .npz"),
        (dict(shape="((((" * 40), "cannot be read as .npz"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, entry, says):
    write_entry(tmp_path / "a.npz", **entry)
    with pytest.raises(UserError, match=says) as caught:
        read_npz(tmp_path / "a.npz", "codes", flag="code")
    assert str(caught.value).startswith(f"--code={tmp_path}/a.npz: ")
    assert str(caught.value).endswith(", expected codes")
    assert "\n" not in str(caught.value)


def test_an_archive_that_grows_is_refused_before_it_does(tmp_path):
    write_entry(tmp_path / "a.npz", shape="(4000000,)", size=16_000_000, kind=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.npz").stat().st_size < 50_000
    with pytest.raises(UserError, match=r"a\.npz: 16000128 bytes when decompressed, expected 1000000 at most"):
        read_npz(tmp_path / "a.npz", "codes", max_bytes=10**6)


def test_damage_anywhere_is_one_line(tmp_path):
    sound = io.BytesIO()
    np.savez_compressed(sound, a=np.random.default_rng(0).normal(size=20), b=np.arange(5))
    data, path, said = sound.getvalue(), tmp_path / "a.npz", []
    for place in range(0, len(data), 3):
        for value in (0, 0xFF, data[place] ^ 9):
            path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            try:
                read_npz(path, "codes")
            except UserError as error:
                said.append(str(error))
    assert len(said) > len(data) / 3
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in said)
    with pytest.raises(UserError, match=r"gone\.npz: no such file, expected codes"):
        read_npz(tmp_path / "gone.npz", "codes")
