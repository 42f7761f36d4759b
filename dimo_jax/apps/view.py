"""`--app=view`: a trained model in the browser, played, mixed, drawn and asked for; or an object with joints, moved.

Of a rig's motion space it shows the model itself, and writes what is shown into its file.
"""

from __future__ import annotations

import importlib
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.cli.parameters import read_app
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_use
from dimo_jax.io.articulated_read import Written, is_articulated, read_articulated
from dimo_jax.runs.choice import Checkpoint
from dimo_jax.runs.restore import restore, run_folder
from dimo_jax.runs.rig_motions import Chosen
from dimo_jax.runs.rigs import is_rig_space, restore_rig
from dimo_jax.training.config_file import load_config
from dimo_jax.views.viewer.joints import JointsPanel, JointsView
from dimo_jax.views.viewer.loop import Viewer
from dimo_jax.views.viewer.panel import Panel
from dimo_jax.views.viewer.prompts import Prompts
from dimo_jax.views.viewer.rig_panel import RigPanel
from dimo_jax.views.viewer.rig_scene import RigScene
from dimo_jax.views.viewer.rig_session import RigChoices, RigFrame, RigSession
from dimo_jax.views.viewer.scene import Scene
from dimo_jax.views.viewer.session import Choices, Frame, Motion, Session
from dimo_jax.views.viewer.source_mesh import SourceMesh

FIRST_PORT = 8080
OF_PICTURES = ("size", "source", "hide", "repair", "dataset")  # flags that mean nothing with a run without pictures
OF_A_RUN = ("out", "bert", "checkpoint", *OF_PICTURES)  # nor with an articulated object
Serve = Callable[[threading.Event], None]  # serves until the event is set


def run(
    *,
    workdir: str,
    host: str = "127.0.0.1",
    port: int = 0,
    out: str = "",
    bert: str = "",
    size: int = 512,
    checkpoint: Checkpoint = "last",
    source: str = "",
    hide: str = "",
    repair: bool = False,
    dataset: str = "",
) -> None:
    """Serves an interactive viewer of what is in `workdir` until it is interrupted; prints its address.

    Of a training run it shows its motions, of a rig's motion space the model with its skeleton, posed by them, of an
    articulated object a slider for every joint and the ranked joints.

    Args:
      workdir: folder of a training run, or one that --app=articulate wrote.
      host: address to listen on. Who reaches it can use every control, so the default is this machine alone.
      port: to listen on; default: the first free one from 8080 on.
      out: folder for exports, of a rig for its file with clips more; default: `workdir`/view.
      bert: folder of a Hugging Face BERT for prompts; default as for `--app=text`.
      size: height in pixels of exported videos, of a run that has pictures.
      checkpoint: "last", or "best" as training batches went. It and the three before are of training runs.
      source: of a run that has pictures, as the flags that follow: the .glb or .gltf file that its dataset was imported
        from, to export its mesh.
      hide: with `source`, nodes left out at the import, by name or pattern, separated by commas.
      repair: with `source`, whether it was imported with it.
      dataset: with `source`, the folder of the run's dataset, where it is not where training found it.

    Example:
      python launch.py --app=view --workdir=runs/dimo

    Raises:
      UserError: viser is not installed, the address cannot be listened on, bad flags, or no finished run there.
    """
    given = dict(locals())
    viser = import_viser()
    check_flags("view", given)
    if is_articulated(Path(workdir)):
        parameters = read_app("view").parameters
        check_use(given, {name: parameters[name].default for name in OF_A_RUN}, needs="a training run")
        written = read_articulated(Path(workdir))
        _check_address(host, port)
        _serve(viser, host, port, lambda server: build_joints(server, written))
        return
    target = Path(out) if out else run_folder(workdir) / "view"  # may be read-only as long as nothing is exported
    if Path(workdir).is_dir() and is_rig_space(load_config(Path(workdir))):
        check_use(given, {name: read_app("view").parameters[name].default for name in OF_PICTURES}, needs="pictures")
        run_of_rig = restore_rig(workdir, checkpoint=checkpoint)
        _check_address(host, port)
        rig, asked = RigSession(run_of_rig, Path(workdir)), Prompts(run_of_rig, Path(workdir), bert=bert)
        _serve(viser, host, port, lambda server: build_rig(server, rig, asked, out=target, plays=True).run)
        return
    model = restore(Path(workdir), checkpoint=checkpoint)
    _check_address(host, port)
    session = Session(model)

    mesh = SourceMesh(model, Path(workdir), source=source, hide=hide, repair=repair, dataset=dataset)

    def start(server: Any) -> Serve:
        prompts = Prompts(model, Path(workdir), bert=bert)
        return build(server, session, prompts, out=target, size=size, mesh=mesh, plays=True).run

    _serve(viser, host, port, start)


def _serve(viser: Any, host: str, port: int, start: Callable[[Any], Serve]) -> None:
    """Starts a server, lets `start` fill it, says where it is, and runs what that gives until it is interrupted."""
    server = viser.ViserServer(host=host, port=port or FIRST_PORT, verbose=False)
    try:
        serve = start(server)
        shown_host = "localhost" if host in ("0.0.0.0", "::") else host
        print(f"the viewer is at http://{shown_host}:{server.get_port()}, Ctrl-C ends it", flush=True)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first, unless told
            signal.signal(number, lambda *_: stop.set())
        serve(stop)
        logging.info("the viewer has ended")
    finally:
        server.stop()


def build_joints(server: Any, written: Written) -> Serve:
    """Fills a `viser.ViserServer` with an articulated object; its own threads serve the sliders."""
    JointsPanel(server, JointsView(written))

    def serve(stop: threading.Event) -> None:
        stop.wait()

    return serve


def build_rig(server: Any, session: RigSession, prompts: Prompts, *, out: Path, plays: bool = False) -> Viewer:
    """Fills a `viser.ViserServer` with a rig and the controls of its motion space, as `build` does with a model."""
    scene = RigScene(server, session)

    def show(motion: Chosen, frame: RigFrame, choices: RigChoices) -> None:
        with server.atomic():
            scene.show(frame, choices)
            panel.follow(choices)

    viewer = Viewer(session, show)
    viewer.choose(playing=plays)
    panel = RigPanel(server, viewer, prompts, out=out)
    return viewer


def build(
    server: Any,
    session: Session,
    prompts: Prompts,
    *,
    out: Path,
    size: int,
    mesh: SourceMesh | None = None,
    plays: bool = False,
) -> Viewer:
    """Fills a `viser.ViserServer` with the scene and the controls of a model, and gives the loop that serves them.

    The first motion plays at once with `plays`; else it stands.
    """
    scene = Scene(server, session)

    def show(motion: Motion, frame: Frame, choices: Choices) -> None:
        with server.atomic():
            scene.show(motion, frame, choices)
            panel.follow(choices)

    viewer = Viewer(session, show)
    viewer.choose(playing=plays)
    panel = Panel(server, viewer, prompts, out=out, size=size, mesh=mesh)
    return viewer


def import_viser() -> Any:
    """The package `viser`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("viser")
    except ImportError as error:
        raise UserError(
            "--app=view: package viser not found, expected it installed (pip install 'dimo_jax[view]')"
        ) from error


def _check_address(host: str, port: int) -> None:
    """Checks that a port given by the user is free: viser would take the next one without a word."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError(
            f"--host={host} --port={port}: cannot listen there ({error.strerror}), expected an address of this machine "
            "and a free port"
        ) from error
