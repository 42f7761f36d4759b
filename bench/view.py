"""How often a second the viewer follows its sliders, with a client that reads everything; no picture is drawn.

python -m bench.view
python -m bench.view --config=configs/dimo.py:paper --num_gaussians=80000
"""

from __future__ import annotations

import importlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from bench.timing import median_ms
from dimo_jax.apps.view import build, import_viser
from dimo_jax.cameras.orbits import orbit
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo import model, stages
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.training.gaussians import uniform_in_ball
from dimo_jax.views.viewer.loop import Viewer
from dimo_jax.views.viewer.prompts import Prompts
from dimo_jax.views.viewer.session import Session

CONFIG = config_flags.DEFINE_config_file("config", "configs/dimo.py:demo", "Sizes of decoder, key points and latents")
NUM_GAUSSIANS = flags.DEFINE_integer("num_gaussians", 10_000, "Gaussians, all alive")
SECONDS = flags.DEFINE_float("seconds", 4.0, "How long each slider moves")
NUM_FRAMES = 21
SLIDER_RATE = 60  # moves a second, as a browser sends them


def random_state(
    config: ConfigDict, *, num_motions: int, num_frames: int, num_gaussians: int, seed: int = 0
) -> TrainState:
    """A state after training whose decoder moves a cloud of opaque Gaussians at random, about `num_gaussians`.

    `config.stage2.num_per_key_point` is set to fit.
    """
    config.stage2.num_per_key_point = -(-num_gaussians // config.num_key_points)
    last = stages.build_stages(config)[-1].span.last_step
    sizes = dict(num_motions=num_motions, num_frames=num_frames)
    state = stages.template(config, model.build_components(config), step=last, **sizes)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    keys = iter(jax.random.split(jax.random.key(seed), 100))

    def draw(leaf: jax.Array) -> jax.Array:
        width = leaf.shape[0] if leaf.ndim > 1 else 16
        return 0.7 * jax.random.normal(next(keys), leaf.shape) / np.sqrt(width)

    gaussians, key_points = state.params.gaussians, state.params.key_points
    count = len(gaussians.means)
    params = state.params.replace(
        latents=state.params.latents.replace(mu=jax.random.normal(next(keys), state.params.latents.mu.shape)),
        decoder=jax.tree.map(draw, state.params.decoder),
        key_points=key_points.replace(
            positions=0.4 * uniform_in_ball(next(keys), len(key_points.positions)),
            log_radii=jnp.full_like(key_points.log_radii, -4.0),
        ),
        gaussians=gaussians.replace(
            means=0.4 * uniform_in_ball(next(keys), count),
            log_scales=jnp.full_like(gaussians.log_scales, -3.5),
            quats=jnp.zeros_like(gaussians.quats).at[:, 0].set(1.0),
            logit_opacities=jnp.full_like(gaussians.logit_opacities, 2.0),
            sh=jax.random.normal(next(keys), gaussians.sh.shape),
        ),
    )
    if params.light is not None:
        params = params.replace(light=jnp.asarray([0.3, 0.8, 0.5]))
    return state.replace(params=params, alive=jnp.ones(count, bool), step=jnp.asarray(last, state.step.dtype))


def make_facts(*, num_motions: int, num_frames: int) -> dict[str, Any]:
    """What a run knows of its data, as `apps.restore.save_facts` writes it."""
    camera = orbit([30.0], 10.0, radius=2.0, fov_deg=33.9, height=64, width=64)
    return dict(
        object_name="cloud",
        names=[f"motion_{i}" for i in range(num_motions)],
        captions=[f"It moves in way {i}." for i in range(num_motions)],
        splits=["train"] * num_motions,
        num_frames=num_frames,
        frame_rate=10.0,
        camera=dict(
            world_to_camera=np.asarray(camera.world_to_camera)[0].tolist(),
            focal=np.asarray(camera.focal)[0].tolist(),
            center=np.asarray(camera.center)[0].tolist(),
            height=64,
            width=64,
        ),
    )


class Reader:
    """A client that reads whatever the server sends, and counts messages that hold a whole set of splats."""

    def __init__(self, server: Any, *, least_bytes: int) -> None:
        self.count, self.bytes, self._least = 0, 0, least_bytes
        connect = importlib.import_module("websockets.sync.client").connect
        version = importlib.import_module("viser").__version__
        address = f"ws://127.0.0.1:{server.get_port()}"
        self._socket = connect(address, subprotocols=[f"viser-v{version}"], max_size=None, compression=None)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for message in self._socket:
            self.bytes += len(message)
            self.count += len(message) >= self._least


def measure(viewer: Viewer, reader: Reader, move: Callable[[int], dict[str, Any]], *, seconds: float) -> str:
    """Moves a slider at `SLIDER_RATE` while the viewer's loop runs; says how many frames the client got."""
    steps = itertools.count()

    def update() -> None:
        viewer.choose(**move(next(steps)))
        viewer.update()

    cost = time.process_time()
    alone = median_ms(update, repeats=21)
    cost = 1e3 * (time.process_time() - cost) / next(steps)
    stop = threading.Event()
    loop = threading.Thread(target=viewer.run, args=(stop,))
    loop.start()
    count, size, start = reader.count, reader.bytes, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        viewer.choose(**move(next(steps)))
        time.sleep(1 / SLIDER_RATE)
    rate, megabytes = (reader.count - count) / elapsed, (reader.bytes - size) / elapsed / 1e6
    stop.set()
    loop.join()
    return (
        f"{alone:6.1f} ms an update by itself ({cost:.1f} ms of processor time); the client gets {rate:5.1f} a second "
        f"({megabytes:.1f} MB/s)"
    )


def main(_: list[str]) -> None:
    viser, config = import_viser(), CONFIG.value
    sizes = dict(num_motions=8, num_frames=NUM_FRAMES)
    state = random_state(config, num_gaussians=NUM_GAUSSIANS.value, **sizes)
    player = Player(config, model.build_components(config), state, num_frames=NUM_FRAMES)
    start = time.perf_counter()
    session = Session(Restored(player, make_facts(**sizes), step=0, config=config))
    print(
        f"{len(session.opacities):,} Gaussians, {config.num_key_points} key points, decoder {config.decoder.depth} x "
        f"{config.decoder.width}, {jax.devices()[0].device_kind}; compiled in {time.perf_counter() - start:.1f} s"
    )
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        viewer = build(server, session, Prompts(session.model, Path(folder)), out=Path(folder), size=512)
        viewer.choose(target=list(session.sources.values())[1])
        viewer.update()
        reader = Reader(server, least_bytes=32 * len(session.opacities))
        for name, move in (
            ("frame", lambda i: dict(frame=float(0.1 * i % (NUM_FRAMES - 1)))),
            ("share", lambda i: dict(share=0.01 * (i % 100))),
        ):
            print(f"{name} slider: {measure(viewer, reader, move, seconds=SECONDS.value)}")
        server.stop()


if __name__ == "__main__":
    app.run(main)
