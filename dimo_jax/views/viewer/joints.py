"""An articulated object in the browser: a slider for every joint, and which of its ranked joints a part has."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.geometry.joint import REVOLUTE, Joint
from dimo_jax.geometry.rotations import from_matrix
from dimo_jax.io.articulated_read import Written
from dimo_jax.io.gltf.articulated import write_object_glb
from dimo_jax.meshes.articulation import Articulation, Link, pose_links
from dimo_jax.meshes.objects import ObjectMesh, bounds

STEPS = 200  # of a slider, over the range of its joint
AXIS_COLOR = (214, 39, 40)


class JointsView:
    """What is shown, and the values of all who watch."""

    def __init__(self, written: Written) -> None:
        self.ranked = written.ranked
        self.taken = list(written.taken)
        self.values = [0.0] * len(written.ranked)
        self._articulation = written.articulation
        vertices = np.concatenate([link.vertices for link in written.articulation.links])
        low, high, self.size = bounds(vertices)
        self.middle = (low + high) / 2

    @property
    def names(self) -> list[str]:
        """Of the parts."""
        return [link.name for link in self._articulation.links[1:]]

    @property
    def articulation(self) -> Articulation:
        """The object with the joints that are taken now."""
        links: list[Link] = [self._articulation.links[0]]
        for index, link in enumerate(self._articulation.links[1:]):
            links.append(replace(link, joint=self.joint(index)))
        return Articulation(tuple(links))

    def joint(self, part: int) -> Joint:
        """The joint that a part has now."""
        return self.ranked[part][self.taken[part]]

    def take(self, part: int, place: int) -> None:
        """Gives a part another of its ranked joints, at rest."""
        self.taken[part], self.values[part] = place, 0.0

    def poses(self) -> np.ndarray:
        """[L,4,4] from rest, of all links."""
        return pose_links(self.articulation, self.values)


def describe_option(place: int, joint: Joint) -> str:
    """A ranked joint in one line, its number first."""
    kind = "turns" if joint.type == REVOLUTE else "slides"
    axis = ", ".join(f"{value + 0.0:.2f}" for value in joint.axis)
    return f"{place}: {kind} about ({axis}), {joint.confidence:.0%}" if joint.type == REVOLUTE else (
        f"{place}: {kind} along ({axis}), {joint.confidence:.0%}"
    )  # fmt: skip


class JointsPanel:
    """The scene and the widgets of a `JointsView`."""

    def __init__(self, server: Any, view: JointsView) -> None:
        """`server` is a `viser.ViserServer`."""
        self._view, self._lock = view, threading.RLock()
        self._sliders: list[Any] = []
        self._server = server
        server.scene.set_up_direction("+y")
        reach = 1.6 * view.size
        server.initial_camera.position = tuple(view.middle + reach * np.array([0.45, 0.35, 0.82]))
        server.initial_camera.look_at = tuple(view.middle)
        links = view.articulation.links
        self._nodes = [server.scene.add_glb(f"/links/{link.name}", _to_glb(link)) for link in links]
        self._axis = server.scene.add_line_segments(
            "/axis", np.zeros((1, 2, 3), np.float32), AXIS_COLOR, thickness=0.006 * view.size
        )
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.set_panel_label("dimo_jax: joints")
        self._add_choice()
        with server.gui.add_folder("Joints"):
            for part in range(len(view.names)):
                self._add_slider(part)
        for part, node in enumerate(self._nodes[1:]):
            self._bind_click(part, node)
        self.show()

    def show(self) -> None:
        """Sends where everything is, and the axis of the part that is chosen."""
        view, part = self._view, self._part
        with self._server.atomic():
            poses = view.poses()
            for node, pose in zip(self._nodes, poses):
                node.wxyz, node.position = from_matrix(pose[:3, :3]), pose[:3, 3]
            joint, parent = view.joint(part), poses[view.articulation.links[part + 1].parent]
            ends = joint.origin + 0.6 * view.size * np.outer([-1.0, 1.0], joint.axis)
            self._axis.points = (ends @ parent[:3, :3].T + parent[:3, 3])[None].astype(np.float32)

    @property
    def _part(self) -> int:
        return self._view.names.index(self._parts.value)

    def _add_choice(self) -> None:
        gui, view = self._server.gui, self._view
        self._parts = gui.add_dropdown("Part", tuple(view.names), hint="Or click a part")
        self._options = gui.add_dropdown("Joint", self._list(0), self._list(0)[view.taken[0]], hint="Ranked")
        self._said = gui.add_markdown("")
        self._tell()

        @self._parts.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                self._pick(self._part)

        @self._options.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                with self._lock:
                    place = self._list(self._part).index(self._options.value)
                    self._view.take(self._part, place)
                    self._fit_slider(self._part)
                    self._tell()
                    self.show()

    def _list(self, part: int) -> tuple[str, ...]:
        return tuple(describe_option(place, joint) for place, joint in enumerate(self._view.ranked[part]))

    def _pick(self, part: int) -> None:
        with self._lock:
            self._parts.value = self._view.names[part]
            options = self._list(part)
            self._options.options = options
            self._options.value = options[self._view.taken[part]]
            self._tell()
            self.show()

    def _tell(self) -> None:
        view, part = self._view, self._part
        key = "`--candidate`" if len(view.names) == 1 else f"`candidate` of {view.names[part]}"
        self._said.content = f"To write this joint: {key} {view.taken[part]}"

    def _add_slider(self, part: int) -> None:
        slider = self._server.gui.add_slider(self._view.names[part], 0.0, 1.0, 1.0, 0.0)
        self._sliders.append(slider)
        self._fit_slider(part)

        @slider.on_update
        def _(event: Any) -> None:
            if event.client is not None:
                with self._lock:
                    self._view.values[part] = float(slider.value) / _unit(self._view.joint(part))
                    self.show()

    def _fit_slider(self, part: int) -> None:
        """Gives a slider the range of its joint: degrees, or the object's unit of length."""
        joint, slider = self._view.joint(part), self._sliders[part]
        low, high = (min(joint.range[0], 0.0) * _unit(joint), max(joint.range[1], 0.0) * _unit(joint))
        slider.min, slider.max, slider.step = low, high, (high - low) / STEPS
        slider.precision = max(0, 2 - int(np.floor(np.log10(high - low)))) if high > low else 2
        slider.value = self._view.values[part] * _unit(joint)

    def _bind_click(self, part: int, node: Any) -> None:
        @node.on_click
        def _(event: Any) -> None:
            del event
            self._pick(part)


def _unit(joint: Joint) -> float:
    return float(np.rad2deg(1.0)) if joint.type == REVOLUTE else 1.0


def _to_glb(link: Link) -> bytes:
    """The link at rest, in the object's coordinates, with its looks."""
    thing = ObjectMesh(link.vertices, link.mesh, np.zeros(len(link.mesh.triangles), np.int32), (link.name,), (-1,))
    with tempfile.TemporaryDirectory() as folder:
        return write_object_glb(thing, Path(folder) / "link.glb").read_bytes()
