"""DIMO (ICCV 2025): a motion space of one object from multi-view videos.

    python launch.py --config=configs/dimo.py              # paper on a GPU or TPU, demo on a CPU; in runs/dimo
    python launch.py --config=configs/dimo.py:demo --workdir=runs/demo
    python launch.py --config=configs/dimo.py:paper --config.data.path=data/my_object --workdir=runs/my_object

Presets:
    demo      the embedded puppet at 128 px, sized for two CPU cores; times and scores in docs/results.md
    fifty     the demo's model and 3.2 times its steps, for fifty motions of a dataset in data/fifty
    paper     the paper's scale: 512 key points, 2.8k + 8k steps, 128 -> 512 px, the paper's equations throughout
    official  the same scale with the authors' choices wherever their code differs from the paper
    smoke     two steps of each stage at 32 px, for tests

Every entry of the form dict(fn="module:function", ...) is a slot: point `fn` at a function of your own.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

IMAGE = "dimo_jax.losses.terms"
TERMS = "dimo_jax.systems.dimo.terms"
DENSITY = "dimo_jax.training.density"
LOG_LINEAR = "dimo_jax.training.schedules:log_linear"


def get_config(preset: str = "auto") -> ConfigDict:
    """The config of a preset; "auto" (no config string) lets `launch.py` choose by the machine."""
    presets = {"paper": _paper, "official": _official, "demo": _demo, "fifty": _fifty, "smoke": _smoke}
    if preset == "auto":
        import jax

        chosen = "demo" if jax.default_backend() == "cpu" else "paper"
        config = presets[chosen]()
        config.preset, config.preset_chosen_by = chosen, "machine"
        return config
    if preset not in presets:
        raise ValueError(f"preset {preset!r} does not exist, expected one of {', '.join(presets)}")
    config = presets[preset]()
    config.preset, config.preset_chosen_by = preset, "user"
    return config


def _rate(initial: float, final: float | None = None, num_steps: int = 1, warmup_steps: int = 0) -> ConfigDict:
    """A learning rate: constant, or from `initial` to `final` in so many steps of the stage."""
    final = initial if final is None else final
    return ConfigDict(dict(fn=LOG_LINEAR, initial=initial, final=final, num_steps=num_steps, warmup_steps=warmup_steps))


def _paper() -> ConfigDict:
    """The paper (Sec. 3, 4.1); what it leaves open has the authors' numbers or, where marked, our own."""
    config = ConfigDict()
    config.seed = 0
    config.preset = "paper"
    config.preset_chosen_by = "user"

    config.data = ConfigDict()
    config.data.path = ""  # a native dataset folder; empty: the source below
    config.data.source = dict(
        fn="dimo_jax.data.puppet.dataset:make_puppet",
        num_motions=60,
        num_frames=21,
        size=512,
        num_train_views=9,
        num_test_views=2,
        num_test_motions=0,  # of num_motions, kept from training
    )
    config.data.store = "auto"  # frames of a folder: memory, disk (mapped, shared by processes); auto: disk from 1 GiB
    config.data.device_gib = 0.0  # frames of up to this size are kept on every device instead
    config.data.reference_view = ""  # the view that was filmed, by name; empty: the first. All others are novel
    config.data.held_out_every = 5  # every fifth frame tests, the others, first and last among them, train

    # Computed in so many parts, one by one; in more where a step takes more than the device has (0) or so many GiB.
    config.batch = dict(motions=4, views=3, frames=2, accumulate=1, memory_gib=0.0)
    config.num_devices = 0  # of every process; 0: as many as the batch can be dealt out to evenly

    config.decoder = dict(
        fn="dimo_jax.systems.dimo.decoder:motion_decoder",
        width=256,
        depth=8,
        skip=4,
        head_width=256,
        num_position_bands=10,
        num_time_bands=6,
        dtype="float32",
    )
    config.latent = dict(fn="dimo_jax.training.latents:reparameterize")
    config.latent_init = dict(dim=32, mu_std=0.1, log_sigma=-3.0)
    config.skinning = dict(fn="dimo_jax.skinning.weights:rbf_weights")
    config.graph = dict(fn="dimo_jax.systems.dimo.graph:trajectory_neighbors", num_neighbors=8)
    config.deform = dict(
        fn="dimo_jax.skinning.blending:linear_blend",
        align=False,
        implementation=placeholder(str),  # xla or native; none: as render.implementation allows
    )
    config.num_key_points = 512
    config.radius_power = 2.0  # r_k of Eq. 1 is a squared length
    config.radius_scale = 1.0  # first control radius as a multiple of the key points' spacing

    config.render = dict(implementation=placeholder(str), capacity=placeholder(int), background=(1.0, 1.0, 1.0))
    config.render.dilation = 0.3  # pixel^2, how far a pixel blurs what it sees; that of 3DGS

    config.turns = dict(
        fn="dimo_jax.systems.dimo.turns:find_turns",
        size=32,
        num_angles=24,
        num_headings=12,
        num_views=5,
        least_angle=60.0,
        largest_cost=0.8,
    )

    config.stage1 = ConfigDict()
    config.stage1.num_steps = 2_800
    config.stage1.phases = ((0, 128), (300, 256), (450, 512))  # (first step, pixels)
    config.stage1.move = dict(fn="dimo_jax.systems.dimo.model:move_points")
    config.stage1.capacity = 2_048
    config.stage1.num_points = 512
    config.stage1.ball_radius = 0.5
    config.stage1.opacity = 0.05
    config.stage1.scale = 0.03
    config.stage1.scales = dict(fn="dimo_jax.training.gaussians:shared_radius")
    config.stage1.densify = dict(
        fn=f"{DENSITY}:densify", gradient_ratio=1.5, split_scale=0.05, max_points=placeholder(int)
    )
    config.stage1.densify_from = 200
    config.stage1.densify_until = 2_000
    config.stage1.densify_every = 100
    config.stage1.prune = dict(fn=f"{DENSITY}:prune", min_opacity=0.005)
    config.stage1.final_opacity = 0.01
    config.stage1.anneal_every = 1_000  # farthest point sampling back to num_key_points
    config.stage1.refresh_every = 100  # motion graph
    config.stage1.adam_b2 = 0.999  # how slowly Adam forgets how large gradients were
    config.stage1.rates = dict(
        latents=_rate(5e-3),
        decoder=_rate(2e-4),
        positions=_rate(0.0),
        log_radii=_rate(0.0),
        means=_rate(1e-2, 2e-4, 500),
        log_scales=_rate(5e-3),
        quats=_rate(5e-3),
        logit_opacities=_rate(5e-2),
        sh=_rate(1e-2),
    )
    config.stage1.losses = dict(
        rgb=dict(fn=f"{IMAGE}:rgb", weight=5000.0, kind="l2", novel_weight=1.0),
        mask=dict(fn=f"{IMAGE}:mask", weight=500.0),
        ssim=dict(fn=f"{IMAGE}:ssim", weight=500.0),
        lpips=dict(fn=f"{IMAGE}:lpips", weight=1000.0, network="vgg", num_images=placeholder(int), dtype="float32"),
        # Neither source has a weight for Eq. 9 as written: the authors' 10 is that of another form (`arap_rigid`).
        arap=dict(fn=f"{TERMS}:arap", weight=1.4),
        kl=dict(fn=f"{TERMS}:kl", weight=0.05),
        # Ours, off where the paper is followed; turns are searched for when their term starts.
        rotations=dict(fn=f"{TERMS}:rotations", weight=0.0, start=1_400),
        turn=dict(fn=f"{TERMS}:turn", weight=0.0, start=1_000, stop=2_000),
    )

    config.stage2 = ConfigDict()
    config.stage2.num_steps = 8_000
    config.stage2.phases = ((0, 128), (300, 256), (450, 512))
    config.stage2.move = dict(fn="dimo_jax.systems.dimo.model:move_by_key_points")
    config.stage2.num_per_key_point = 200
    config.stage2.ball_scale = 1.0  # radius of the ball of Gaussians as a multiple of the key points' spacing
    config.stage2.opacity = 0.1
    config.stage2.sh_degree = 0
    config.stage2.light = placeholder(tuple)  # towards a light, where the search for it begins; none: no shade
    config.stage2.scales = dict(fn="dimo_jax.training.gaussians:anisotropic")
    config.stage2.prune = dict(fn=f"{DENSITY}:prune", min_opacity=0.01, max_scale=0.4)
    config.stage2.prune_every = 1_000
    config.stage2.prune_until = 4_999
    config.stage2.refresh_every = 100
    config.stage2.adam_b2 = 0.999
    config.stage2.rates = dict(
        latents=_rate(5e-3, 2e-4, 8_000),
        decoder=_rate(2e-4, 2e-6, 8_000),
        positions=_rate(2e-6),
        log_radii=_rate(5e-3),
        means=_rate(2e-4, 2e-6, 8_000),
        log_scales=_rate(5e-3),
        quats=_rate(5e-3),
        logit_opacities=_rate(5e-2),
        sh=_rate(1e-2),
        projector=_rate(1e-3),  # with text.joint
        light=_rate(5e-3),  # with stage2.light
    )
    config.stage2.losses = dict(
        rgb=dict(fn=f"{IMAGE}:rgb", weight=5000.0, kind="l2", novel_weight=1.0),
        mask=dict(fn=f"{IMAGE}:mask", weight=500.0),
        ssim=dict(fn=f"{IMAGE}:ssim", weight=500.0),
        lpips=dict(fn=f"{IMAGE}:lpips", weight=1000.0, network="vgg", num_images=placeholder(int), dtype="float32"),
        depth=dict(fn=f"{IMAGE}:depth", weight=100.0, start=200),
        normal=dict(fn=f"{IMAGE}:normal", weight=0.05, start=200),
        arap=dict(fn=f"{TERMS}:arap", weight=7.4),
        chamfer=dict(fn=f"{TERMS}:chamfer", weight=10.0),
        opacity=dict(fn=f"{IMAGE}:opacity", weight=0.0),
        rotations=dict(fn=f"{TERMS}:rotations", weight=0.0),  # ours, as in the first stage
        turn=dict(fn=f"{TERMS}:turn", weight=0.0, start=1_000, stop=2_000),
        text=dict(fn=f"{TERMS}:text", weight=1.0, contrast=1.0),  # with text.joint
        kl=dict(fn=f"{TERMS}:kl", weight=0.05),
    )

    # A third stage, ours and off here: pictures move every pose of every trained frame by itself, then the decoder is
    # fitted to the poses (`systems/dimo/free_poses.py`). Gaussians move and are tied as in the second stage.
    config.stage3 = ConfigDict()
    config.stage3.num_steps = 0
    config.stage3.phases = ((0, 512),)
    config.stage3.adam_b2 = 0.999
    config.stage3.rates = dict(
        translations=_rate(6e-4, 3e-5, 400),
        rotations=_rate(3e-3, 1.5e-4, 400),
        means=_rate(6e-4, 3e-5, 400),
        log_scales=_rate(6e-4, 3e-5, 400),
        quats=_rate(6e-4, 3e-5, 400),
        logit_opacities=_rate(6e-4, 3e-5, 400),
        sh=_rate(6e-4, 3e-5, 400),
    )
    config.stage3.losses = dict(
        rgb=dict(fn=f"{IMAGE}:rgb", weight=5000.0, kind="l2", novel_weight=1.0),
        mask=dict(fn=f"{IMAGE}:mask", weight=500.0),
    )
    config.stage3.fit = dict(
        fn="dimo_jax.systems.dimo.fit_decoder:fit_decoder",
        num_steps=1_500,
        decoder_rate=1e-3,
        code_rate=1e-3,
        num_moments=96,
    )

    config.text = ConfigDict()  # read by --app=text, after training
    config.text.bert = ""  # a Hugging Face BERT folder; empty: all-MiniLM-L6-v2, downloaded on first use
    config.text.joint = False  # train the projector together with the latents, in the second stage
    config.text.pooling = "auto"  # mean, cls, pooler; auto: as the folder says
    config.text.projector = dict(fn="dimo_jax.systems.dimo.projector:mlp", width=128, depth=1)
    config.text.fit = dict(
        fn="dimo_jax.systems.dimo.fit_projector:fit_projector", num_steps=400, noise=1.0, contrast=1.0, num_members=4
    )

    config.log_every = 50  # steps between lines of metrics.jsonl
    config.image_every = 500  # steps between images in TensorBoard
    config.checkpoint_every = 500  # steps
    config.checkpoint_minutes = 10.0  # and so long after the last checkpoint at the latest; 0: by steps alone
    config.keep_checkpoints = 3  # the latest; the best stays besides
    config.evaluation = dict(
        baseline_steps=300,  # the best static model of the same data, trained on from the model for comparison
        num_lpips_images=128,  # drawn evenly over motions, views and frames; 0: all
        surface_points=1_000,
        num_samples=4,
        num_videos=16,
    )
    return config


