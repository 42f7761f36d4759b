"""Damage to bytes, text and JSON: each function takes data and a generator and says in a few words what it did."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

Damaged = tuple[bytes, str]

_INTEGERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-30, 1e10, 1e30, 3e38)
_NUMBERS = (b"0", b"-1", b"1", b"65536", b"2147483648", b"4294967295", b"9" * 18, b"9" * 400, b"1e309", b"nan", b"")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**53, 2**64, 10**400, 0.5, -0.0, 1e-40, 1e20, 1e200, 1e308),
    *(float("nan"), float("inf"), "", "0", "x" * 1000, "../../etc/hostname", "/", "a/b", ".", "..", "\0", "\ud800"),
    *("a\nb", "\u2028", "data:,", "CON", [], {}, [[]], [None], [0], {"": 0}, [1, 2, 3], ["a", "a"], [[0] * 4] * 4),
)
_DEEP = "\x01DEEP\x01"  # stands for what the encoder could not write: it would recurse


def flip_bits(data: bytes, rng: random.Random) -> Damaged:
    """One to eight bits turned over."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed), "bits flipped"


def set_bytes(data: bytes, rng: random.Random) -> Damaged:
    """A few bytes in a row, all zeros, all ones or random."""
    start, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 64))
    filler = rng.choice((b"\0", b"\xff", b"", b"\x80"))
    block = filler * size or rng.randbytes(size)
    return data[:start] + block[: len(data) - start] + data[start + size :], f"bytes set at {start}"


def set_number(data: bytes, rng: random.Random) -> Damaged:
    """An extreme integer or float of some width where a length, count or offset may stand."""
    if rng.random() < 0.3:
        block = struct.pack(rng.choice("<>") + "f", rng.choice(_FLOATS))
    else:
        size = rng.choice((1, 2, 4, 4, 8))
        value = rng.choice((*_INTEGERS, rng.randrange(1 << 16))) & (1 << 8 * size) - 1
        block = value.to_bytes(size, rng.choice(("little", "big")))
    # Headers stand at the beginning, the directories of archives at the end.
    near = min(len(data), 512)
    start = rng.choice((rng.randrange(len(data)), rng.randrange(near), len(data) - 1 - rng.randrange(near)))
    start -= start % len(block) if rng.random() < 0.7 else 0
    return data[:start] + block + data[start + len(block) :], f"number set at {start}"


def truncate(data: bytes, rng: random.Random) -> Damaged:
    """Cut short, by a little or by much."""
    size = rng.choice((0, rng.randrange(len(data)), max(0, len(data) - rng.randrange(1, 65))))
    return data[:size], f"cut to {size} bytes"


def change_blocks(data: bytes, rng: random.Random) -> Damaged:
    """A block taken out, doubled, or written over another place."""
    size = min(len(data), rng.choice((1, 2, 4, 8, 32, 256, 4096)))
    start, other = rng.randrange(len(data) - size + 1), rng.randrange(len(data) - size + 1)
    block = data[start : start + size]
    how = rng.randrange(4)
    if how == 0:
        return data[:start] + data[start + size :], f"{size} bytes removed at {start}"
    if how == 1:
        return data[: start + size] + block + data[start + size :], f"{size} bytes doubled at {start}"
    if how == 2:
        return data[:other] + block + data[other + size :], f"{size} bytes of {start} written to {other}"
    return data[:start] + rng.randbytes(size) + data[start:], f"{size} bytes inserted at {start}"


def change_digits(data: bytes, rng: random.Random) -> Damaged:
    """A decimal number in the text replaced by another one."""
    found = [match.span() for match in re.finditer(rb"-?[0-9]+", data[:65536])]
    if not found:
        return flip_bits(data, rng)
    start, end = rng.choice(found)
    new = rng.choice((*_NUMBERS, str(int(data[start:end][:18]) + rng.choice((-1, 1, 10))).encode()))
    return data[:start] + new + data[end:], f"number {data[start:end][:20]!r} became {new[:20]!r}"


def mutate_bytes(data: bytes, rng: random.Random) -> Damaged:
    """Any of the above; of nothing, a few bytes."""
    if not data:
        return rng.randbytes(rng.choice((1, 8, 64))), "random bytes"
    ways = (flip_bits, flip_bits, set_bytes, set_number, set_number, truncate, change_blocks, change_digits)
    return rng.choice(ways)(data, rng)


