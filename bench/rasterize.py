"""Times the rasterizer's backends on three random scenes (bench/scenes.py), checking first that their pictures agree.

    python -m bench.rasterize                          # every backend that runs here
    taskset -c 0 python -m bench.rasterize             # one core, for XLA too
    python -m bench.rasterize --backends=native --threads=1,2 --batch=8
    python -m bench.rasterize --peers                  # beside splax and gsplat, where they are installed (CUDA)

Milliseconds, the median of --repeats runs. "project" is the projection alone, "bin" the lists of tiles (a part of
"forward"; native bins inside its calls), "forward" and "both" the compositing of given splats without and with its
derivative, "backward" their difference, "render" projection and compositing with all derivatives. The last columns are
pictures a second for a batch of cameras in one call, and the memory that XLA sets aside for "render".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bench.peers import PEERS
from bench.scenes import SCENES, make_cameras, make_gaussians
from bench.timing import compile_for, count_memory, median_ms
from dimo_jax.core.types import Camera, Gaussians, Splats
from dimo_jax.render import measure_capacity, project, render, tiles
from dimo_jax.render.rasterize import api
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.memory import keep_freed_memory

SCENE_NAMES = flags.DEFINE_list("scenes", list(SCENES), "which scenes")
BACKENDS = flags.DEFINE_list("backends", [], "which backends; default: all that run here, pallas on GPUs only")
REPEATS = flags.DEFINE_integer("repeats", 9, "runs; the median counts")
BATCH = flags.DEFINE_integer("batch", 24, "cameras in one call; 0 leaves the batch out")
BATCH_REPEATS = flags.DEFINE_integer("batch_repeats", 3, "runs of the batch")
THREADS = flags.DEFINE_list("threads", [], "numbers of threads for native, one table row each; default: all")
WITH_PEERS = flags.DEFINE_bool("peers", False, "time peers on the same scenes")
# Thresholds are met in a different order of rounding; a pixel at one may differ by a Gaussian's 1/255.
TOLERANCE, JUMP = 1e-4, 2e-2


def choose_backends() -> list[str]:
    """The backends asked for, or those that run here at their own speed."""
    if BACKENDS.value:
        return [api.choose_backend(name) for name in BACKENDS.value]
    names = [name for name in api.BACKENDS if api.why_unavailable(name) is None]
    return [name for name in names if name != "pallas" or jax.default_backend() == "gpu"]


def with_derivative(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's value and its derivative by the first argument, for cotangents of ones."""

    def both(first: Any, *rest: Any) -> Any:
        outputs, pull = jax.vjp(lambda x: function(x, *rest), first)
        return outputs, pull(jax.tree.map(jnp.ones_like, outputs))[0]

    return both


def check_pictures(name: str, picture: np.ndarray, reference: np.ndarray) -> None:
    """Ends the run where two pictures of one scene differ by more than rounding at a few pixels."""
    error = np.abs(picture - reference).max(axis=-1)
    share = float((error > TOLERANCE).mean())
    if error.max() > JUMP or share > 1e-3:
        raise SystemExit(
            f"{name}: differs by up to {error.max():.2g}, at {share:.2%} of the pixels by over {TOLERANCE}"
        )