def _official() -> ConfigDict:
    """The authors' choices wherever their code differs from the paper; docs/method.md lists them."""
    config = _paper()
    config.preset = "official"
    config.batch.views = 2
    config.decoder.skip = 5  # their "skip at 4" joins the inputs to what layer 4 gives
    config.decoder.lowest_frequency = 1.0
    config.deform.unit = False
    config.latent = dict(fn="dimo_jax.training.latents:plain_code")
    config.skinning = dict(fn="dimo_jax.skinning.weights:rbf_weights_authors")
    config.graph = dict(fn="dimo_jax.systems.dimo.graph:canonical_neighbors", num_neighbors=4)
    config.radius_power = 1.0  # r_k is a length
    config.stage2.num_steps = 10_000
    config.text.pooling = "pooler"  # of bert-base-cased, whose folder is config.text.bert
    config.text.projector = dict(fn="dimo_jax.systems.dimo.projector:linear")
    config.text.fit.update(noise=0.0, contrast=0.0, num_members=1)
    for stage in (config.stage1, config.stage2):
        stage.losses.arap = dict(fn=f"{TERMS}:arap_rigid", weight=10.0, radius=0.1, num_neighbors=10, num_times=8)
        stage.losses.rgb.novel_weight = 0.5
        stage.losses.kl.weight = 0.0
    for group, rates in (("latents", (5e-3, 2e-4)), ("decoder", (2e-4, 2e-6)), ("means", (2e-4, 2e-6))):
        config.stage2.rates[group] = _rate(*rates, 10_000)
    return config


