"""ATOP's generator: videos of a part's motion from several views, learnt from a few made objects, steered by its mask.

    python launch.py --config=configs/atop.py --workdir=runs/atop

Then `--app=articulate --motion=generated` finds joints by it; docs/atop.md says what to expect of it.

Presets, chosen as in `configs/atop.py:tiny`:

    demo        a small UNet that learns pictures of made objects, then motions of 8 of each category, on a CPU
    tiny        some steps of next to nothing, for tests
    imagedream  the motion module around ImageDream; its files by config.atop.{backbone,codec,text,look}.weights
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PARTS = "dimo_jax.systems.atop.generator.parts"
PRESETS = ("demo", "tiny", "imagedream")


def get_config(preset: str = "demo") -> ConfigDict:
    """The config of a preset.

    Raises:
      ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"found preset {preset!r}, expected one of {', '.join(PRESETS)}")
    config = ConfigDict()
    config.preset, config.preset_chosen_by = preset, "user"
    config.seed = 0
    config.system = dict(fn="dimo_jax.systems.atop.generator.system:Atop")
    config.outcome = dict(fn="dimo_jax.views.atop_outcome:show_films")
    config.data = ConfigDict()
    config.data.reader = dict(fn="dimo_jax.data.articulated.films:read_films")
    config.data.num_frames, config.data.side = 5, 64  # of a video; height and width of pictures, pixels
    config.data.shapes = 40  # of each category, of which there are pictures for stage pictures
    config.data.held_out_every = 0
    # Samples, each with all of its views and frames.
    config.batch = dict(motions=1, views=1, frames=1, accumulate=1, memory_gib=0.0)
    config.num_devices = 0
    config.render = dict(implementation=placeholder(str), capacity=placeholder(int), background=(1.0, 1.0, 1.0))

    config.atop = ConfigDict()
    config.atop.backbone = dict(
        fn=f"{PARTS}:small", channels=32, multiples=(1, 2), looks=(False, True), num_residuals=1, head_dim=32,
        text_dim=384, image_dim=64, num_image_tokens=8, groups=8, prediction="v", change=True, fold=2,
    )  # fmt: skip
    config.atop.codec = dict(fn=f"{PARTS}:colors", factor=2)
    config.atop.text = dict(fn=f"{PARTS}:sentence_text", bert="")
    config.atop.look = dict(fn=f"{PARTS}:patches", side=4)
    config.atop.category, config.atop.examples = "all", 8  # or one of data/articulated; objects of each, 1 to 8
    config.atop.start = ""  # workdir of a run whose image model stages ("motion",) begin with; the backbone's own if ""
    config.atop.stages = ("pictures", "motion")
    config.atop.steps = dict(pictures=12_000, motion=6_000)
    config.atop.rates = dict(pictures=1.5e-3, motion=1.5e-3)  # of Adam
    config.atop.clip, config.atop.average = 1.0, 0.995  # the longest gradient; share of the old in the average
    config.atop.places = 2  # places of the joint that a sample of stage pictures has
    config.atop.drop = 0.1  # share of samples without sentence and mask (or picture), for guidance
    config.atop.augment = True
    config.atop.attend, config.atop.remat = "xla", False
    config.atop.sampling = dict(num_steps=20, guidance=1.0)
    config.atop.trained = ""  # workdir of a run, with --app=articulate --config=configs/atop.py
    config.log_every, config.image_every, config.checkpoint_every = 20, 200, 200
    config.checkpoint_minutes, config.keep_checkpoints = 5.0, 2
    if preset == "tiny":
        config.data.num_frames, config.data.side, config.data.shapes = 3, 16, 1
        config.batch.motions = 2
        config.atop.backbone.update(channels=8, multiples=(1,), looks=(True,), head_dim=8, num_image_tokens=2, groups=4)
        config.atop.steps = dict(pictures=2, motion=2)
        config.atop.sampling.num_steps = 2
        config.log_every = config.image_every = config.checkpoint_every = 2
    elif preset == "imagedream":
        config.data.num_frames, config.data.side, config.data.shapes = 10, 256, 0
        config.batch.motions = 2
        config.atop.backbone = dict(fn=f"{PARTS}:imagedream", weights="", prediction="epsilon")
        config.atop.codec = dict(fn=f"{PARTS}:autoencoder", weights="")
        config.atop.text = dict(fn=f"{PARTS}:clip_text", weights="", tokenizer="")
        config.atop.look = dict(fn=f"{PARTS}:clip_look", weights="")
        config.atop.category = "drawer"
        config.atop.stages, config.atop.steps = ("motion",), dict(motion=20_000)
        config.atop.rates = dict(motion=5e-4)
        config.atop.remat, config.atop.augment = True, False
        config.atop.sampling = dict(num_steps=50, guidance=5.0)
    return config
