"""The generator in the engine's loop: pictures, then motions; to the bit, on devices, and from disk."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.bert_folder import write_folder
from support.engine import compute_the_same_on_two_devices, go_on_to_the_bit
from support.imagedream_files import FILED, random_arrays, write_unet, write_vae

from dimo_jax.apps import articulate, train
from dimo_jax.configs.atop import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.data.articulated.categories import make_shape
from dimo_jax.data.articulated.films import Films, film_all
from dimo_jax.data.articulated.videos import film
from dimo_jax.data.sources import load
from dimo_jax.runs.build import build_system
from dimo_jax.systems.atop.generator import courses
from dimo_jax.systems.atop.generator.batches import augment, film_cameras
from dimo_jax.systems.atop.generator.joints import imagine
from dimo_jax.systems.atop.generator.model import Condition, predict_video
from dimo_jax.systems.atop.generator.outputs import Form, cut, join, predict_latents
from dimo_jax.systems.atop.generator.parts import colors
from dimo_jax.systems.atop.generator.system import Atop
from dimo_jax.systems.atop.generator.trained import load_generator, make_generator
from dimo_jax.systems.atop.generator.training import denoising_errors, without_condition
from dimo_jax.third_party.imagedream.unet import expected_shapes
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import save_config
from dimo_jax.training.parallel import Layout
from dimo_jax.training.system import Capacity

pytestmark = pytest.mark.usefixtures("quick_compile")
SIDE = 16


def make_config(folder, **changes):
    """The tiny preset by the text encoder in `folder`."""
    config = get_config("tiny")
    config.atop.text.bert = str(folder / "bert")
    config.atop.backbone.text_dim = 12
    config.atop.update(changes)
    config.num_devices = 1
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("atop")
    write_folder(root / "bert")
    return root


@pytest.fixture(scope="module")
def workdir(folder):
    """A run of the tiny preset, with its outcome."""
    train.run(config=make_config(folder), workdir=str(folder / "run"))
    return folder / "run"


def test_another_trainer_goes_on_to_the_bit_through_both_stages(folder):
    start, middle, end = (state.params for state in go_on_to_the_bit(make_config(folder)))
    # Pictures move the image model alone, motions the module alone.
    jax.tree.map(np.testing.assert_array_equal, middle.motion, start.motion)
    assert np.abs(middle.backbone.last.kernel - start.backbone.last.kernel).max() > 0
    jax.tree.map(np.testing.assert_array_equal, end.backbone, middle.backbone)
    assert all(np.abs(each.out.kernel).max() > 0 for each in end.motion)


def test_at_first_it_draws_the_still(folder):
    config = make_config(folder)
    system = build_system(config, load(config.data))
    generator = make_generator(config, system.init(jax.random.key(0)), 0)
    found = film(make_shape("drawer", 1000), num_frames=3, side=SIDE)
    condition = generator.condition(found.frames[:, 0], found.masks[:, 0], found.cameras, "the drawer is pulled out")
    drawn = generator.draw(jax.random.key(1), condition, num_steps=3, guidance=1.0)
    assert drawn.shape == (4, generator.num_frames, generator.size, generator.size, generator.channels)
    rest = generator.encode(found.frames[:, 0])[:, None]
    np.testing.assert_allclose(drawn, jnp.broadcast_to(rest, drawn.shape), atol=1e-5)


def test_asked_for_changes_it_learns_them(folder):
    """One film by heart, with the same noise again and again."""
    system = build_system(make_config(folder), load(make_config(folder).data))
    params = system.init(jax.random.key(0)).params
    batch = jax.tree.map(lambda x: x[0], system.source(Layout()).sample(3)).batch
    keys, optimizer = jax.random.split(jax.random.key(7), 2), optax.adam(1e-2)
    how = dict(config=system.backbone.config, form=system.backbone.form)

    @jax.jit
    def step(params, state):
        loss, slopes = jax.value_and_grad(lambda each: denoising_errors(each, batch, keys, **how).loss)(params)
        changes, state = optimizer.update(slopes, state)
        return optax.apply_updates(params, changes), state, loss

    state, losses = optimizer.init(params), []
    for _ in range(60):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]


def watch(state):
    """What two devices are compared by."""
    return state.params.motion[0].out.kernel


def test_two_devices_compute_what_one_does(folder):
    compute_the_same_on_two_devices("systems.atop.test_atop_system", folder, count=2, stages=("motion",))


def test_a_run_ends_with_films_and_its_model_is_loaded(workdir, folder):
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["num_steps"] == 4
    assert "Objects that are held out" in (workdir / "report.html").read_text()
    assert (workdir / "videos" / "drawer_1000.mp4").stat().st_size > 0
    generator = load_generator(workdir)
    assert (generator.num_frames, generator.size, generator.channels, generator.side) == (3, 8, 4, SIDE)
    assert generator.prediction == "v"
    assert 0 < np.abs(generator.params.motion[0].out.kernel).max() < 1
    config = make_config(folder, trained=str(workdir))
    found = film(make_shape("oven", 1000), num_frames=3, side=SIDE)
    told = (found.frames[:, 0], found.masks[:, 0], found.cameras, "the door of the oven is being opened")
    drawn = [
        each.draw(jax.random.key(0), each.condition(*told), num_steps=2, guidance=2.0)
        for each in (generator, load_generator(config))
    ]
    np.testing.assert_array_equal(*drawn)
    predict = load_generator(workdir).predict(generator.condition(*told), guidance=2.0)
    assert jax.eval_shape(predict, drawn[0], jnp.array(500)).shape == drawn[0].shape
    with pytest.raises(UserError, match="masks: no view sees the part"):
        generator.condition(told[0], 0 * told[1], *told[2:])


def test_a_run_begins_with_the_image_model_of_another(workdir, folder, tmp_path):
    first = load_generator(workdir)
    config = make_config(folder, start=str(workdir), stages=("motion",))
    Atop.check(config)
    system = build_system(config, load(config.data))
    begun = system.init(jax.random.key(0)).params
    jax.tree.map(np.testing.assert_array_equal, begun.backbone, first.params.backbone)
    assert all(np.abs(each.out.kernel).max() == 0 for each in begun.motion)
    unfinished = tmp_path / "unfinished"
    with Checkpoints(unfinished, owner=True) as checkpoints:
        checkpoints.save(
            1, jax.device_get(build_system(make_config(folder), load(config.data)).init(jax.random.key(0)))
        )
    save_config(make_config(folder), unfinished)
    for changes, match in (
        (dict(start=str(tmp_path / "absent")), r"config\.atop\.start: no such file or folder"),
        (dict(start=str(unfinished)), r"config\.atop\.start: .* is at step 1 of stage pictures, expected a run after"),
        (dict(start=str(tmp_path)), r"config\.atop\.start: .*no config\.json in it"),
    ):
        with pytest.raises(UserError, match=match):
            build_system(make_config(folder, stages=("motion",), **changes), load(config.data)).init(jax.random.key(0))
    wider = make_config(folder, start=str(workdir), stages=("motion",))
    wider.atop.backbone.channels = 16
    with pytest.raises(UserError, match=r"has another config\.atop\.backbone"):
        build_system(wider, load(config.data)).init(jax.random.key(0))
    with pytest.raises(UserError, match=r"config\.atop\.stages: found .* beside config\.atop\.start"):
        Atop.check(make_config(folder, start=str(workdir)))


def test_what_cannot_be_loaded_is_said(workdir, folder, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json in it"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(UserError, match="no checkpoint in it"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(dict(system=dict(fn="dimo_jax.systems.static.system:Static"))))
    with pytest.raises(UserError, match=r"holds no run of configs/atop\.py"):
        load_generator(tmp_path)
    with pytest.raises(UserError, match=r"config\.atop\.trained: not given, expected the workdir"):
        load_generator(make_config(folder))
    with pytest.raises(UserError, match=r"config\.atop\.trained: no such folder"):
        load_generator(make_config(folder, trained=str(tmp_path / "absent")))


def test_what_does_not_fit_is_said_by_its_key(folder):
    for changes, match in (
        (dict(stages=("pictures",)), r"config\.atop\.stages: found .*expected \(motion\) or \(pictures, motion\)"),
        (dict(category="door"), r"config\.atop\.category: found 'door', expected all or one of cabinet, drawer"),
        (dict(examples=9), r"config\.atop\.examples: found 9, expected 1 to 8"),
        (dict(examples=0), r"config\.atop\.examples: found 0, expected an integer of at least 1"),
        (dict(places=4), r"config\.atop\.places: found 4, expected at most 3"),
        (dict(drop=1.0), r"config\.atop\.drop: found 1\.0"),
        (dict(steps=dict(pictures=0)), r"config\.atop\.steps\.pictures: found 0"),
        (dict(rates=dict(motion=-1.0)), r"config\.atop\.rates\.motion: found -1\.0"),
    ):
        with pytest.raises(UserError, match=match):
            Atop.check(make_config(folder, **changes))
    config = make_config(folder)
    config.batch.views = 2
    with pytest.raises(UserError, match=r"config\.batch\.views: found 2, expected 1"):
        Atop.check(config)
    for part, changes, match in (
        ("backbone", dict(text_dim=384), r"features of 12 numbers, expected 384 \(text_dim\)"),
        ("backbone", dict(latent_channels=3), r"has 24 channels, expected 32 \(as atop\.codec\)"),
        ("codec", dict(factor=16), r"config\.data\.side: found 16, expected a multiple of 32"),
    ):
        config = make_config(folder)
        config.atop[part].update(changes)
        with pytest.raises(UserError, match=match):
            build_system(config, load(config.data))
    config = make_config(folder)
    config.data.shapes = 0
    with pytest.raises(UserError, match=r"config\.data\.shapes: found 0, expected at least 1 for stage pictures"):
        build_system(config, load(config.data))
    config.data.num_frames = 1
    with pytest.raises(UserError, match=r"config\.data\.num_frames: found 1, expected an integer of at least 2"):
        load(config.data)


def look_for_imagedream():
    """A component `look` of as many numbers as OpenCLIP's tokens have."""
    return lambda encode: lambda rest: np.ones((len(rest), 5, 1280), np.float32) * rest.mean()


