"""How a kernel reaches the rows of its tile's Gaussians: in place, or copied to where it can read single numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from dimo_jax.core.types import Array

Ref = Any  # Pallas has no public name for what a kernel reads and writes


class Pairs(Protocol):
    """The rows of the table and of its gradients, as a kernel reaches those of one tile, a block after the other."""

    def begin(self, first: Array, last: Array) -> None:
        """Before the blocks first..last-1."""

    def open(self, index: Array) -> None:
        """Before a block's rows are read, or passed by."""

    def read(self, index: Array, within: Any, column: int) -> Array:
        """A number of a row of the block that is open."""

    def write(self, index: Array, within: Any, column: int, value: Array) -> None:
        """A number of its gradient."""

    def close(self, index: Array) -> None:
        """After the last one is written."""

    def end(self) -> None:
        """After the last block."""


@dataclasses.dataclass(frozen=True)
class InPlace:
    """Rows in memory that a kernel reads and writes number by number."""

    block: int
    table: Ref  # [S,16]
    rows: Ref = None  # [S,16]

    def begin(self, first: Array, last: Array) -> None:
        """See `Pairs`."""

    def open(self, index: Array) -> None:
        """See `Pairs`."""

    def read(self, index: Array, within: Any, column: int) -> Array:
        """See `Pairs`."""
        number: Array = self.table[index * self.block + within, column]
        return number

    def write(self, index: Array, within: Any, column: int, value: Array) -> None:
        """See `Pairs`."""
        self.rows[index * self.block + within, column] = value

    def close(self, index: Array) -> None:
        """See `Pairs`."""

    def end(self) -> None:
        """See `Pairs`."""


@dataclasses.dataclass
class Copied:
    """Rows that come to where single numbers can be read, and go from there, a block of them as columns at a time.

    There are two places for blocks: while one is drawn, the next comes and the gradients of the one before go.
    """

    block: int
    table: Ref  # [16,S] far away
    near: Ref  # [2,16,block]
    coming: Ref  # [2] semaphores
    rows: Ref = None  # [16,S] far away
    near_rows: Ref = None  # [2,16,block]
    going: Ref = None  # [2] semaphores
    span: tuple[Array, Array] | None = None  # of the tile's blocks

    def _cut(self, ref: Ref, index: Array) -> Ref:
        return ref.at[:, pl.ds(pl.multiple_of(index * self.block, self.block), self.block)]

    def _come(self, index: Array) -> Any:
        from jax.experimental.pallas import tpu

        slot = lax.rem(index, jnp.int32(2))
        return tpu.make_async_copy(self._cut(self.table, index), self.near.at[slot], self.coming.at[slot])

    def _go(self, index: Array) -> Any:
        from jax.experimental.pallas import tpu

        slot = lax.rem(index, jnp.int32(2))
        return tpu.make_async_copy(self.near_rows.at[slot], self._cut(self.rows, index), self.going.at[slot])

    def _place(self, index: Array, within: Any, column: int) -> tuple[Any, int, Any]:
        return lax.rem(index, jnp.int32(2)), column, within

    def begin(self, first: Array, last: Array) -> None:
        """See `Pairs`."""
        self.span = first, last
        pl.when(first < last)(lambda: self._come(first).start())

    def open(self, index: Array) -> None:
        """See `Pairs`."""
        assert self.span is not None
        first, last = self.span
        self._come(index).wait()
        pl.when(index + 1 < last)(lambda: self._come(index + 1).start())
        if self.rows is not None:
            pl.when(index - 2 >= first)(lambda: self._go(index - 2).wait())

    def read(self, index: Array, within: Any, column: int) -> Array:
        """See `Pairs`."""
        number: Array = self.near[self._place(index, within, column)]
        return number

    def write(self, index: Array, within: Any, column: int, value: Array) -> None:
        """See `Pairs`."""
        self.near_rows[self._place(index, within, column)] = value

    def close(self, index: Array) -> None:
        """See `Pairs`."""
        if self.rows is not None:
            self._go(index).start()

    def end(self) -> None:
        """See `Pairs`."""
        assert self.span is not None
        first, last = self.span
        if self.rows is not None:
            pl.when(last - 2 >= first)(lambda: self._go(last - 2).wait())
            pl.when(last - 1 >= first)(lambda: self._go(last - 1).wait())
