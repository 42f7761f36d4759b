import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Gaussians
from dimo_jax.io.ply import Written, read_gaussians, write_gaussians


def make_gaussians(num: int, *, degree: int, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)

    def normal(*shape: int):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    return Gaussians(
        means=normal(num, 3),
        log_scales=normal(num, 3) - 4,
        quats=normal(num, 4),
        logit_opacities=normal(num),
        sh=normal(num, (degree + 1) ** 2, 3),
    )


def parse_independently(path) -> dict[str, np.ndarray]:
    """Reads by splitting the file at the header's end: shares nothing with the reader under test."""
    header, data = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    num = int(next(line for line in lines if line.startswith("element vertex ")).split()[-1])
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    table = np.frombuffer(data, "<f4").reshape(num, len(names))
    return {name: table[:, i] for i, name in enumerate(names)}


FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_round_trip_is_exact(tmp_path, degree):
    gaussians = make_gaussians(17, degree=degree)
    assert write_gaussians(gaussians, tmp_path / "a.ply") == Written(17, 0, 0)
    back = read_gaussians(tmp_path / "a.ply")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(back, name), getattr(gaussians, name), err_msg=name)


def test_layout_is_that_of_3dgs(tmp_path):
    gaussians = make_gaussians(5, degree=1)
    write_gaussians(gaussians, tmp_path / "a.ply")
    columns = parse_independently(tmp_path / "a.ply")
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{i}" for i in range(9)]
    expected += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(columns) == expected
    sh = np.asarray(gaussians.sh)
    # Channel-major: three coefficients of red, then green, then blue.
    np.testing.assert_array_equal(columns["f_rest_1"], sh[:, 2, 0])
    np.testing.assert_array_equal(columns["f_rest_3"], sh[:, 1, 1])
    np.testing.assert_array_equal(columns["f_rest_8"], sh[:, 3, 2])
    np.testing.assert_array_equal(columns["f_dc_2"], sh[:, 0, 2])
    np.testing.assert_array_equal(columns["opacity"], gaussians.logit_opacities)
    np.testing.assert_array_equal(columns["scale_1"], np.asarray(gaussians.log_scales)[:, 1])
    np.testing.assert_array_equal(columns["rot_0"], np.asarray(gaussians.quats)[:, 0])
    assert not columns["nx"].any()


def test_dead_and_invalid_are_left_out_and_counted(tmp_path):
    gaussians = make_gaussians(6, degree=0)
    gaussians = gaussians.replace(
        logit_opacities=gaussians.logit_opacities.at[jnp.array([0, 3])].set(-jnp.inf),
        means=gaussians.means.at[1, 2].set(jnp.nan).at[0, 0].set(jnp.nan),
        log_scales=gaussians.log_scales.at[4, 0].set(-jnp.inf).at[5, 0].set(jnp.inf),
    )
    assert write_gaussians(gaussians, tmp_path / "a.ply") == Written(num_written=2, num_dead=2, num_invalid=2)
    np.testing.assert_array_equal(read_gaussians(tmp_path / "a.ply").means, gaussians.means[jnp.array([2, 4])])


def test_no_gaussians_at_all(tmp_path):
    assert write_gaussians(make_gaussians(0, degree=2), tmp_path / "a.ply") == Written(0, 0, 0)
    assert read_gaussians(tmp_path / "a.ply").sh.shape == (0, 9, 3)