def mutate_text(data: bytes, rng: random.Random) -> Damaged:
    """Lines and words changed places, went, came twice, or became something else."""
    lines = data.split(b"\n")
    index, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(7)
    if how == 0:
        del lines[index]
        return b"\n".join(lines), f"line {index} removed"
    if how == 1:
        lines.insert(other, lines[index])
        return b"\n".join(lines), f"line {index} again at {other}"
    if how == 2:
        lines[index], lines[other] = lines[other], lines[index]
        return b"\n".join(lines), f"lines {index} and {other} swapped"
    if how in (3, 4):
        words = lines[index].split(b" ")
        strange = (
            b"",
            b"\xff\xfe",
            b"\0",
            "é\u2028".encode(),
            b"x" * 5000,
            b":",
            b"|",
            b'"',
            b"#",
            rng.choice(_NUMBERS),
        )
        new = rng.choice((*strange, rng.choice(rng.choice(lines).split(b" "))))
        place = rng.randrange(len(words))
        words[place] = new
        lines[index] = b" ".join(words)
        return b"\n".join(lines), f"word {place} of line {index} became {new[:20]!r}"
    return (change_digits if how == 5 else mutate_bytes)(data, rng) if data else mutate_bytes(data, rng)


def find_places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value of a JSON tree but its root; long arrays are not walked to their ends."""
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))[:200]
    return [place for key, child in children for place in ((*path, key), *find_places(child, (*path, key)))]


def find_parent(tree: Any, path: tuple[Any, ...]) -> Any:
    """What holds the value that a path leads to."""
    for key in path[:-1]:
        tree = tree[key]
    return tree


def _choose(places: list[tuple[Any, ...]], rng: random.Random) -> tuple[Any, ...]:
    """A place; every kind of it (the path without its indices) as likely as any other, or arrays would take all."""
    kinds: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for place in places:
        kinds.setdefault(tuple("#" if isinstance(key, int) else key for key in place), []).append(place)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def _nudge(value: Any, rng: random.Random) -> Any:
    """A value of the same type that is a little or much away."""
    if isinstance(value, bool) or value is None:
        return rng.choice(VALUES)
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, rng.randrange(16), str(value)))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e6, value * 1e-6, value + 1, str(value), [value]))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "x", value.upper(), value * 50, value[::-1], [value]))
    if isinstance(value, list):
        return rng.choice((value[:-1], value[1:], value + value[:1], value[::-1], value * 3, [value], value + [None]))
    return list(value.items())


def mutate_json(data: bytes, rng: random.Random) -> Damaged:
    """One place of a JSON text changed: another type, an extreme, another place's value, gone, twice, or very deep."""
    try:
        tree = json.loads(data.decode("utf-8-sig"))
        places = find_places(tree)
    except (ValueError, RecursionError):
        return mutate_text(data, rng)
    if not places or rng.random() < 0.05:
        return mutate_text(data, rng)
    path = _choose(places, rng)
    parent, key = find_parent(tree, path), path[-1]
    where, how = "/".join(map(str, path))[-60:], rng.random()
    text = None
    if how < 0.2:
        del parent[key]
        said = f"{where} removed"
    elif how < 0.5:
        parent[key] = rng.choice(VALUES)
        said = f"{where} = {str(parent[key])[:20]!r}"
    elif how < 0.75:
        parent[key] = _nudge(parent[key], rng)
        said = f"{where} = {str(parent[key])[:20]!r}"
    elif how < 0.93:
        other = _choose(places, rng)
        parent[key] = json.loads(json.dumps(find_parent(tree, other)[other[-1]]))
        said = f"{where} = value of {'/'.join(map(str, other))[-60:]}"
    elif how < 0.97 and isinstance(parent, dict):
        parent[f"{key}{_DEEP}"] = rng.choice(VALUES)
        text = json.dumps(tree).replace(json.dumps(_DEEP)[1:-1], "")
        said = f"{where} twice"
    else:
        parent[key] = _DEEP
        depth = rng.choice((50, 990, 100_000))
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
        text = json.dumps(tree).replace(json.dumps(_DEEP), opening * depth + "0" + closing * depth)
        said = f"{where} {depth} deep"
    return (json.dumps(tree) if text is None else text).encode(), said


def mutate_lines(data: bytes, rng: random.Random) -> Damaged:
    """JSON Lines: one line changed as JSON, or the text."""
    lines = data.split(b"\n")
    full = [index for index, line in enumerate(lines) if line.startswith(b"{")]
    if not full or rng.random() < 0.3:
        return mutate_text(data, rng)
    index = rng.choice(full)
    lines[index], said = mutate_json(lines[index], rng)
    return b"\n".join(lines), f"line {index}: {said}"


def compose(mutate: Callable[[bytes, random.Random], Damaged], data: bytes, rng: random.Random) -> Damaged:
    """One to four changes after each other."""
    said = []
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 4))):
        data, what = mutate(data, rng)
        said.append(what)
    return data, "; ".join(said)
