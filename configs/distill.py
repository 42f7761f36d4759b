"""From one picture to many multi-view videos of it moving (paper Sec. 3.1).

    python launch.py --app=distill --config=configs/distill.py --config.views.checkout=~/generative-models \\
        --image=photo.png --out=data/thing
    python launch.py --app=distill --config=configs/distill.py:wan --image=photo.png --out=data/thing --dry_run

Presets: `cogvideox` (default) and `wan`, the video model. About 13 GPU hours for 50 motions on an A100 by the
default's assumptions; docs/distill.md says what each step needs.

Every entry of the form dict(fn="module:function", ...) is a slot: point `fn` at a function of your own.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(preset: str = "cogvideox") -> ConfigDict:
    """The config of a preset."""
    presets = {"cogvideox": _cogvideox, "wan": _wan}
    if preset not in presets:
        raise ValueError(f"preset {preset!r} does not exist, expected one of {', '.join(presets)}")
    return presets[preset]()


def _cogvideox() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.max_failures = 3  # in a row, after which a step is given up until the next run
    config.skip_failed = False  # go on to the next step although some of this one's failed

    # The key is in the environment, in the variable that `key_variable` names, and nowhere else.
    config.client = dict(
        fn="dimo_jax.priors.client:open_endpoint",
        model="gpt-4o",  # the paper's
        base_url="",  # "": the environment's OPENAI_BASE_URL, or OpenAI
        key_variable="OPENAI_API_KEY",
        timeout=120.0,
        num_retries=5,
        num_repairs=2,
        temperature=1.0,
        max_tokens=0,
        response_format="json_object",
    )

    config.num_prompts = 50  # the paper's number of motions of an object
    config.round_size = 25  # motions asked for at once
    config.max_rounds = 8
    config.describe = dict(fn="dimo_jax.priors.prompts:describe_image")
    config.propose = dict(fn="dimo_jax.priors.prompts:propose_motions")
    config.deduplicate = dict(fn="dimo_jax.priors.prompts:find_duplicates", threshold=0.75)
    config.embed = dict(fn="dimo_jax.priors.prompts:bert_embeddings", folder="", pooling="auto")
    config.style = (
        "The camera is fixed and does not move, plain white background, the whole object stays in the picture"
    )

    config.image = dict(share=0.7)  # of the smaller side that the object takes in the first frame
    config.takes = 1  # videos of each motion
    config.video = dict(
        fn="dimo_jax.priors.video_models:image_to_video",
        pipeline="CogVideoXImageToVideoPipeline",
        model="THUDM/CogVideoX-5b-I2V",
        height=480,
        width=720,
        num_frames=49,
        frame_rate=8.0,
        num_steps=50,
        guidance=6.0,
        negative_prompt="",
        device="cuda",
        dtype="bfloat16",
        offload="model",
        tile_vae=True,
        max_tokens=226,
        call=dict(use_dynamic_cfg=True),
    )

    # None leaves an option to the function, so that another one can be put into the slot.
    config.mask = dict(
        fn="dimo_jax.priors.masks:color_key",  # or :given, or :rembg
        color=placeholder(tuple),
        tolerance=placeholder(float),
        folder=placeholder(str),
        model=placeholder(str),
        model_path=placeholder(str),
    )
    config.flow = dict(
        fn="dimo_jax.metrics.motion:measure_flow",  # or dimo_jax.priors.flow:raft
        weights=placeholder(str),
        size=placeholder(str),
        device=placeholder(str),
    )
    config.judge_motion = dict(
        fn="dimo_jax.priors.flow:judge_motion",
        least=0.03,  # picture heights a second
        most=1.5,
        max_jump=0.6,
        max_cropped=0.1,
    )
    config.score = dict(fn="dimo_jax.priors.score:rate_video", num_frames=6, max_side=512)  # fn="": not scored
    config.judge_points = dict(fn="dimo_jax.priors.score:judge_points", least_mean=3.5, least_each=2.0)

    config.framing = dict(size=576, num_frames=21, margin=0.05)  # what SV4D works with
    config.views = dict(
        fn="dimo_jax.priors.novel_views:sv4d",  # or :input_view_only
        checkout=placeholder(str),
        python=placeholder(str),
        model_path=placeholder(str),
        num_steps=placeholder(int),
        seed=placeholder(int),
        elevation=placeholder(float),
        encoding_t=placeholder(int),
        decoding_t=placeholder(int),
        timeout=placeholder(float),
        extra=placeholder(tuple),
    )
    config.camera = dict(radius=2.0, fov_deg=33.9)  # the authors' figures for SV4D's cameras

    config.estimate = dict(
        video_seconds=180.0,
        video_source="its model card, one A100",
        views_seconds=720.0,
        views_source="assumed, not measured",
        num_views=8,
    )
    return config


def _wan() -> ConfigDict:
    config = _cogvideox()
    config.video = dict(
        fn="dimo_jax.priors.video_models:image_to_video",
        pipeline="WanImageToVideoPipeline",
        model="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        height=480,
        width=832,
        num_frames=81,
        frame_rate=16.0,
        num_steps=50,
        guidance=5.0,
        negative_prompt="camera movement, cut, blurred, distorted, extra limbs, text, static picture",
        device="cuda",
        dtype="bfloat16",
        float32_parts=("vae", "image_encoder"),
        offload="model",
        tile_vae=False,
        max_tokens=512,
    )
    config.estimate.update(video_seconds=1200.0, video_source="assumed, not measured")
    return config
