"""The page of a run in headless Chromium: its size, how fast it is there, and how far its numbers are from the model's.

python -m bench.web --workdir=runs/demo
python -m bench.web --config=configs/dimo.py:paper --num_gaussians=100000     # untrained
python -m bench.web --workdir=runs/demo --pictures=docs/images                # and pictures of it

Draws with software (SwiftShader). Needs playwright and a Chromium.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from PIL import Image

from bench.view import CONFIG, NUM_GAUSSIANS, SECONDS, make_facts, random_state
from dimo_jax.core.types import Array
from dimo_jax.render.pipeline import composite
from dimo_jax.render.project import project
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.restore import Restored, restore
from dimo_jax.systems.dimo import model
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training import latents
from dimo_jax.views.web.half import measure_half
from dimo_jax.views.web.page import write_page

WORKDIR = flags.DEFINE_string("workdir", "", "A trained run")
PICTURES = flags.DEFINE_string("pictures", "", "Folder for pictures of the page")
SIZE = 256  # pixels
NUM_NUDGED = 40  # samples
HALF_STEP = 6e-8  # of float32, relative
FORMATS = {"RGBA32F": "", "RGBA16F": "['EXT_float_blend']"}
WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
WITHOUT = "const get = WebGL2RenderingContext.prototype.getExtension; WebGL2RenderingContext.prototype.getExtension = "
WITHOUT += "function (name) { return %s.includes(name) ? null : get.call(this, name); };"
# A new code every time, and a new time every time; milliseconds, the median.
COST = """(code) => { const costs = []; for (let i = 0; i < 9; i++) { const start = performance.now();
dimoPlayer.show(code ? {code: dimoPlayer.code().map(x => x + 1e-3)} : {time: Math.random() * 0.9});
costs.push(performance.now() - start); } return costs.sort((a, b) => a - b)[4]; }"""


def make_untrained(config: ConfigDict, num_gaussians: int) -> Restored:
    sizes = dict(num_motions=50, num_frames=21)
    state = random_state(config, num_gaussians=num_gaussians, **sizes)
    player = Player(config, model.build_components(config), state, num_frames=sizes["num_frames"])
    return Restored(player, make_facts(**sizes), int(state.step), config)


def choose_cases(run: Restored) -> Iterator[tuple[dict[str, Any], Array, int]]:
    """What `dimoPlayer.show` takes, the code that this means, and a frame."""
    player, count = run.player, len(run.trained_motions)
    for index in sorted({0, count // 2, count - 1}):
        for frame in sorted({0, run.num_frames // 2, run.num_frames - 1}):
            yield dict(motion=index), player.latent(int(run.trained_motions[index])), frame
    yield dict(sample=5), draw_codes(run, seed=5, num_samples=1)[0], run.num_frames // 3
    first, last = (player.latent(int(run.trained_motions[index])) for index in (0, count - 1))
    yield dict(morph=[0, count - 1, 0.4]), latents.interpolate_linear(first, last, 0.4), run.num_frames // 2


def compare(page: Any, run: Restored) -> str:
    """The largest difference of means, whether edges are equal, and how far pictures are from `render`'s."""
    find = jax.jit(model.find_neighbors, static_argnums=0)
    times, player = frame_times(run.num_frames), run.player
    equal, away, errors, psnrs, count = 0, 0.0, [], [], 0
    for what, z, frame in choose_cases(run):
        clip = player.play(z, times[frame : frame + 1])
        truth = player.film(clip.gaussians, run.camera(SIZE))[0]
        page.evaluate("what => dimoPlayer.show(what)", what | {"time": float(times[frame])})
        equal += np.array_equal(
            page.evaluate("dimoPlayer.edges()"), find(player.components, player.params, z, times).controls
        )
        means = np.asarray(page.evaluate("Array.from(dimoPlayer.means())")).reshape(-1, 3)
        away = max(away, float(np.abs(means - np.asarray(clip.gaussians.means[0])[player.alive]).max()))
        seen = np.asarray(page.evaluate(f"Array.from(dimoPlayer.pixels({SIZE}, {SIZE}))")).reshape(truth.shape)
        errors.append(np.abs(seen - truth).mean())
        psnrs.append(-10 * np.log10(np.mean(np.square(seen - truth)) + 1e-20))
        count += 1
    return (
        f"edges equal in {equal} of {count}, means within {away:.1e}, mean error of pixels at most {max(errors):.1e}, "
        f"PSNR {min(psnrs):.1f} to {max(psnrs):.1f} dB"
    )


def nudge_depths(run: Restored) -> str:
    """How far `render`'s own pictures move where depths do by at most half a step of float32, which no one can tell."""
    camera, times = run.camera(SIZE), frame_times(run.num_frames)
    psnrs = []
    for seed in range(NUM_NUDGED):
        z, shifts = draw_codes(run, seed=seed, num_samples=1)[0], np.random.default_rng(seed)
        clip = run.player.play(z, times[seed % 4 :: 4]).gaussians
        count = len(clip.means)
        for frame in range(count):
            # What all frames have in common has no axis of them.
            splats = project(jax.tree.map(lambda x, i=frame, n=count: x[i] if len(x) == n else x, clip), camera)
            moved = splats.depths * (1 + shifts.uniform(-HALF_STEP, HALF_STEP, splats.depths.shape).astype(np.float32))
            both = (splats, splats.replace(depths=moved))
            drawn = [composite(each, jnp.ones(3), height=SIZE, width=SIZE).rgb for each in both]
            psnrs.append(-10 * np.log10(np.mean(np.square(drawn[0] - drawn[1])) + 1e-20))
    changed = sum(value < 150 for value in psnrs)
    return (
        f"depths of `render` moved by at most {HALF_STEP:.0e}: {changed} of {len(psnrs)} pictures change, the worst to "
        f"{min(psnrs):.1f} dB, {sum(value < 75 for value in psnrs)} below 75"
    )