def _demo() -> ConfigDict:
    """For two CPU cores: fewer motions, key points and pixels; choices measured in docs/results.md."""
    config = _paper()
    config.preset = "demo"
    config.data.source.update(num_motions=16, size=128)
    config.batch.update(motions=8, views=1, frames=3)  # more poses a step than 4 x 3 x 2, at the same cost
    # A linear motion basis: as good as the paper's decoder at equal steps, and far faster (docs/results.md).
    config.decoder = dict(
        fn="dimo_jax.systems.dimo.basis_decoder:basis_decoder", rank=96, width=256, trunk_depth=3, branch_depth=4,
        scale=0.05, num_position_bands=4, num_time_bands=4, branch_activation="silu", dtype="float32",
    )  # fmt: skip
    config.latent_init.update(mu_std=1.0)  # codes that start apart separate the motions sooner
    config.num_key_points = 128
    config.render.dilation = 0.1  # about that of a pixel's box (1/12), with which the data are drawn

    stage = config.stage1
    stage.num_steps = 1_600
    stage.phases = ((0, 32), (573, 64))
    # Many points, thinned to the key points at the end alone and among opaque ones: none hovers beside the body.
    stage.capacity, stage.num_points, stage.final_opacity = 256, 224, 0.3
    stage.densify_from, stage.densify_until, stage.densify_every = 227, 1_120, 113
    stage.anneal_every = 0
    stage.rates.update(decoder=_rate(3e-3, 5e-4, 1_600, warmup_steps=67), means=_rate(1e-2, 5e-4, 1_147))
    stage.losses.lpips.weight = 0.0
    stage.losses.ssim.weight = 0.0
    stage.losses.kl.weight = 8e-3
    config.turns.num_headings = 0  # its lying motions are found by descent
    stage.losses.turn.update(weight=2_000.0, start=573, stop=1_147)
    stage.losses.arap.weight = 0.25
    stage.adam_b2 = 0.99  # a decoder fitted to true trajectories errs half as much as with 0.999
    stage.losses.rotations.update(weight=25.0, start=800)

    stage = config.stage2
    stage.num_steps = 2_100
    stage.phases = ((0, 64), (525, 128))
    stage.num_per_key_point = 48
    stage.adam_b2 = 0.99
    stage.light = (0.0, 1.0, 0.0)  # what turns under a light changes colour
    stage.prune_every, stage.prune_until = 350, 2_100
    stage.prune.min_opacity = 0.05
    stage.rates.update(
        latents=_rate(5e-3, 2e-4, 2_100),
        decoder=_rate(1e-3, 5e-5, 2_100),
        positions=_rate(2e-4),
        means=_rate(3e-3, 1e-4, 2_100),
        log_scales=_rate(1e-2, 2e-3, 2_100),
        quats=_rate(1e-2, 2e-3, 2_100),
        sh=_rate(2e-2, 2e-3, 2_100),
    )
    stage.losses.lpips.weight = 0.0
    stage.losses.ssim.weight = 0.0
    stage.losses.normal.weight = 0.0
    stage.losses.depth.weight = 0.0
    stage.losses.arap.weight = 1.5
    stage.losses.kl.weight = 8e-3
    stage.losses.opacity.weight = 2.0
    stage.losses.rotations.weight = 150.0

    config.stage3.num_steps = 400
    config.stage3.phases = ((0, 128),)
    config.evaluation.update(baseline_steps=150, num_lpips_images=16)
    return config