def test_around_imagedream_from_files_the_module_alone_trains(folder, tmp_path):
    """Traced, not computed: its UNet, Stable Diffusion's autoencoder, and the form in which ImageDream is asked."""
    arrays = random_arrays(expected_shapes(dataclasses.replace(FILED, text_dim=12)))
    write_unet(tmp_path / "unet", arrays, context_dim=12)
    write_vae(tmp_path / "vae")
    config = get_config("imagedream")
    config.data.num_frames, config.data.side = 3, SIDE
    config.atop.text = make_config(folder).atop.text
    config.atop.backbone.weights, config.atop.codec.weights = str(tmp_path / "unet"), str(tmp_path / "vae")
    config.atop.look = dict(fn=f"{__name__}:look_for_imagedream")
    system = build_system(config, load(config.data))
    (stage,) = system.stages
    drawn = jax.tree.map(lambda x: x[0], system.source(Layout()).sample(0))
    assert drawn.batch.video.shape == (2, 4, 3, 8, 8, 4)
    assert drawn.batch.condition.image.shape == (2, 4, 5, 1280)
    state, step = system.template(0), system.build_step(stage, Capacity(None), axis_name=None, accumulate=1)
    assert state.params.backbone.last.kernel.dtype == jnp.bfloat16
    assert len(state.average) == len(jax.tree.leaves(state.params.motion))
    after, metrics = jax.eval_shape(step, state, drawn, system.fixed(stage), jax.random.key(0))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert metrics.preview.shape == (2, 8, 8, 3)
    pictures = system.parts.codec.decode(drawn.batch.video[0, 0])
    assert pictures.shape == (3, SIDE, SIDE, 4)