def take_pictures(browser: Any, path: Path, folder: Path) -> None:
    """The page on a desktop and on a phone, in light and dark."""
    for name, size, scheme in (("desktop", (1280, 800), "light"), ("phone", (390, 844), "dark")):
        how = dict(viewport=dict(width=size[0], height=size[1]), color_scheme=scheme, reduced_motion="reduce")
        page = browser.new_page(**how)
        page.goto(path.as_uri())
        page.evaluate("dimoPlayer.show({motion: Math.min(4, dimoPlayer.motions.length - 1), time: 0.45})")
        if name == "desktop":
            page.locator("#tracks").check()
            page.locator("#points").check()
            page.locator(".panel").evaluate("e => e.scrollTop = 0")
        page.wait_for_timeout(1500)
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.convert("RGB").save(folder / f"player_{name}.png", optimize=True)
        page.close()


def measure_new_codes(playwright: Any, options: list[str], path: Path, num_frames: int) -> str:
    """What a pose of a new code costs with and without WebGPU, its share of the motion graph included."""
    told = []
    for further in ([], WEBGPU):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*options, *further])
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(300_000)
        page.goto(path.as_uri())
        page.evaluate("dimoPlayer.ready")
        cost, began = sum_cpu_seconds(), time.perf_counter()
        for _ in range(2):
            page.evaluate("dimoPlayer.prepare({code: dimoPlayer.code().map(x => x + 1e-3 * Math.random())})")
        cost, took = (x / 2 / num_frames for x in (sum_cpu_seconds() - cost, time.perf_counter() - began))
        told.append(f"{page.evaluate('dimoPlayer.decoder')} {1e3 * took:.0f} ms ({1e3 * cost:.0f} ms of CPU time)")
        browser.close()
    return f"a pose of a new code, with its share of the graph: {', '.join(told)}"


def find_chromium() -> str | None:
    """A Chromium of this machine; None for Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def sum_cpu_seconds() -> float:
    """Of all programs that this one has started, directly or not, and that still run (Linux)."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        seconds[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    mine = {os.getpid()}
    while found := {child for child, parent in parents.items() if parent in mine} - mine:
        mine |= found
    return sum(seconds[pid] for pid in mine - {os.getpid()})


def main(argv: list[str]) -> None:
    del argv
    from playwright.sync_api import sync_playwright

    run = restore(WORKDIR.value) if WORKDIR.value else make_untrained(CONFIG.value, NUM_GAUSSIANS.value)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        start = time.process_time()
        path = write_page(run, Path(folder) / "player.html")
        cost = time.process_time() - start
        half = write_page(run, Path(folder) / "half.html", half=True)
        count, sizes = int(run.player.alive.sum()), [file.stat().st_size for file in (path, half)]
        print(f"{count} Gaussians: {sizes[0]:,} bytes, written in {cost:.1f} s of CPU time")
        print(f"with --half {sizes[1]:,} bytes, {measure_half(run):.1f} dB")
        options = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        print(nudge_depths(run))
        print(measure_new_codes(playwright, options, path, run.num_frames))
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options)
        for target, without in FORMATS.items():
            page = browser.new_page(viewport=dict(width=1100, height=700), reduced_motion="reduce")
            if without:
                page.add_init_script(WITHOUT % without)
            page.goto(path.as_uri())
            assert page.evaluate("dimoPlayer.target") == target
            print(f"{target}: {compare(page, run)}")
            page.close()
        firsts = []
        for _ in range(5):
            page = browser.new_page(viewport=dict(width=1100, height=700), reduced_motion="reduce")
            page.goto(path.as_uri())
            page.wait_for_timeout(500)
            firsts.append(page.evaluate("performance.getEntriesByName('first picture')[0].startTime"))
            page.close()
        print(
            f"first picture after {sorted(firsts)[2]:.0f} ms, the median of 5 ({min(firsts):.0f} to {max(firsts):.0f})"
        )
        page = browser.new_page(viewport=dict(width=1100, height=700), reduced_motion="reduce")
        page.goto(path.as_uri())
        page.evaluate(f"() => {{ const s = document.getElementById('stage').style; s.width = s.height = '{SIZE}px'; }}")
        page.evaluate("dimoPlayer.show({motion: 0})")
        costs = [page.evaluate(COST, code) for code in (True, False)]
        print(f"JavaScript: a new code and its first picture {costs[0]:.1f} ms, another time of it {costs[1]:.1f} ms")
        page.evaluate("dimoPlayer.play()")
        page.wait_for_timeout(1000)
        before, began, cost = page.evaluate("dimoPlayer.state.pictures"), time.perf_counter(), sum_cpu_seconds()
        page.wait_for_timeout(1000 * SECONDS.value)
        cost, count = sum_cpu_seconds() - cost, page.evaluate("dimoPlayer.state.pictures") - before
        rate = count / (time.perf_counter() - began)
        print(f"plays {rate:.1f} pictures a second of {SIZE} px, {1e3 * cost / count:.0f} ms of CPU time each")
        if PICTURES.value:
            take_pictures(browser, path, Path(PICTURES.value))
        browser.close()


if __name__ == "__main__":
    app.run(main)
