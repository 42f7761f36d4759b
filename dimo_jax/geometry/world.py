"""The similarity that carries a user's coordinates to the method's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class World:
    """User's coordinates to the method's: a point p stands at `scale * rotation @ (p - center)`."""

    scale: float = 1.0
    center: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3] in the user's units
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # [3,3] proper
    of: str = "cameras"  # whose coordinates they are: those of "cameras", or of a "model" (glTF)

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.same_place(World())

    def same_place(self, other: World) -> bool:
        """Whether both put every point at the same place."""
        ours, theirs = ((w.scale, *w.center, *w.rotation.ravel()) for w in (self, other))
        return all(float(a) == float(b) for a, b in zip(ours, theirs, strict=True))

    def apply(self, points: Any) -> np.ndarray:
        """The user's points [...,3] in the method's world, float64."""
        moved: np.ndarray = self.scale * (np.asarray(points, np.float64) - self.center) @ self.rotation.T
        return moved

    def undo(self, points: Any) -> np.ndarray:
        """The method's points [...,3] in the user's world, float64."""
        moved: np.ndarray = np.asarray(points, np.float64) @ self.rotation / self.scale + self.center
        return moved

    def then(self, step: World) -> World:
        """This world's move followed by another one's, as one; `of` stays."""
        if step.is_identity:
            return self
        center = self.undo(step.center)
        return World(self.scale * step.scale, center, step.rotation @ self.rotation, self.of)

    def inverse(self) -> World:
        """The way back."""
        return World(1 / self.scale, self.apply(np.zeros(3)), self.rotation.T, self.of)

    def upright(self) -> World:
        """The same scale and place without the turn's undoing: the user's world turned to +Y up, as glTF has it."""
        return World(self.scale, self.rotation @ self.center, np.eye(3), self.of)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, which survive the text exactly."""
        return {
            "scale": float(self.scale),
            "center": np.asarray(self.center, np.float64).tolist(),
            "rotation": np.asarray(self.rotation, np.float64).tolist(),
            "of": self.of,
        }
