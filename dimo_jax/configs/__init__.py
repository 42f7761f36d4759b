"""Presets: `configs/` of a checkout, which a wheel has in this place."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "configs")]
