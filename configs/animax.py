"""AnimaX: videos and pose maps of a rig from several views, drawn together from its template and a sentence.

    python launch.py --app=import_data --pose_maps --source=rigs --out=data/rigs
    python launch.py --config=configs/animax.py --config.data.path=data/rigs --workdir=runs/animax

Then `--app=animate --source=rig.glb --prompt="it walks" --workdir=runs/animax` writes the file with a new clip;
docs/animax.md says what to expect of it.

Presets, chosen as in `configs/animax.py:tiny`:

    demo    a transformer of 4 million numbers on pixels, trained from nothing, for a CPU
    tiny    four steps of next to nothing, for tests
    wan     around Wan2.1-T2V-1.3B, in the paper's two stages; its files by config.animax.{backbone,codec,text}.weights
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PARTS = "dimo_jax.systems.animax.parts"
PRESETS = ("demo", "tiny", "wan")


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
    config.system = dict(fn="dimo_jax.systems.animax.system:Animax")
    config.outcome = dict(fn="dimo_jax.views.animax_outcome:show_videos")
    config.data = ConfigDict()
    config.data.reader = dict(fn="dimo_jax.data.clip_dataset:read_clip_shards")
    config.data.path = ""  # a folder of --app=import_data --pose_maps
    config.data.held_out_every = 0
    # Samples, each with all of its views and frames.
    config.batch = dict(motions=2, views=1, frames=1, accumulate=1, memory_gib=0.0)
    config.num_devices = 0
    config.render = dict(implementation=placeholder(str), capacity=placeholder(int), background=(1.0, 1.0, 1.0))

    config.animax = ConfigDict()
    config.animax.backbone = dict(
        fn=f"{PARTS}:small", num_layers=4, num_heads=3, head_dim=64, ffn_dim=768, freq_dim=64, patch=16, text_dim=384,
        channels=3,
    )  # fmt: skip
    config.animax.codec = dict(fn=f"{PARTS}:pixels")
    config.animax.text = dict(fn=f"{PARTS}:sentence_text", bert="")
    config.animax.stages = ("whole",)
    config.animax.num_steps = 5_000  # of each stage
    config.animax.rank = 0  # of the LoRA in the backbone; 0: none
    config.animax.rate, config.animax.clip = 1e-3, 1.0  # of Adam; the longest gradient
    config.animax.average = 0.995  # share of the old in the average of the weights
    config.animax.predicts = "change"  # or "velocity"
    config.animax.shift, config.animax.drop = 1.0, 0.2  # of the noise levels; share of samples without condition
    config.animax.weights = dict(rgb=1.0, pose=2.0)
    config.animax.augment = True
    config.animax.attend, config.animax.remat = "xla", False
    config.animax.sampling = dict(num_steps=10, guidance=1.0, shift=1.0, sampler="euler")
    config.animax.trained = ""  # workdir of a run, with --app=animate --config=configs/animax.py
    config.log_every, config.image_every, config.checkpoint_every = 20, 200, 200
    config.checkpoint_minutes, config.keep_checkpoints = 5.0, 2
    if preset == "tiny":
        config.animax.backbone.update(num_layers=1, num_heads=1, head_dim=12, ffn_dim=16, freq_dim=8, patch=16)
        config.animax.num_steps = 4
        config.animax.sampling.num_steps = 2
        config.log_every = config.image_every = config.checkpoint_every = 2
    elif preset == "wan":
        config.batch.motions = 8
        config.animax.backbone = dict(fn=f"{PARTS}:wan", weights="")
        config.animax.codec = dict(fn=f"{PARTS}:wan_codec", weights="")
        config.animax.text = dict(fn=f"{PARTS}:wan_text", weights="", tokenizer="")
        config.animax.stages, config.animax.num_steps, config.animax.rank = ("joint", "multi_view"), 10_000, 64
        config.animax.rate, config.animax.predicts, config.animax.shift = 5e-5, "velocity", 3.0
        config.animax.weights = dict(rgb=0.5, pose=0.5)
        config.animax.attend, config.animax.remat = "chunks", True
        config.animax.sampling = dict(num_steps=50, guidance=3.0, shift=3.0, sampler="unipc")
    return config
