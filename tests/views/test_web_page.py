"""The page that plays a motion space, as a file: what is in it, what it refuses, and that text in it stays text."""

import dataclasses
import functools
import html.parser
import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from support.small_space import make_config, make_space

from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.runs.choice import SPREAD
from dimo_jax.runs.codes import draw_codes
from dimo_jax.skinning.weights import rbf_weights
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.views.outcome import write_player
from dimo_jax.views.web import page
from dimo_jax.views.web.arrays import ALPHABET, collect_arrays, halve, pack, shorten
from dimo_jax.views.web.half import measure_half
from dimo_jax.views.web.known import describe_model

pytestmark = pytest.mark.usefixtures("quick_compile")
HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & \"'\u2028\udcff"


@pytest.fixture(scope="module")
def space():
    return make_space(make_config())


class Reader(html.parser.HTMLParser):
    """Names of all tags, and the text of scripts by their id."""

    def __init__(self):
        super().__init__()
        self.tags, self.scripts, self._open = [], {}, None

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open = dict(attrs).get("id", "code") if tag == "script" else None

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    return reader


def unpack(told, text):
    """The inverse of `pack`."""
    digits = np.array([ALPHABET.index(letter) for letter in text], np.uint64).reshape(-1, 5)
    data = (digits @ 85 ** np.arange(4, -1, -1).astype(np.uint64)).astype("<u4").tobytes()
    found = {}
    for each in told:
        count = int(np.prod(each["shape"]))
        if each["type"] == "float28":
            values = unpack_short(data[each["offset"] :], count, each["exponent"])
        else:
            values = np.frombuffer(data, each["type"], count, each["offset"])
        found[each["name"]] = values.reshape(each["shape"])
    return found