def test_full_size_asks_for_its_files(tmp_path):
    for part, name, expected in (
        ("backbone", "weights", "ImageDream's UNet"),
        ("codec", "weights", "Stable Diffusion's autoencoder"),
        ("text", "weights", "OpenCLIP's text encoder"),
        ("look", "weights", "OpenCLIP's image encoder"),
    ):
        spec = get_config("imagedream").atop[part]
        with pytest.raises(UserError, match=rf"config\.atop\.{part}\.{name}: not given, expected {expected}"):
            resolve(spec, key=f"atop.{part}")()
        spec[name] = str(tmp_path / "absent")
        with pytest.raises(UserError, match=rf"config\.atop\.{part}\.{name}: no such file or folder \(.*absent\)"):
            resolve(spec, key=f"atop.{part}")()


def test_latents_are_cut_into_tokens_and_joined():
    latents = np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    tokens = cut(latents, 4)
    assert tokens.shape == (2, 4, 48)
    np.testing.assert_array_equal(tokens[1, 2].reshape(4, 4, 3), latents[1, 4:, :4])
    np.testing.assert_array_equal(join(tokens, 3), latents)


def test_colors_come_back_from_latents():
    frames = np.random.default_rng(0).integers(1, 256, (2, 4, 4, 4), np.uint8)
    frames = frames.repeat(2, axis=1).repeat(2, axis=2)
    codec = colors(factor=2)
    assert np.abs(codec.decode(codec.encode(frames))[..., 3].astype(int) - frames[..., 3]).max() <= 1
    opaque = np.concatenate([frames[..., :3], np.full_like(frames[..., :1], 255)], axis=-1)
    assert np.abs(codec.decode(codec.encode(opaque)).astype(int) - opaque).max() <= 1
    np.testing.assert_allclose(codec.encode(0 * frames), -1)