def _fifty() -> ConfigDict:
    """The demo, its stages 2.8, 3.6 and 3.1 times as long, schedules stretched alike (import: docs/results.md)."""
    config = _demo()
    config.preset = "fifty"
    config.data.path = "data/fifty"
    config.evaluation.update(num_lpips_images=50)

    stage = config.stage1
    stage.num_steps = 4_500
    stage.phases = ((0, 32), (1_612, 64))
    stage.densify_from, stage.densify_until, stage.densify_every = 638, 3_150, 318
    stage.rates.update(decoder=_rate(3e-3, 5e-4, 4_500, warmup_steps=75), means=_rate(1e-2, 5e-4, 3_225))
    stage.losses.turn.weight = 0.0  # blobs are too coarse for the knight's spins
    stage.losses.rotations.start = 2_250

    stage = config.stage2
    stage.num_steps = 7_500
    stage.phases = ((0, 64), (1_875, 128))
    stage.prune_every, stage.prune_until = 750, 7_500
    stage.losses.rotations.weight = 370.0
    config.turns.update(size=64, num_headings=8, num_views=9, least_angle=45.0, largest_cost=0.95)
    stage.losses.turn.update(weight=20_000.0, start=750, stop=3_000)
    for name in ("latents", "decoder", "means", "log_scales", "quats", "sh"):
        stage.rates[name].num_steps = 7_500

    stage = config.stage3
    stage.num_steps = 1_250
    for rate in stage.rates.values():
        rate.num_steps = 1_250
    stage.fit.update(num_steps=3_000, num_moments=192)
    return config


