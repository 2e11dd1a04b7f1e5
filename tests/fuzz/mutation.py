"""Data sets, commands and PDUs, broken with a seed: the same seed breaks them in the same way."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.fuzz.corpus import Seed

Kind = Literal["data set", "command", "PDU", "association"]
KINDS: tuple[Kind, ...] = ("data set", "command", "PDU", "association")
_LENGTHS = (0, 1, 2, 7, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_VRS = (b"SQ", b"UN", b"OB", b"PN", b"UI", b"US", b"ZZ", b"\0\0", b"DS", b"LT")
_CHARACTER_SETS = (b"ISO_IR 192", b"ISO 2022 IR 149", b"GB18030", b"ISO_IR 999", b"\\\\\\", b"\xff\xfe")
_MOST_CHANGES = 4


@dataclass(frozen=True)
class Attempt:
    """What is written to the receiver."""

    kind: Kind
    seed: Seed
    command: bytes
    data: bytes
    cut: int
    """Bytes of the data set in one PDU."""
    noise: Callable[[bytes], bytes] | None = None
    """Changes the whole stream of PDUs before it is written."""


def attempt(number: int, run_seed: int, seeds: Sequence[Seed]) -> Attempt:
    """Return the input with a number."""
    chance = random.Random(run_seed * 1_000_003 + number)  # repeatable, no secret
    kind = KINDS[number % len(KINDS)]
    seed = chance.choice(seeds)
    command, data, noise = store_request(seed), seed.data, None
    if kind == "data set":
        data = _changed(data, chance, (_flip, _cut, _repeat, _length, _vr, _character_set))
    elif kind == "command":
        command = _changed(command, chance, (_flip, _cut, _repeat, _length, _insert_element))
    else:
        noise = _noise(chance.getrandbits(64))
    return Attempt(kind, seed, command, data, chance.choice((64, 1000, 16384, 131066)), noise)


def store_request(seed: Seed) -> bytes:
    """Return the command of a C-STORE (PS3.7 table 9.3-1)."""
    body = b"".join(
        _element(number, value)
        for number, value in (
            (0x0002, seed.sop_class_uid.encode()),
            (0x0100, b"\x01\0"),
            (0x0110, b"\x01\0"),
            (0x0700, b"\0\0"),
            (0x0800, b"\0\0"),
            (0x1000, seed.sop_instance_uid.encode()),
        )
    )
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _noise(state: int) -> Callable[[bytes], bytes]:
    return lambda stream: _changed(
        stream,
        random.Random(state),
        (_flip, _flip, _cut, _repeat, _pdu_length, _shuffle),  # as above
    )


_Change = Callable[[bytearray, random.Random], None]


def _changed(data: bytes, chance: random.Random, changes: Sequence[_Change]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, _MOST_CHANGES)):
        if changed:
            chance.choice(changes)(changed, chance)
    return bytes(changed)


def _flip(data: bytearray, chance: random.Random) -> None:
    data[_place(data, chance)] = chance.randrange(256)


def _cut(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    del data[start : start + chance.choice((1, 2, 8, len(data)))]


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    piece = data[start : start + chance.choice((2, 8, 64))]
    data[start:start] = piece * chance.choice((1, 3, 500))


def _length(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    layout = chance.choice(("<H", "<L", ">L"))
    value = struct.pack(layout, chance.choice(_LENGTHS) & (0xFFFF if layout == "<H" else 0xFFFFFFFF))
    data[at : at + len(value)] = value


def _vr(data: bytearray, chance: random.Random) -> None:
    found = [at for at in range(4, min(len(data) - 2, 4096)) if data[at : at + 2].isalpha() and data[at] < 0x5B]
    if found:
        at = chance.choice(found)
        data[at : at + 2] = chance.choice(_VRS)


def _character_set(data: bytearray, chance: random.Random) -> None:
    value = chance.choice(_CHARACTER_SETS)
    value += b" " * (len(value) % 2)
    element = b"\x08\0\x05\0CS" + struct.pack("<H", len(value)) + value
    data[0:0] = element


def _insert_element(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = _element(chance.choice((0x0001, 0x0100, 0x0902, 0x1000, 0x1030, 0xFFFF)), chance.randbytes(6))


def _pdu_length(data: bytearray, chance: random.Random) -> None:
    heads = [at for at in range(min(len(data) - 6, 400)) if data[at] in range(1, 8) and data[at + 1] == 0]
    at = chance.choice(heads) if heads else 0
    data[at + 2 : at + 6] = struct.pack(">L", chance.choice(_LENGTHS))


def _shuffle(data: bytearray, chance: random.Random) -> None:
    middle = _place(data, chance)
    data[:] = data[middle:] + data[:middle]


def _place(data: bytearray, chance: random.Random) -> int:
    """Return a place, more often one near the beginning, where the structure is."""
    return chance.randrange(min(len(data), chance.choice((16, 256, 4096, len(data)))))


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value