def unpack_short(data, count, exponent):
    """Numbers of 28 bits, by their definition."""
    bits = "".join(f"{byte:08b}" for byte in reversed(data[: 7 * -(-count // 2)]))
    codes = [int(bits[end - 28 : end], 2) for end in range(len(bits), 0, -28)][:count]
    values = np.zeros(count)
    for i, code in enumerate(codes):
        sign, place, fraction = code >> 27, (code >> 23) & 15, code & (2**23 - 1)
        values[i] = (-1) ** sign * (fraction + 2**23 * (place > 0)) * 2.0 ** (max(place, 1) - 1 + exponent)
    return values.astype(np.float32)


@pytest.mark.parametrize("scale", [1e-30, 0.003, 1.0, 7e20])
def test_numbers_of_28_bits_are_those_of_32_or_very_near(scale):
    rng = np.random.default_rng(0)
    edges = [1, 1 - 2.0**-24, 2.0**-14, -(2.0**-14) * (1 - 2.0**-24), 2.0**-37, 0, -0.0]
    array = (scale * np.concatenate([rng.uniform(-1, 1, 501), np.exp(-rng.uniform(0, 30, 300)), edges])).astype("f4")
    data, exponent = shorten(array)
    assert len(data) == 7 * 404
    found, most = unpack_short(data, len(array), exponent), np.abs(array).max()
    large = np.abs(array) >= most * 2.0**-14
    assert 400 < large.sum() < 800
    np.testing.assert_array_equal(found[large], array[large])
    np.testing.assert_allclose(found, array, atol=most * 2.0**-38, rtol=0)
    data, exponent = shorten(np.zeros(3, np.float32))
    np.testing.assert_array_equal(unpack_short(data, 3, exponent), np.zeros(3))


def test_writing_twice_gives_equal_bytes(space, tmp_path):
    one, other = (page.write_page(space, tmp_path / name) for name in ("one.html", "other.html"))
    assert one.read_bytes() == other.read_bytes()


def test_the_arrays_are_those_of_the_model(space, tmp_path):
    scripts = read(page.write_page(space, tmp_path / "page.html")).scripts
    found = unpack(json.loads(scripts["header"])["arrays"], scripts["arrays"])
    for name, array in collect_arrays(space).items():
        near = 2.0**-38 * np.abs(array).max() if array.dtype == np.float32 else 0
        np.testing.assert_allclose(found[name], array, atol=near, rtol=0, err_msg=name)
    params = space.player.params
    np.testing.assert_allclose(found["means"], params.gaussians.means[10:], atol=1e-11)  # ten are dead
    np.testing.assert_array_equal(found["codes"], params.latents.mu)
    draw = draw_codes(space, seed=7, num_samples=4)[0]  # as --app=sample draws, whose first does not depend on how many
    mean, near = found["codes"].mean(axis=0), found["codes"][found["chosen"][7]]
    mixed = mean + np.sqrt(1 - SPREAD**2) * (near - mean) + SPREAD * found["noise"][7]
    np.testing.assert_allclose(mixed, draw, atol=1e-6)


def test_the_basis_of_the_points_decodes_as_the_decoder_does(space):
    arrays, player = collect_arrays(space), space.player
    z, positions = player.latent(1), player.params.key_points.positions
    decoder = player.components.decoder
    translations, rotations = dimo.decode(player.components, player.params, z, positions, np.float32(0.3))
    kept = decoder.apply(
        *(player.params.decoder, z, positions[:1], np.float32(0.3)),
        capture_intermediates=lambda layer, _: layer.name == "shares",
        mutable=["intermediates"],
    )[1]
    pose = decoder.scale * arrays["basis"] @ kept["intermediates"]["shares"]["__call__"][0]
    np.testing.assert_allclose(pose[:, :3], translations, atol=1e-6)
    np.testing.assert_allclose(pose[:, 3:] + np.eye(4)[0], rotations, atol=1e-6)


def test_half_is_smaller_and_its_cost_is_measured(space, tmp_path):
    whole, half = (page.write_page(space, tmp_path / f"{name}.html", half=name) for name in (False, True))
    arrays = collect_arrays(space)
    halved = {name: array.nbytes for name, array in halve(arrays).items()}
    # Copied out, or rounded no more.
    apart = {"codes", "chosen", "noise", "center", "axes", "positions", "log_radii", "nearest", "light"}
    assert {name for name, array in arrays.items() if halved[name] == array.nbytes} == apart
    assert all(2 * halved[name] == array.nbytes for name, array in arrays.items() if name not in apart)
    assert half.stat().st_size < whole.stat().st_size
    assert 45 < measure_half(space) < 90


def other_graph(points, positions, trajectories):
    """A graph that the page does not know."""
    del positions, trajectories
    return np.zeros((len(points), 1), np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(graph=dict(fn=f"{__name__}:other_graph")), r"config.graph.fn: found '.*:other_graph', expected traj"),
        (dict(skinning=dict(fn=f"{__name__}:other_graph")), r"config.skinning.fn: found .* expected rbf_weights or"),
        (
            dict(deform=dict(fn="dimo_jax.skinning.blending:dual_quaternion_blend")),
            r"config.deform.fn: found '.*:dual_quaternion_blend', expected linear_blend for --format=html",
        ),
        (dict(deform__align=True), r"config.deform.align: found True, expected False for --format=html"),
        (dict(stage2__move=dict(fn="dimo_jax.systems.dimo.model:stay")), r"config.stage2.move.fn: found '.*:stay'"),
        (dict(decoder__dtype="bfloat16"), r"config.decoder.dtype: found bfloat16, expected float32"),
    ],
)
def test_unknown_components_are_refused_by_their_key(space, tmp_path, changes, message):
    config = make_config(**changes)
    components, move = dimo.build_components(config), config.stage2.move.fn
    player = space.player.with_params(space.player.params)
    player.components = components
    if "stage2__move" in changes:
        player.move = functools.partial(dimo.stay)
        assert move.endswith("stay")
    other = dataclasses.replace(space, player=player, config=config)
    with pytest.raises(UserError, match=message) as error:
        page.write_page(other, tmp_path / "page.html")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_decoder_of_ones_own_is_refused(space):
    class Own:
        pass

    player = space.player.with_params(space.player.params)
    player.components = dataclasses.replace(player.components, decoder=Own())
    with pytest.raises(UserError, match=r"config.decoder.fn: found .* expected basis_decoder or motion_decoder"):
        describe_model(dataclasses.replace(space, player=player))


def test_a_run_whose_components_are_unknown_has_no_page(space, tmp_path, caplog, informed):
    player = space.player.with_params(space.player.params)
    player.components = dataclasses.replace(player.components, graph=other_graph)
    other = dataclasses.replace(space, player=player)
    assert write_player(other, tmp_path / "player.html") is None
    assert not list(tmp_path.iterdir())
    assert "no player.html: config.graph.fn: found " in caplog.text
    assert write_player(space, tmp_path / "player.html") == tmp_path / "player.html"


def test_options_are_told_with_their_defaults(space):
    told = describe_model(space)
    assert told["graph"] == dict(kind="trajectory", num_neighbors=8)
    assert told["skinning"] == dict(kind="squared", floor=0.0)
    assert space.player.components.skinning.func is rbf_weights
    assert told["decoder"]["branch"] == ["branch_0", "branch_1", "shares"]
    assert told["unit"] is True
    official = get_config("official")
    official.update(num_key_points=16)
    official.decoder.update(width=16, head_width=16, depth=2, skip=1)
    told = describe_model(make_space(official))
    assert (told["unit"], told["graph"]) == (False, dict(kind="canonical", num_neighbors=4))
    assert told["skinning"] == dict(kind="authors", floor=1e-7)
    assert (told["decoder"]["kind"], told["decoder"]["lowest"]) == ("mlp", 1.0)


def test_text_of_a_run_never_becomes_markup(tmp_path):
    names = [HOSTILE, "a", "b"]
    space = make_space(make_config(), names=names, captions=names, object_name=HOSTILE, paraphrases=[names] * 3)
    prompts = [(HOSTILE, np.asarray(space.player.latent(0)))]
    written = page.write_page(space, tmp_path / "page.html", prompts=prompts)
    plain = read(page.write_page(make_space(make_config()), tmp_path / "plain.html"))
    found = read(written)
    assert found.tags == plain.tags
    header = json.loads(found.scripts["header"])
    assert header["motions"][0] == dict(name=HOSTILE, caption=HOSTILE)
    assert header["prompts"] == [HOSTILE]
    assert "'unsafe-" not in written.read_text("utf-8")


def test_only_a_page_with_the_paper_s_decoder_may_compile_its_kernel(space, tmp_path):
    official = get_config("official")
    official.update(num_key_points=16)
    official.decoder.update(width=16, head_width=16, depth=2, skip=1)
    for each, may in ((space, False), (make_space(official), True)):
        text = page.write_page(each, tmp_path / "page.html").read_text("utf-8")
        assert ("'wasm-unsafe-eval'" in text) is may
        assert ("kernel" in json.loads(read(tmp_path / "page.html").scripts["header"])["decoder"]) is may


def test_the_kernel_is_what_its_text_says(tmp_path):
    find = "try { console.log(require.resolve('wabt')) } catch { process.exit(1) }"
    if not shutil.which("node") or subprocess.run(["node", "-e", find], capture_output=True).returncode:
        pytest.skip("wabt is not installed (npm install wabt, and NODE_PATH)")
    build = (
        "const [text, out] = process.argv.slice(1), fs = require('fs'); require('wabt')().then((wabt) => {"
        "const module = wabt.parseWat('kernel.wat', fs.readFileSync(text, 'utf8'));"
        "fs.writeFileSync(out, module.toBinary({}).buffer); });"
    )
    subprocess.run(["node", "-e", build, page.HERE / "kernel.wat", tmp_path / "kernel.wasm"], check=True)
    assert (tmp_path / "kernel.wasm").read_bytes() == (page.HERE / "kernel.wasm").read_bytes()


@pytest.mark.parametrize(("preset", "count", "most"), [("demo", 4300, 2e6), ("paper", 100_000, 11e6)])
def test_a_page_stays_small(tmp_path, preset, count, most):
    space = make_space(get_config(preset), num_gaussians=count)
    size = page.write_page(space, tmp_path / "page.html").stat().st_size
    assert 0.8 * most < size < most


def test_a_seam_that_is_missing_is_an_error():
    assert page.insert("a{{x}}b", dict(x="{{y}}")) == "a{{y}}b"
    for template in ("ab", "{{x}}{{x}}", "{{x}}{{y}}"):
        with pytest.raises(ValueError, match="the page's seams are"):
            page.insert(template, dict(x="1"))


def test_scripts_can_stand_in_html():
    for name in page.SCRIPTS:
        text = (page.HERE / name).read_text("utf-8")
        assert "</script" not in text.lower()
        assert "<!--" not in text
        assert len(text.splitlines()) <= 400


def test_the_alphabet_is_one_of_85_letters_that_html_takes():
    assert len(set(ALPHABET)) == len(ALPHABET) == 85
    assert not set("<&\\\"'") & set(ALPHABET)
    rng = np.random.default_rng(0)
    arrays = dict(a=rng.normal(size=(3, 5)).astype(np.float32), b=np.arange(7, dtype=np.uint16), c=np.float16([[1.5]]))
    for name, array in unpack(*pack(arrays)).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_a_space_of_one_motion_has_a_page(tmp_path):
    space = make_space(make_config(), splits=["train", "test", "test"])
    told = collect_arrays(space)
    assert len(told["codes"]) == 1
    assert jax.tree.all(jax.tree.map(lambda x: bool(np.isfinite(x).all()), told))
    assert page.write_page(space, tmp_path / "page.html").stat().st_size > 50_000
