"""The apps of `launch.py --app=` and their flags."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from absl import flags

from dimo_jax.core.errors import UserError

NAMES = (
    "train",
    "sample",
    "interpolate",
    "reconstruct",
    "text",
    "import_data",
    "distill",
    "evaluate",
    "view",
    "export",
    "status",
    "replay",
    "animate",
)
APPS = {name: f"dimo_jax.apps.{name}" for name in NAMES}


def define_flags() -> None:
    """Flags of single apps, None until the user sets them; one that an app does not take is refused when it runs."""
    flags.DEFINE_string(
        "object_list", None, "train: file that names a dataset folder, and a name for it, on every line"
    )
    flags.DEFINE_string(
        "shard", None, "train: I/N, to train every N-th object of --object_list from the I-th (0...) on"
    )
    flags.DEFINE_string(
        "source",
        None,
        "import_data: a glTF file or a folder; export: a .glb or .gltf file; reconstruct: a dataset folder",
    )
    flags.DEFINE_string(
        "poses", None, "animate: folder with pose-map videos or 2D joints of several views, and cameras.json"
    )
    flags.DEFINE_float("smooth", None, "animate: weight of smoothness in time, against points seen")
    flags.DEFINE_bool(
        "overwrite", None, "apps that write results: replace those of the same names, which else get a number"
    )
    flags.DEFINE_string("out", None, "import_data: the folder to write; others: the folder for their results")
    flags.DEFINE_string("check", None, "import_data: a dataset folder to look for mistakes in, instead of importing")
    flags.DEFINE_enum(
        "matte",
        None,
        ["auto", "alpha", "masks", "key", "none"],
        "import_data: what makes a video's background transparent",
    )
    flags.DEFINE_string("key_color", None, "import_data: the background's colour, such as white, #00ff00, or auto")
    flags.DEFINE_float("key_tolerance", None, "import_data: how far from that colour, of 255, the background may be")
    flags.DEFINE_bool("key_enclosed", None, "import_data: also remove that colour where the object encloses it")
    flags.DEFINE_string(
        "up", None, "import_data: what is up for the cameras: x, y, z, -x, -y, -z, cameras, or auto (as they see it)"
    )
    flags.DEFINE_string("framing", None, "import_data: a dataset of the same source, to scale and place as it is")
    flags.DEFINE_string("dataset", None, "import_data, export: folder of the data that a model was trained on")
    flags.DEFINE_integer("step", None, "import_data: of the authors' model; replay: whose batch was saved")
    flags.DEFINE_string("clips", None, "import_data: clips by name or pattern, separated by commas")
    flags.DEFINE_string("test_clips", None, "import_data: clips kept from training, likewise")
    flags.DEFINE_string(
        "hide", None, "import_data, export: nodes to leave out, by name or pattern, separated by commas"
    )
    flags.DEFINE_string(
        "azimuths",
        None,
        "import_data: degrees of the cameras that train; sample, interpolate, export: the orbit, as FROM,TO",
    )
    flags.DEFINE_integer("num_views", None, "import_data: so many cameras evenly around, instead of --azimuths")
    flags.DEFINE_string("test_azimuths", None, "import_data: degrees of the cameras held out")
    flags.DEFINE_float(
        "elevation", None, "import_data, sample, interpolate, export: degrees of the cameras above the horizon"
    )
    flags.DEFINE_float("radius", None, "import_data: distance of the cameras")
    flags.DEFINE_float("fov_deg", None, "import_data: field of view in degrees")
    flags.DEFINE_float("margin", None, "import_data: share of the picture that stays free at each border")
    flags.DEFINE_integer("samples", None, "import_data: samples a pixel along each axis")
    flags.DEFINE_enum("root_motion", None, ["keep", "remove"], "import_data: keep or remove the figure's travel")
    flags.DEFINE_bool("repair", None, "import_data, export: settle what is no number in a model, such as NaN weights")
    flags.DEFINE_bool("loop", None, "import_data: whether the clips repeat")
    flags.DEFINE_integer("num_surface_points", None, "import_data: true surface points to keep")
    flags.DEFINE_bool("double_sided", None, "import_data: draws both sides of every surface of a glTF model")
    flags.DEFINE_integer("num_workers", None, "import_data: processes that render (0: one a core)")
    flags.DEFINE_integer("num_frames", None, "import_data, sample, interpolate, text, export: frames of every video")
    flags.DEFINE_integer(
        "size", None, "import_data, sample, interpolate, text, view, export: side of the pictures in pixels"
    )
    flags.DEFINE_integer("num_samples", None, "sample, evaluate, export: how many motions to draw")
    flags.DEFINE_integer("seed", None, "sample, reconstruct, evaluate, export: random seed")
    flags.DEFINE_enum(
        "prior", None, ["data", "standard"], "sample, export: Gaussian fitted to the training codes, or N(0, I)"
    )
    flags.DEFINE_string("around", None, "sample, export: name of a training motion to vary")
    flags.DEFINE_float("spread", None, "sample, export: width of the draw around it, 1 being the prior's")
    flags.DEFINE_string("motions", None, "interpolate, export: names of training motions, separated by commas")
    flags.DEFINE_enum("path", None, ["linear", "spherical"], "interpolate, export: the line between codes")
    flags.DEFINE_integer("num_steps", None, "interpolate: columns from a motion to the next, both counted")
    flags.DEFINE_string("motion", None, "reconstruct, export: names of motions, separated by commas")
    flags.DEFINE_string("views", None, "reconstruct: indices of the views to fit, separated by commas")
    flags.DEFINE_integer("steps", None, "reconstruct: steps of the latent code")
    flags.DEFINE_enum("start", None, ["nearest", "mean"], "reconstruct: the training code to start from")
    flags.DEFINE_integer("finetune_decoder", None, "reconstruct: steps of the decoder's copy, afterwards")
    flags.DEFINE_integer("fit_size", None, "reconstruct: height of the pictures that are fitted")
    flags.DEFINE_float("frame_rate", None, "import_data, sample, interpolate, export: frames a second of the videos")
    flags.DEFINE_enum("camera", None, ["fixed", "orbit"], "sample, interpolate, export: the data's camera, or an orbit")
    flags.DEFINE_string("prompt", None, "text, export: what the object shall do, such as 'waves the left hand'")
    flags.DEFINE_string(
        "bert", None, "text, view, export: folder of a Hugging Face BERT; default: all-MiniLM-L6-v2, fetched once"
    )
    flags.DEFINE_enum(
        "evaluate_captions", None, ["held_out", "leave_one_out"], "text: the sentences to evaluate instead of a prompt"
    )
    flags.DEFINE_string("gt", None, "evaluate: folder of true pictures, <object>/eval_<view>/<frame>.png")
    flags.DEFINE_string("pred", None, "evaluate: folder of pictures to score, in the same layout")
    flags.DEFINE_string("clip", None, "evaluate: Hugging Face CLIP folder (config.json, model.safetensors)")
    flags.DEFINE_integer("num_lpips_images", None, "evaluate: about so many images for LPIPS (0: all)")
    flags.DEFINE_enum(
        "checkpoint",
        None,
        ["last", "best"],
        "apps that read a run: its latest state, or the one that did best on training batches",
    )
    flags.DEFINE_integer("num_videos", None, "evaluate: about so many videos for FVD (0: all)")
    flags.DEFINE_string("image", None, "distill: the picture of the object")
    flags.DEFINE_string("prompts", None, "distill: text file with a motion a line, instead of a language model's")
    flags.DEFINE_bool("dry_run", None, "distill: only print the plan, what it costs, and what is missing")
    flags.DEFINE_string("host", None, "view: address to listen on; default: this machine alone")
    flags.DEFINE_integer("port", None, "view: port to listen on; default: the first free one from 8080 on")
    flags.DEFINE_string(
        "format", None, "export: ply, splat, gltf, glb, mesh, video, npz, checkpoint, separated by commas"
    )
    flags.DEFINE_string("code", None, "export: an npz with latent codes z, as reconstruct writes them")
    flags.DEFINE_float("share", None, "export: place between --motions, 0 to 1; without it the motion morphs")
    flags.DEFINE_integer("frame", None, "export: the one frame to write as ply, splat or gltf")
    flags.DEFINE_enum("geometry", None, ["ellipsoids", "points"], "export: what stands for Gaussians in a glb")
    flags.DEFINE_integer("influences", None, "export: key points that move a vertex of glb or mesh at most, 4 or 8")
    flags.DEFINE_string("layers", None, "export: pictures of video: color, key_points, depth, normals")
    flags.DEFINE_enum("container", None, ["mp4", "gif", "png"], "export: of video; png has alpha")
    flags.DEFINE_string("background", None, "export: R,G,B in 0..1 behind a video")


def options_of(parameters: Mapping[str, Any], **common: Any) -> dict[str, Any]:
    """Keyword arguments for an app: its defaults, those of `common` that it takes, and the flags that the user set.

    Args:
      parameters: from `parameters.parameters_of`.
      common: values of the flags that `launch.py` defines itself.

    Raises:
      UserError: a flag was given that the app does not take, or one that it needs is missing.
    """
    options = dict(parameters) | {name: value for name, value in common.items() if name in parameters}
    own = flags.FLAGS.flags_by_module_dict().get(__name__, [])
    for flag in (*own, *(flags.FLAGS[name] for name in common)):
        if flag.present and flag.name not in parameters:
            takes = ", ".join(f"--{name}" for name in parameters)
            raise UserError(f"--{flag.name}: found a flag that this app does not take, expected some of {takes}")
    options |= {flag.name: flag.value for flag in own if flag.value is not None}
    for name, default in parameters.items():
        if default is inspect.Parameter.empty and (options[name] is None or options[name] is default):
            raise UserError(f"--{name}: not given, expected --{name}=..., which this app needs")
    return options
