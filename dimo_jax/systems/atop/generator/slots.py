"""The parts that a config names, built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dimo_jax.core.resolve import resolve

from .parts import Backbone, Codec, Embed
from .reference import Look


@dataclass(frozen=True)
class Parts:
    """The frozen encoders around a backbone."""

    codec: Codec
    embed: Embed
    look: Look


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """What `config.atop.backbone` names."""
    backbone: Backbone = resolve(config["atop"]["backbone"], key="atop.backbone")()
    return backbone


def build_parts(config: Mapping[str, Any]) -> Parts:
    """What `config.atop.codec`, `.text` and `.look` name."""
    codec, embed, look = (resolve(config["atop"][name], key=f"atop.{name}")() for name in ("codec", "text", "look"))
    return Parts(codec, embed, look(codec.encode))