def measure_scene(name: str, backend: str, camera: Camera, gaussians: Gaussians) -> tuple[list[str], np.ndarray]:
    """One row of the table, and the picture."""
    side, repeats = SCENES[name][1], REPEATS.value
    splats = jax.block_until_ready(jax.jit(lambda g: project(g, camera))(gaussians))
    capacity = measure_capacity(splats, height=side, width=side, implementation=backend)
    size: dict[str, Any] = dict(height=side, width=side, capacity=capacity)

    def composite(splats: Splats) -> Any:
        return api.rasterize(splats, implementation=backend, **size)[:2]

    def draw(gaussians: Gaussians, camera: Camera) -> Any:
        picture = render(gaussians, camera, jnp.ones(3), implementation=backend, capacity=capacity)
        return picture.rgb, picture.alpha, picture.depth, picture.normal

    bin_ms = "in forward"
    if backend != "native":
        tile = getattr(api.load_backend(backend), "TILE", api.DEFAULT_TILE)
        binned = compile_for(lambda s: tiles.bin_splats(s, tile=tile, **size), splats)
        bin_ms = f"{median_ms(binned, splats, repeats=repeats):.1f}"
    times = {
        "project": (compile_for(lambda g: project(g, camera), gaussians), gaussians),
        "forward": (compile_for(composite, splats), splats),
        "both": (compile_for(with_derivative(composite), splats), splats),
    }
    ms = {part: median_ms(call, argument, repeats=repeats) for part, (call, argument) in times.items()}
    whole = compile_for(with_derivative(draw), gaussians, camera)
    ms["render"] = median_ms(whole, gaussians, camera, repeats=repeats)
    check_room(f"{name} {backend}", partial(render, gaussians, implementation=backend, capacity=capacity), name)
    rates = measure_batch(name, draw, gaussians) if BATCH.value else ["-", "-"]
    row = [f"{ms['project']:.1f}", bin_ms, f"{ms['forward']:.1f}", f"{ms['both'] - ms['forward']:.1f}"]
    row += [f"{ms['both']:.1f}", f"{ms['render']:.1f}", *rates, f"{count_memory(whole):.0f}"]
    return row, np.asarray(jax.jit(draw)(gaussians, camera)[0])


def check_room(label: str, draw: Callable[..., Any], scene: str) -> None:
    """Ends the run where a picture lacks Gaussians: its time would be that of another scene."""
    cameras = make_cameras(scene, max(BATCH.value, 1))
    missing = int(jax.jit(jax.vmap(lambda camera: draw(camera, jnp.ones(3)).overflow))(cameras).sum())
    if missing:
        raise SystemExit(f"{label}: {missing} Gaussian-tile pairs found no room in the pictures that are timed")


def measure_batch(name: str, draw: Callable[..., Any], gaussians: Gaussians) -> list[str]:
    """Pictures a second for a batch of cameras, without and with derivatives."""
    cameras, count = make_cameras(name, BATCH.value), BATCH.value
    batched = jax.vmap(draw, in_axes=(None, 0))
    rates = []
    for function in (batched, with_derivative(batched)):
        call = compile_for(function, gaussians, cameras)
        rates.append(f"{1e3 * count / median_ms(call, gaussians, cameras, repeats=BATCH_REPEATS.value):.1f}")
    return rates


def main(argv: list[str]) -> None:
    del argv
    if BACKENDS.value == ["native"]:
        leave_reductions_to_xla()  # as launch.py does; xla would be slower for it
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} CPU cores")
    titles = ["project", "bin", "forward", "backward", "both", "render", f"{BATCH.value}: fwd/s", "both/s", "MiB"]
    print(f"{'scene':8s} {'backend':12s} " + " ".join(f"{title:>10s}" for title in titles))
    for name in SCENE_NAMES.value:
        gaussians, pictures = make_gaussians(name), list[np.ndarray]()
        camera = jax.tree.map(lambda x: x[0], make_cameras(name, 1))
        for backend in choose_backends():
            for threads in THREADS.value if backend == "native" and THREADS.value else [""]:
                os.environ["DIMO_JAX_NUM_THREADS"] = threads
                row, picture = measure_scene(name, backend, camera, gaussians)
                pictures.append(picture)
                check_pictures(f"{name} {backend}", picture, pictures[0])
                label = f"{backend} x{threads}" if threads else backend
                print(f"{name:8s} {label:12s} " + " ".join(f"{value:>10s}" for value in row), flush=True)
        for peer, run in PEERS.items() if WITH_PEERS.value else ():
            try:
                result = run(gaussians, camera, REPEATS.value)
            except (ImportError, RuntimeError) as error:
                print(f"{name:8s} {peer:12s} does not run here: {next(iter(str(error).splitlines()), error)}")
                continue
            check_pictures(f"{name} {peer}", result.picture, pictures[0])
            row = ["-", "-", "-", "-", "-", f"{result.both_ms:.1f}"]
            print(f"{name:8s} {peer:12s} " + " ".join(f"{v:>10s}" for v in row) + f"   forward {result.forward_ms:.1f}")


if __name__ == "__main__":
    keep_freed_memory()  # as launch.py does
    app.run(main)
