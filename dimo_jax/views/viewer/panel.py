"""The viewer's controls: viser widgets whose callbacks change the choices. All who watch share them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from dimo_jax.runs.codes import LINES
from dimo_jax.views.viewer.exports import EXPORTS, Shot, camera_of, export
from dimo_jax.views.viewer.loop import Viewer
from dimo_jax.views.viewer.notices import Notice, plain
from dimo_jax.views.viewer.prompts import Prompts
from dimo_jax.views.viewer.session import LAYERS
from dimo_jax.views.viewer.source_mesh import SourceMesh

AXIS_RANGE = 3.0  # standard deviations to both sides


class Panel:
    """Widgets in folders: motion, time, blend, latent axes, new motions, what is shown, export."""

    def __init__(
        self, server: Any, viewer: Viewer, prompts: Prompts, *, out: Path, size: int, mesh: SourceMesh | None = None
    ) -> None:
        """`server` is a `viser.ViserServer`; exports go to `out`, videos are `size` pixels high."""
        self._mesh = mesh
        self._gui, self._viewer, self._prompts, self._out, self._size = server.gui, viewer, prompts, out, size
        self._next_seed = 0
        # Callbacks come from several threads: each reads its widgets and changes the choices in one go.
        self._lock = threading.RLock()
        self._followed = False  # whether the frame's slider has been moved by a motion that plays
        server.gui.configure_theme(control_layout="fixed", show_logo=False, show_share_button=False)
        server.gui.set_panel_label(f"dimo_jax: {viewer.session.model.facts['object_name']}")
        self._title = server.gui.add_markdown("")
        self._axes: list[Any] = []
        for add in self._parts():
            add()

    def _parts(self) -> tuple[Callable[[], None], ...]:
        """What adds the folders, in their order."""
        return self._add_motion, self._add_new, self._add_blend, self._add_axes, self._add_show, self._add_export

    def follow(self, choices: Any) -> None:
        """Says what is shown; the frame's slider follows a motion that plays."""
        words = choices.source.words if choices.share == 0 and not any(choices.offsets) else ""
        self._title.content = f"**{plain(self._viewer.session.describe(choices))}**  \n{plain(words)}"
        if choices.playing or self._followed:
            self._frame.value = round(min(choices.frame, self._frame.max), 1)
        self._followed = choices.playing

    def _bind(self, widget: Any, choose: Callable[[Any], dict[str, Any]]) -> None:
        """Lets a widget that a visitor moves change the choices; what the program sets itself changes nothing."""

        @widget.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                with self._lock:
                    self._viewer.choose(**choose(widget.value))

    def _add_motion(self) -> None:
        gui, last = self._gui, self._viewer.session.num_frames - 1
        with gui.add_folder("Motion"):
            self._sources = gui.add_dropdown("Motion", tuple(self._viewer.session.sources))
            self._play = gui.add_checkbox("Play", self._viewer.choices.playing)
            self._frame = gui.add_slider("Frame", 0.0, float(last), 0.1, 0.0)
            speed = gui.add_slider("Speed", 0.1, 2.0, 0.1, 1.0)

        @self._sources.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                self._begin(self._viewer.session.sources[self._sources.value])

        @self._frame.on_update
        def _(event: Any) -> None:
            if event.client is not None:  # who scrubs has taken over
                with self._lock:
                    self._viewer.choose(frame=float(self._frame.value), playing=False)
                    self._play.value = False

        self._bind(self._play, lambda value: dict(playing=value))
        self._bind(speed, lambda value: dict(speed=value))

    def _begin(self, source: Any) -> None:
        """Shows a motion as it is: whatever leads away from it goes back to 0."""
        with self._lock:
            self._share.value = 0.0
            for slider in self._axes:
                slider.value = 0.0
            self._viewer.choose(source=source, share=0.0, offsets=(0.0,) * len(self._axes))

    def _ask(self, prompt: str) -> Any:
        """The motion of a sentence."""
        return self._prompts.make(prompt)

    def _begin_new(self, source: Any) -> None:
        sources = self._viewer.session.sources
        with self._lock:
            self._viewer.session.add(source)
            self._sources.options = self._targets.options = tuple(sources)
            self._sources.value = source.label
            self._begin(source)

    def _add_new(self) -> None:
        with self._gui.add_folder("New motion"):
            sample = self._gui.add_button("Random sample", hint="A draw from the latent space")
            with self._gui.add_form(None) as form:
                prompt = self._gui.add_text("Prompt", "", hint="What the object shall do")
                make = self._gui.add_button("Make it move")

        @sample.on_click
        def _(event: Any) -> None:
            del event
            with self._lock:
                seed, self._next_seed = self._next_seed, self._next_seed + 1
            self._begin_new(self._viewer.session.draw(seed))

        def answer(event: Any) -> None:
            with Notice(event.client, "Reading the prompt", "The first one takes some seconds."):
                self._begin_new(self._ask(prompt.value))

        make.on_click(answer)
        form.on_submit(answer)

    def _add_blend(self) -> None:
        session = self._viewer.session
        with self._gui.add_folder("Interpolate"):
            self._targets = self._gui.add_dropdown("Towards", tuple(session.sources))
            self._share = self._gui.add_slider("Share", 0.0, 1.0, 0.01, 0.0)
            line = self._gui.add_dropdown("Line", tuple(LINES), hint="The line between the two codes")
        self._bind(self._targets, lambda label: dict(target=session.sources[label]))
        self._bind(self._share, lambda value: dict(share=float(value)))
        self._bind(line, lambda value: dict(line=value))

    def _add_axes(self) -> None:
        with self._gui.add_folder("Latent axes", visible=bool(self._viewer.session.axis_shares)):
            for number, share in enumerate(self._viewer.session.axis_shares, 1):
                hint = f"Standard deviations along principal axis {number}: {share:.0%} of the codes' variance"
                slider = self._gui.add_slider(f"Axis {number}", -AXIS_RANGE, AXIS_RANGE, 0.05, 0.0, hint=hint)
                self._axes.append(slider)
            reset = self._gui.add_button("Reset axes", hint="Back to the motion itself")
        for slider in self._axes:
            self._bind(slider, lambda _: dict(offsets=tuple(float(each.value) for each in self._axes)))

        @reset.on_click
        def _(event: Any) -> None:
            del event
            with self._lock:
                for slider in self._axes:
                    slider.value = 0.0
                self._viewer.choose(offsets=(0.0,) * len(self._axes))

    def _add_show(self) -> None:
        with self._gui.add_folder("Show"):
            boxes = {layer: self._gui.add_checkbox(layer, layer == LAYERS[0]) for layer in LAYERS}
            opacity = self._gui.add_slider("Opacity", 0.0, 1.0, 0.05, 1.0, hint="Of the Gaussians")
        for box in boxes.values():
            self._bind(box, lambda _: dict(layers=frozenset(layer for layer, each in boxes.items() if each.value)))
        self._bind(opacity, lambda value: dict(opacity=float(value)))

    def _add_export(self) -> None:
        with self._gui.add_folder("Export"):
            kind = self._gui.add_dropdown("What", tuple(EXPORTS))
            button = self._gui.add_button("Export", hint="Writes a file beside the run, and offers it for download")

        @button.on_click
        def _(event: Any) -> None:
            with Notice(event.client, "Exporting", f"{kind.value}, in a moment.") as notice:
                path = export(self._shot(event.client), kind.value, self._out)
                logging.info("wrote %s", path)
                notice.say("Exported", str(path))
                event.client.send_file_download(path.name, path.read_bytes())

    def _shot(self, client: Any) -> Shot:
        """What this visitor sees; videos stand as high as `size`."""
        session, choices = self._viewer.session, self._viewer.choices
        view = client.camera
        camera = camera_of(view.position, view.wxyz, fov=view.fov, aspect=view.aspect, height=self._size)
        return Shot(session.model, session.code(choices), choices, session.describe(choices), camera, self._mesh)
