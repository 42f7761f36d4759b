"""Real pipelines of diffusers with tiny random weights, loaded from a folder by the code that loads the large ones.

They need torch, diffusers, transformers and accelerate (extra dimo_jax[distill]) and are skipped without."""

import numpy as np
import pytest
from PIL import Image
from stand_ins import read_manifest

from dimo_jax.configs.distill import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.data.formats.native import read_dataset
from dimo_jax.priors import video_models
from dimo_jax.priors.chain import run_chain
from dimo_jax.priors.failures import Failure

ABSENT = "package {} is absent (extra dimo_jax[distill])"
torch = pytest.importorskip("torch", reason=ABSENT.format("torch"))
for name in ("diffusers", "transformers", "accelerate"):
    pytest.importorskip(name, reason=ABSENT.format(name))
tiny_pipelines = pytest.importorskip("tiny_pipelines")
pytestmark = pytest.mark.slow
PRESETS = {name: get_config(name).video.to_dict() for name in ("cogvideox", "wan")}  # of configs/distill.py
SMALL = dict(height=32, width=48, num_frames=9, num_steps=2, max_tokens=16, device="cpu", dtype="float32")


def load(kind, **options):
    """A model as the chain loads it."""
    return resolve(PRESETS[kind] | SMALL | options, key="video")()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "cogvideox": str(tiny_pipelines.save_cogvideox(root / "cogvideox")),
        "wan": str(tiny_pipelines.save_wan(root / "wan")),
    }


@pytest.fixture(scope="module")
def models(folders):
    return {name: load(name, model=folders[name]) for name in PRESETS}


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8)


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_a_seed_and_a_prompt_make_a_video(models, kind):
    first = models[kind](picture(), "a ball jumps", 1)
    assert (first.shape, first.dtype) == ((9, 32, 48, 3), np.uint8)
    np.testing.assert_array_equal(first, models[kind](picture(), "a ball jumps", 1))
    for other in (models[kind](picture(), "a ball jumps", 2), models[kind](picture(), "it sits", 1)):
        assert (first != other).any()


def test_numbers_of_frames_and_models_that_do_not_fit(folders):
    with pytest.raises(UserError, match=r"config.video.model: cannot load '/no/such' as WanImageToVideoPipeline"):
        load("wan", model="/no/such")
    with pytest.raises(UserError, match=r"config.video.dtype: found 'int8', expected one of bfloat16"):
        load("cogvideox", model=folders["cogvideox"], dtype="int8")
    for kind in PRESETS:
        with pytest.raises(UserError, match=r"config.video.num_frames: found 10, expected 4 n \+ 1 for"):
            load(kind, model=folders[kind], num_frames=10)
    with pytest.raises(UserError, match=r"config.video.pipeline: found 'WanPipeline', expected one of diffusers"):
        load("wan", pipeline="WanPipeline")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"config.video.device: found 'cuda', but torch sees no GPU"):
            load("cogvideox", model=folders["cogvideox"], device="cuda")


def test_weights_that_are_nan_give_a_failure_that_says_so(folders, tmp_path):
    pipe = video_models.load_pipeline(
        tiny_pipelines.WanImageToVideoPipeline, folders["wan"], {"default": torch.float32}
    )
    with torch.no_grad():
        pipe.transformer.proj_out.weight.fill_(float("nan"))
    pipe.save_pretrained(tmp_path / "nan")
    model = load("wan", model=str(tmp_path / "nan"))
    with pytest.raises(Failure, match=r"NaN or infinite values in \d of 9 frames, try --config.video.dtype"):
        model(picture(), "a ball", 0)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_gives_a_suggestion(models, monkeypatch, error):
    """A stand-in for the shortage: the scheduler raises what torch raises."""

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(tiny_pipelines.FlowMatchEulerDiscreteScheduler, "step", fail)
    with pytest.raises(
        Failure, match=r"ran out of memory, try --config.video.offload=sequential, or a smaller"
    ) as caught:
        models["wan"](picture(), "a ball", 0)
    assert caught.value.fatal


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_the_whole_chain_with_a_real_pipeline(setting, folders, kind):
    """Random weights make noise, not motion of an object: filters are open and masks are given."""
    setting.config["video"] = PRESETS[kind] | SMALL | dict(model=folders[kind], frame_rate=8.0)
    given = setting.out.parent / "given"
    for name in ("input", "sways_left_and_right", "stands_still"):
        (given / name).mkdir(parents=True)
        mask = Image.new("L", (80, 80) if name == "input" else (48, 32), 0)
        mask.paste(255, (16, 8, 30, 22))
        for index in range(1 if name == "input" else 9):
            mask.save(given / name / f"{index:05d}.png")
    setting.config["mask"].update(fn="dimo_jax.priors.masks:given", folder=str(given))
    setting.config["framing"]["num_frames"] = 5
    setting.config["views"] = dict(fn="dimo_jax.priors.novel_views:input_view_only")
    setting.config["judge_motion"].update(least=0.0, most=1e9, max_jump=1e9, max_cropped=1.0)
    dataset = read_dataset(run_chain(setting.config, image=setting.image, out=setting.out, prompts=None))
    assert dataset.frames.shape == (2, 1, 5, 48, 48, 4)
    videos = {record["item"]: record for record in read_manifest(setting.out) if record["step"] == "video"}
    assert videos["stands_still"]["model"] == folders[kind]