def test_reads_other_orders_types_and_elements(tmp_path):
    names = ["rot_0", "rot_1", "rot_2", "rot_3", "opacity", "scale_0", "scale_1", "scale_2"]
    names += ["f_dc_0", "f_dc_1", "f_dc_2", "z", "y", "x", "label"]
    header = "ply\nformat binary_little_endian 1.0\ncomment by hand\nelement vertex 2\n"
    header += "".join(f"property {'uchar' if n == 'label' else 'double'} {n}\n" for n in names)
    header += "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
    rows = np.zeros(2, np.dtype([(n, "u1" if n == "label" else "<f8") for n in names]))
    rows["x"], rows["z"], rows["opacity"] = [1, 2], [3, 4], [5, 6]
    (tmp_path / "a.ply").write_bytes(header.encode() + rows.tobytes())
    back = read_gaussians(tmp_path / "a.ply")
    np.testing.assert_array_equal(back.means, [[1, 0, 3], [2, 0, 4]])
    np.testing.assert_array_equal(back.logit_opacities, [5, 6])
    assert back.means.dtype == jnp.float32


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda b: b[:-1], "cut short"),
        (lambda b: b"not a ply at all", "no PLY header"),
        (lambda b: b"", "no PLY header"),
        (lambda b: b.replace(b"binary_little_endian", b"ascii"), "'ascii 1.0'"),
        (lambda b: b.replace(b"float opacity", b"float opaqueness"), "no property 'opacity'"),
        (lambda b: b.replace(b"element vertex 4", b"element vertex 999999999999"), "cut short"),
        (lambda b: b.replace(b"element vertex", b"element face"), "no first element 'vertex'"),
        (lambda b: b.replace(b"float f_rest_0", b"float other"), "no property 'f_rest_0'"),
        (lambda b: b.replace(b"float f_rest_8", b"float other"), "8 properties f_rest"),
        (lambda b: b.replace(b"float nx", b"float x"), "a property twice"),
        (lambda b: b.replace(b"property float nx", b"property list uchar int nx"), "scalar properties"),
        (lambda b: b.replace(b"float nx", b"x" * 5000), r"found 'property x{51}', expected scalar"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, damage, found):
    path = tmp_path / "a.ply"
    write_gaussians(make_gaussians(4, degree=1), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=found) as error:
        read_gaussians(path)
    assert "a.ply" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.ply"):
        read_gaussians(tmp_path / "gone.ply")


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    (tmp_path / "a.ply").write_bytes(b"precious")
    bad = make_gaussians(3, degree=0).replace(sh=jnp.zeros((3, 2, 3)))
    with pytest.raises(ValueError, match="square number"):
        write_gaussians(bad, tmp_path / "a.ply")
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert (tmp_path / "a.ply").read_bytes() == b"precious"


@pytest.mark.parametrize("degree", [0, 3])
def test_gsply_reads_the_same_values(tmp_path, degree):
    gsply = pytest.importorskip("gsply", reason="gsply, an independent PLY reader, is not installed")
    gaussians = make_gaussians(9, degree=degree)
    write_gaussians(gaussians, tmp_path / "a.ply")
    data = gsply.plyread(str(tmp_path / "a.ply"))
    np.testing.assert_array_equal(data.means, gaussians.means)
    np.testing.assert_array_equal(data.scales, gaussians.log_scales)
    np.testing.assert_array_equal(data.quats, gaussians.quats)
    np.testing.assert_array_equal(data.opacities, gaussians.logit_opacities)
    np.testing.assert_array_equal(data.sh0, gaussians.sh[:, 0])
    if degree:
        np.testing.assert_array_equal(data.shN, gaussians.sh[:, 1:])


def test_gaussforge_reads_the_same_values(tmp_path):
    gaussforge = pytest.importorskip("gaussforge", reason="gaussforge, an independent reader, is not installed")
    gaussians = make_gaussians(9, degree=1)
    write_gaussians(gaussians, tmp_path / "a.ply")
    data = gaussforge.GaussForge().read((tmp_path / "a.ply").read_bytes(), "ply")["data"]
    expected = {
        "positions": gaussians.means,
        "scales": gaussians.log_scales,
        "rotations": gaussians.quats,
        "alphas": gaussians.logit_opacities,
        "colors": gaussians.sh[:, 0],
        "sh": gaussians.sh[:, 1:],
    }
    assert data["numPoints"] == 9
    for name, values in expected.items():
        np.testing.assert_array_equal(np.frombuffer(data[name], "<f4"), np.ravel(values), err_msg=name)
