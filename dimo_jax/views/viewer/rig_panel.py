"""The controls of a rig's motion space: those of the viewer, time in seconds, and its motions into the model's file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import to_file_name
from dimo_jax.runs.rig_files import open_source, write_animations
from dimo_jax.runs.rig_motions import Chosen, Wishes, play, read_known
from dimo_jax.runs.rigs import read_own_clips
from dimo_jax.runtime.naming import free_number
from dimo_jax.views.viewer.loop import Viewer
from dimo_jax.views.viewer.notices import Notice, plain
from dimo_jax.views.viewer.panel import Panel
from dimo_jax.views.viewer.prompts import Prompts
from dimo_jax.views.viewer.rig_session import LAYERS, RigChoices, RigSession

_LOOKED_AT = 48  # instants of each of the file's clips, with which what is written is compared


class RigWriter:
    """Writes motions that are shown into the model's file, as `--app=animate` does."""

    def __init__(self, session: RigSession, folder: Path) -> None:
        self._session, self._folder = session, folder
        self._lock = threading.Lock()  # else two visitors find the same name free
        self._known: Any = None

    def write(self, motions: Sequence[Chosen], title: str) -> Path:
        """Writes clips into a new file in the folder, and their report beside it.

        Raises:
          UserError: the model's file cannot be read any more, or the folder not be written.
        """
        run, rigged = self._session.model, self._session.rigged
        stem = to_file_name(title, default="motion", keep="._+-", longest=70)
        with self._lock, open_source(run) as source:
            if self._known is None:
                self._known = read_known(run, read_own_clips(run, _LOOKED_AT))
            clips = [play(run, rigged, motion, Wishes(), None, self._known) for motion in motions]
            self._folder.mkdir(parents=True, exist_ok=True)
            suffix = Path(source).suffix.lower()
            name = stem + free_number(self._folder, [(stem, suffix), (stem, ".json")])
            target = self._folder / f"{name}{suffix}"
            repair = bool(run.config.data.repair)
            write_animations(source, target, target.with_suffix(".json"), rigged, clips, repair=repair)
        return target


class RigPanel(Panel):
    """Widgets in folders: motion, new motions, blend, what is shown, the model's file."""

    def __init__(self, server: Any, viewer: Viewer, prompts: Prompts, *, out: Path) -> None:
        """`server` is a `viser.ViserServer`; files go to `out`."""
        self._writer = RigWriter(viewer.session, out)
        super().__init__(server, viewer, prompts, out=out, size=0)

    def _parts(self) -> tuple[Callable[[], None], ...]:
        return self._add_motion, self._add_new, self._add_blend, self._add_show, self._add_export

    def follow(self, choices: RigChoices) -> None:
        """Says what is shown; the slider of time follows a motion that plays."""
        session = self._viewer.session
        seconds = session.find_seconds(choices)
        words = [choices.source.words] if choices.share == 0 and choices.source.words else []
        words.append(f"{seconds:.2f} s, {'goes round' if session.goes_round(choices) else 'has an end'}")
        self._title.content = f"**{plain(session.describe(choices))}**  \n{plain(', '.join(words))}"
        if choices.playing or self._followed:
            self._time.value = round(100 * choices.frame, 1)
        self._followed = choices.playing

    def _add_motion(self) -> None:
        gui, session, choices = self._gui, self._viewer.session, self._viewer.choices
        with gui.add_folder("Motion"):
            self._sources = gui.add_dropdown("Motion", tuple(session.sources))
            self._play = gui.add_checkbox("Play", choices.playing)
            self._time = gui.add_slider("Time, %", 0.0, 100.0, 0.1, 0.0, hint="Share of the clip")
            speed = gui.add_slider("Speed", 0.1, 2.0, 0.1, 1.0)
            stay = gui.add_checkbox("In place", choices.in_place, hint="Without the way of a loop that travels")

        @self._sources.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                self._begin(session.sources[self._sources.value])

        @self._time.on_update
        def _(event: Any) -> None:
            if event.client is not None:  # who scrubs has taken over
                with self._lock:
                    self._viewer.choose(frame=float(self._time.value) / 100, playing=False)
                    self._play.value = False

        self._bind(self._play, lambda value: dict(playing=value))
        self._bind(speed, lambda value: dict(speed=value))
        self._bind(stay, lambda value: dict(in_place=value))

    def _begin(self, source: Any) -> None:
        """Shows a motion as it is."""
        with self._lock:
            self._share.value = 0.0
            self._viewer.choose(source=source, share=0.0)

    def _ask(self, prompt: str) -> Any:
        made = self._prompts.make(prompt)
        return self._viewer.session.take_code(made.label, made.code, made.words)

    def _add_show(self) -> None:
        with self._gui.add_folder("Show"):
            boxes = {layer: self._gui.add_checkbox(layer, layer in self._viewer.choices.layers) for layer in LAYERS}
        for box in boxes.values():
            self._bind(box, lambda _: dict(layers=frozenset(layer for layer, each in boxes.items() if each.value)))

    def _add_export(self) -> None:
        session, viewer = self._viewer.session, self._viewer
        name = session.model.scene.path.name
        with self._gui.add_folder("Write"):
            this = self._gui.add_button("Write this motion", hint=f"Into a copy of {name}, and offers it for download")
            made = self._gui.add_button("Write all new motions", hint="Those drawn and asked for here, in one file")

        @this.on_click
        def _(event: Any) -> None:
            title = session.describe(viewer.choices)
            self._write(event.client, [session.settle(viewer.choices)], f"{session.model.scene.path.stem}_{title}")

        @made.on_click
        def _(event: Any) -> None:
            motions = [source.chosen for source in session.sources.values() if source.made]
            self._write(event.client, motions, f"{session.model.scene.path.stem}_new")

    def _write(self, client: Any, motions: Sequence[Chosen], title: str) -> None:
        with Notice(client, "Writing", f"{title}, in a moment.") as notice:
            if not motions:
                raise UserError("found no motion that was made here, expected a random sample or a prompt before")
            path = self._writer.write(motions, title)
            logging.info("wrote %s", path)
            notice.say("Written", str(path))
            client.send_file_download(path.name, path.read_bytes())
