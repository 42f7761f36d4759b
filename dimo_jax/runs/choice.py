"""Which motions an app is asked for, as flags say it; checked without a model and without jax."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_among, check_between, check_least, check_use

# Choices that several apps have. Their flags take them from these names, which are read without an import.
Prior = Literal["data", "standard"]
CameraPath = Literal["fixed", "orbit"]
Line = Literal["linear", "spherical"]  # between codes
Checkpoint = Literal["last", "best"]
PRIORS, PATHS, LINES = get_args(Prior), get_args(CameraPath), get_args(Line)
SPREAD = 0.5  # of a draw, around the training motions or one of them
VIDEO_SIZE = 512  # pixels

# By the way to choose: the flags that mean something with it alone.
ONLY_WITH = {
    "num_samples": (("prior", "around", "spread", "diverse", "seed"), "--num_samples=N"),
    "motions": (("path", "share"), "--motions=A,B"),
    "prompt": (("bert",), "--prompt='...'"),
}


@dataclass(frozen=True)
class Choice:
    """The flags that choose motions; exactly one of the first five is given. See `export.run`."""

    motion: str = ""
    num_samples: int = 0
    motions: str = ""
    prompt: str = ""
    code: str = ""
    prior: str = "data"
    around: str = ""
    spread: float = SPREAD
    diverse: bool = False
    seed: int = 0
    path: str = "linear"
    share: float | None = None
    bert: str = ""

    def __post_init__(self) -> None:
        """Checks what can be checked without a model.

        Raises:
          UserError: none or several ways to choose, or a value out of range.
        """
        ways = {name: getattr(self, name) for name in ("motion", "num_samples", "motions", "prompt", "code")}
        given = [name for name, value in ways.items() if value]
        check_least(0, num_samples=self.num_samples, spread=self.spread, seed=self.seed)
        if len(given) != 1:
            expected = "one of --motion=NAME, --num_samples=N, --motions=A,B, --prompt='...' and --code=FILE.npz"
            raise UserError(
                f"--motion: found {' and '.join(f'--{name}' for name in given) or 'no motion'}, expected {expected}"
            )
        check_among(PRIORS, prior=self.prior)
        check_among(LINES, path=self.path)
        if self.share is not None and not 0 <= self.share <= 1:
            raise UserError(f"--share: found {self.share:g}, expected 0 to 1, with --motions=A,B")
        for way, (names, needs) in ONLY_WITH.items():
            if not getattr(self, way):
                check_use(vars(self), {name: getattr(Choice, name) for name in names}, needs=needs)
        if self.motions and "," not in self.motions:  # what names it holds is only known of a run
            raise UserError(f"--motions: found {self.motions!r}, expected two names or more, separated by commas")
        check_spread(self.spread, self.prior, self.around)


def check_spread(spread: float, prior: str, around: str) -> None:
    """Raises UserError where the width of a draw means nothing or is out of range."""
    if around:
        return
    if prior == "standard":
        check_use({"spread": spread}, {"spread": SPREAD}, needs="--around=NAME or --prior=data")
    check_between(0, 1, spread=spread)


def is_code(text: str) -> bool:
    """Whether the value of --code is a code itself, numbers separated by commas, and not a file's name."""
    return "," in text and all(re.fullmatch(r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*", part) for part in text.split(","))
