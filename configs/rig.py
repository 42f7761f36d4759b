"""The motion space of a rigged model, from the clips in its own file; no pictures.

    python launch.py --config=configs/rig.py --config.data.path=knight.glb --workdir=runs/knight_rig
    python launch.py --config=configs/rig.py --workdir=runs/puppet_rig        # the embedded character

Then `--app=animate --workdir=runs/knight_rig` writes the file with new clips; docs/rigs.md has the figures.

Presets, chosen as in `configs/rig.py:smoke`:

    demo    800 updates of all clips
    smoke   two steps on three clips, for tests
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PRESETS = ("demo", "smoke")


def _rate(initial: float, final: float, num_steps: int) -> ConfigDict:
    fn = "dimo_jax.training.schedules:log_linear"
    return ConfigDict(dict(fn=fn, initial=initial, final=final, num_steps=num_steps, warmup_steps=num_steps // 20))


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
    config.system = dict(fn="dimo_jax.systems.rig.system:RigSpace")
    config.outcome = dict(fn="dimo_jax.views.rig_outcome:show_clips")
    config.data = ConfigDict()
    config.data.reader = dict(fn="dimo_jax.data.formats.rigged.clips:read_clips")
    config.data.path = ""  # a .glb or .gltf file; "": the embedded puppet
    config.data.clips = ""  # names or patterns of those to take, separated by commas; "": all
    config.data.test_clips = ""  # of those kept from training, whose codes are fitted in the end
    config.data.hide = ""  # nodes to leave out of account
    config.data.repair = False
    config.data.num_frames = 64  # instants at which each clip is looked at, whatever its length
    config.data.held_out_every = 0
    config.batch = dict(motions=1, views=1, frames=1)
    config.num_devices = 1
    config.render = dict(implementation=placeholder(str), capacity=placeholder(int), background=(1.0, 1.0, 1.0))

    config.latent = dict(fn="dimo_jax.training.latents:reparameterize")
    config.latent_init = dict(fn="dimo_jax.training.latents:init_latents", dim=512, mu_std=1.0, log_sigma=-4.0)
    config.decoder = dict(
        fn="dimo_jax.systems.rig.decoder:curve_decoder", rank=64, num_harmonics=12, width=256, depth=2
    )
    config.rig = ConfigDict()
    config.rig.num_steps = 32
    config.rig.updates = 25  # of Adam, a step
    config.rig.frames = 6  # instants of every clip, an update
    config.rig.least_slide = 0.01  # of the model's size: bones that clips stretch by less keep their length
    config.rig.weights = dict(position=1.0, turn=1.0, vector=1e-3, kl=1e-8)
    config.rig.rates = dict(latents=_rate(5e-3, 2e-4, 800), decoder=_rate(5e-4, 2e-5, 800))
    config.log_every, config.image_every, config.checkpoint_every = 4, 0, 16
    config.checkpoint_minutes, config.keep_checkpoints = 10.0, 2
    if preset == "smoke":
        config.data.num_frames = 12
        config.data.clips, config.data.test_clips = "wave_left,bow_deeply,squat", "squat"
        config.latent_init.dim = 8
        config.decoder.update(rank=8, num_harmonics=3, width=16, depth=1)
        config.rig.num_steps, config.rig.updates, config.rig.frames = 2, 2, 4
        config.log_every = config.checkpoint_every = 1
    return config
