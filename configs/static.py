"""A static object of Gaussians from posed pictures: a dataset folder, or one with a transforms.json.

    python launch.py --config=configs/static.py --config.data.path=data/lego --workdir=runs/lego
    python launch.py --config=configs/static.py --workdir=runs/still        # the embedded character, standing still

Presets, chosen as in `configs/static.py:smoke`:

    demo    1,500 steps at 128 px
    smoke   two steps at 32 px, for tests
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

TERMS = "dimo_jax.losses.terms"
DENSITY = "dimo_jax.training.density"
PRESETS = ("demo", "smoke")


def _rate(initial: float, final: float, num_steps: int) -> ConfigDict:
    fn = "dimo_jax.training.schedules:log_linear"
    return ConfigDict(dict(fn=fn, initial=initial, final=final, num_steps=num_steps, warmup_steps=0))


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
    config.system = dict(fn="dimo_jax.systems.static.system:Static")
    config.outcome = dict(fn="dimo_jax.views.outcome:show_still")
    config.data = ConfigDict()
    config.data.path = ""
    config.data.source = dict(
        fn="dimo_jax.data.puppet.dataset:make_puppet", num_motions=1, num_frames=1, size=128, num_train_views=24,
        num_test_views=3, num_test_motions=0,
    )  # fmt: skip
    config.data.store, config.data.device_gib = "auto", 0.0
    config.data.reference_view, config.data.held_out_every = "", 0
    config.batch = dict(motions=1, views=4, frames=1, accumulate=1, memory_gib=0.0)
    config.num_devices = 0
    config.render = dict(implementation=placeholder(str), capacity=placeholder(int), background=(1.0, 1.0, 1.0))
    config.render.dilation = 0.3  # pixel^2, how far a pixel blurs what it sees; that of 3DGS

    config.static = ConfigDict()
    config.static.num_steps = 1_500
    config.static.phases = ((0, 64), (300, 128), (900, 512))  # (first step, pixels), never above the data's
    config.static.capacity, config.static.num_points = 8_192, 2_048
    config.static.ball_radius, config.static.opacity, config.static.scale = 0.5, 0.1, 0.03
    config.static.sh_degree = 0
    config.static.densify = dict(fn=f"{DENSITY}:densify", gradient_ratio=1.5, split_scale=0.02)
    config.static.densify_from, config.static.densify_until, config.static.densify_every = 200, 1_100, 100
    config.static.prune = dict(fn=f"{DENSITY}:prune", min_opacity=0.01, max_scale=0.4)
    config.static.rates = dict(
        means=_rate(5e-3, 1e-4, 1_500), log_scales=5e-3, quats=5e-3, logit_opacities=5e-2, sh=_rate(2e-2, 5e-3, 1_500)
    )
    config.static.losses = dict(
        rgb=dict(fn=f"{TERMS}:rgb", weight=5000.0, kind="l2"),
        mask=dict(fn=f"{TERMS}:mask", weight=500.0),
        ssim=dict(fn=f"{TERMS}:ssim", weight=500.0),
    )
    config.log_every, config.image_every, config.checkpoint_every = 50, 500, 500
    config.checkpoint_minutes, config.keep_checkpoints = 10.0, 3
    config.evaluation = dict(num_lpips_images=16)
    if preset == "smoke":
        config.data.source.update(size=32, num_train_views=3, num_test_views=1)
        config.batch.views = 2
        config.static.num_steps, config.static.phases = 2, ((0, 32),)
        config.static.capacity, config.static.num_points = 64, 32
        config.static.densify_from = config.static.densify_every = 1
        config.log_every = config.image_every = config.checkpoint_every = 1
        config.evaluation.num_lpips_images = 1
    return config
