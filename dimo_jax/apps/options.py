"""What several apps read from their flags."""

from __future__ import annotations

from dimo_jax.errors import UserError


def split(text: str) -> tuple[str, ...]:
    """The parts of a list separated by commas, without blanks around them and without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_numbers(name: str, text: str, *, count: int | None = None) -> tuple[float, ...]:
    """Numbers separated by commas.

    Args:
      name: of the flag, for errors.
      text: its value.
      count: how many there must be; None for any.

    Raises:
      UserError: something else than numbers, or another count of them.
    """
    expected = "numbers" if count is None else f"{count} numbers"
    try:
        numbers = tuple(float(part) for part in split(text))
    except ValueError as error:
        raise UserError(f"--{name}: found {text!r}, expected {expected} separated by commas") from error
    if count is not None and len(numbers) != count:
        raise UserError(f"--{name}: found {text!r}, expected {expected} separated by commas")
    return numbers


def check_least(least: float, **values: float) -> None:
    """Raises UserError for the first value below `least`; the values go by the names of their flags."""
    for name, value in values.items():
        if not value >= least:
            raise UserError(f"--{name}: found {value:g}, expected at least {least:g}")