def _smoke() -> ConfigDict:
    """Everything once, as small as it gets, but for the guides that begin when a model has a shape."""
    config = _demo()
    config.preset = "smoke"
    config.data.source.update(num_motions=3, num_frames=6, size=32, num_train_views=3, num_test_views=2)
    config.batch.update(motions=2, views=2, frames=2)
    config.decoder = dict(
        fn="dimo_jax.systems.dimo.decoder:motion_decoder", width=16, head_width=16, depth=2, skip=1,
        num_position_bands=4, num_time_bands=4, dtype="float32",
    )  # fmt: skip
    config.num_key_points = 16
    config.stage1.num_steps = config.stage2.num_steps = 2
    config.stage3.num_steps, config.stage3.phases, config.stage3.fit.num_steps = 2, ((0, 32),), 2
    config.stage1.phases = config.stage2.phases = ((0, 32),)
    config.stage1.capacity, config.stage1.num_points = 64, 32
    config.stage1.densify_from, config.stage1.densify_every, config.stage1.anneal_every = 1, 1, 2
    config.stage1.losses.turn.weight = config.stage1.losses.rotations.weight = 0.0
    config.stage2.losses.rotations.weight = 0.0
    config.stage2.num_per_key_point = 4
    config.log_every = config.image_every = config.checkpoint_every = 1
    config.evaluation.update(baseline_steps=2, num_lpips_images=2, surface_points=50, num_samples=1, num_videos=2)
    return config