def test_an_augmented_film_shows_an_object_that_there_could_be():
    """A mirrored object's silhouettes are mirrored in mirrored views, a turned one's are those of other views."""
    found = film(make_shape("faucet", 3), num_frames=2, side=32)
    seen = {
        augment(found.frames, found.masks[:, 0], np.random.default_rng(seed))[0][..., 3].tobytes() for seed in range(60)
    }
    assert len(seen) == 8
    turned = np.roll(found.frames[..., 3], 1, axis=0)
    assert turned.tobytes() in seen
    assert np.ascontiguousarray(found.frames[::-1, :, :, ::-1, 3]).tobytes() in seen


def test_batches_hold_the_same_samples_however_they_are_dealt_out(folder):
    system = build_system(config := make_config(folder), load(config.data))
    for step, frames in ((0, config.atop.places), (3, 3)):
        one = system.source(Layout(accumulate=1)).sample(step)
        two = system.source(Layout(accumulate=2)).sample(step)
        assert one.batch.video.shape == (1, 2, 4, frames, 8, 8, 4)
        assert two.seeds.ravel().tolist() == one.seeds[0].tolist() == [0, 1]
        np.testing.assert_array_equal(two.batch.video[:, 0], one.batch.video[0])
    # Of a film, the first frame is the rest state that changes are counted from.
    np.testing.assert_allclose(join(one.batch.condition.image, 4)[0], one.batch.video[0, :, :, 0], atol=1e-6)


def test_films_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path))
    first = film_all([("bin", 5)], 2, 16, still=True)
    (kept,) = tmp_path.glob("films-*")
    stamp = (kept / "frames.npy").stat().st_mtime_ns
    again = film_all([("bin", 5)], 2, 16, still=True)
    assert isinstance(again, Films)
    assert (kept / "frames.npy").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.frames, again.frames)
    expected = film(make_shape("bin", 5), num_frames=2, side=16)
    np.testing.assert_array_equal(again.pictures[0, :, 0], expected.frames[:, 0])
    assert np.abs(again.pictures[0, :, 1].astype(int) - expected.frames[:, 1]).max() > 0
    np.testing.assert_allclose(film_cameras(16).world_to_camera, expected.cameras.world_to_camera)


def test_what_guidance_leads_away_from_depends_on_the_form():
    one = Condition(jnp.ones((1, 2, 3)), jnp.ones((1, 2, 4, 5)), jnp.ones((1, 2, 8, 8)), None)
    change = without_condition(one, jnp.zeros((2, 3)), Form("v", change=True))
    assert not change.masks.any()
    assert change.image.all()
    plain = without_condition(one, jnp.zeros((2, 3)), Form())
    assert plain.masks.all()
    assert not plain.image.any()
    assert not plain.text.any()
    assert not change.text.any()


def test_imagedream_is_asked_as_it_is(folder):
    """Without a form of ours, what the model predicts is what its network says."""
    config = make_config(folder)
    config.atop.backbone.update(change=False, fold=1, prediction="epsilon")
    system = build_system(config, load(config.data))
    params = system.init(jax.random.key(0)).params
    batch = jax.tree.map(lambda x: x[0], system.source(Layout()).sample(3)).batch
    how = dict(config=system.backbone.config)
    times = jnp.array([400, 10])
    found = predict_latents(params, batch.video, times, batch.condition, form=Form(), **how)
    np.testing.assert_array_equal(found, predict_video(params, batch.video, times, batch.condition, **how))
    bare = dataclasses.replace(batch.condition, image=None)
    with pytest.raises(ValueError, match="no picture, expected the rest state"):
        predict_latents(params, batch.video, times, bare, form=Form("v", change=True), **how)


def test_a_run_tells_a_joint_through_the_app(workdir, folder, tmp_path, capsys, monkeypatch):
    """The real network, encoders and checkpoint; after four steps what it says of a joint is worth nothing."""
    monkeypatch.setattr(courses, "candidates", lambda body, part: [])  # those of the part's box are left
    monkeypatch.setattr(courses, "TURNS", (1.0,))
    monkeypatch.setattr(articulate, "imagine", functools.partial(imagine, count=32, steps=2))
    given = dict(source="cabinet", part="drawer", prompt="pull out the drawer", motion="generated", size=64)
    articulate.run(**given, config=make_config(folder, trained=str(workdir)), out=str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "joint.json").read_text())
    assert found["source"] == "generated motion"
    assert np.isfinite([*found["axis"], *found["origin"], *found["range"]]).all()
    assert len(found["runners_up"]) == 1
    assert {"generated.mp4", "object.urdf", "object.xml"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "wrote" in capsys.readouterr().out
