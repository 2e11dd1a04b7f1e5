"""Changes of bytes that know nothing of their meaning, made with a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

LENGTHS = (0, 1, 2, 7, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
"""Values of length fields, up to the 4 GiB that none of them is."""
_MOST_CHANGES = 4

Change = Callable[[bytearray, random.Random], None]


def changed(data: bytes, chance: random.Random, changes: Sequence[Change]) -> bytes:
    """Return bytes with one to four changes."""
    result = bytearray(data)
    for _ in range(chance.randint(1, _MOST_CHANGES)):
        if result:
            chance.choice(changes)(result, chance)
    return bytes(result)


def flip(data: bytearray, chance: random.Random) -> None:
    """Replace a byte."""
    data[place(data, chance)] = chance.randrange(256)


def cut(data: bytearray, chance: random.Random) -> None:
    """Leave out a piece, or the rest."""
    start = place(data, chance)
    del data[start : start + chance.choice((1, 2, 8, len(data)))]


def repeat(data: bytearray, chance: random.Random) -> None:
    """Write a piece once more, or many times."""
    start = place(data, chance)
    piece = data[start : start + chance.choice((2, 8, 64))]
    data[start:start] = piece * chance.choice((1, 3, 500))


def length(data: bytearray, chance: random.Random) -> None:
    """Write a value over what may be a length field."""
    at = place(data, chance)
    layout = chance.choice(("<H", "<L", ">L"))
    value = struct.pack(layout, chance.choice(LENGTHS) & (0xFFFF if layout == "<H" else 0xFFFFFFFF))
    data[at : at + len(value)] = value


def shuffle(data: bytearray, chance: random.Random) -> None:
    """Put the end before the beginning."""
    middle = place(data, chance)
    data[:] = data[middle:] + data[:middle]


def place(data: bytearray, chance: random.Random) -> int:
    """Return a place, more often one near the beginning, where the structure is."""
    return chance.randrange(min(len(data), chance.choice((16, 256, 4096, len(data)))))
