"""Data sets, commands and PDUs, broken with a seed: the same seed breaks them in the same way."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.fuzz.changes import LENGTHS, Change, changed, cut, flip, length, place, repeat, shuffle
from tests.fuzz.corpus import LEVEL, PATIENT_NAME, Seed

Kind = Literal["data set", "command", "PDU", "association"]
KINDS: tuple[Kind, ...] = ("data set", "command", "PDU", "association")
_VRS = (b"SQ", b"UN", b"OB", b"PN", b"UI", b"US", b"ZZ", b"\0\0", b"DS", b"LT")
_ITEM = b"\xfe\xff\x00\xe0"
_MOST_ITEMS = 64
_CHARACTER_SETS = (b"ISO_IR 192", b"ISO 2022 IR 149", b"GB18030", b"ISO_IR 999", b"\\\\\\", b"\xff\xfe")


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
        data = changed(data, chance, DATA_SET_CHANGES)
    elif kind == "command":
        command = changed(command, chance, (flip, cut, repeat, length, _insert_element))
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
    return lambda stream: changed(
        stream,
        random.Random(state),
        (flip, flip, cut, repeat, _pdu_length, shuffle),  # as above
    )


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


def _item_length(data: bytearray, chance: random.Random) -> None:
    """Give an item of a sequence, or a fragment, a length that it has not (PS3.5 7.5, A.4)."""
    found, at = [], data.find(_ITEM)
    while 0 <= at < len(data) - 8 and len(found) < _MOST_ITEMS:
        found.append(at)
        at = data.find(_ITEM, at + 1)
    if found:
        at = chance.choice(found)
        data[at + 4 : at + 8] = struct.pack("<L", chance.choice(LENGTHS))


def _insert_element(data: bytearray, chance: random.Random) -> None:
    at = place(data, chance)
    data[at:at] = _element(chance.choice((0x0001, 0x0100, 0x0902, 0x1000, 0x1030, 0xFFFF)), chance.randbytes(6))


def _pdu_length(data: bytearray, chance: random.Random) -> None:
    heads = [at for at in range(min(len(data) - 6, 400)) if data[at] in range(1, 8) and data[at + 1] == 0]
    at = chance.choice(heads) if heads else 0
    data[at + 2 : at + 6] = struct.pack(">L", chance.choice(LENGTHS))


def _nest(data: bytearray, chance: random.Random) -> None:
    """Put all that follows into sequences that do not end."""
    at = data.find(PATIENT_NAME)
    if at >= 0:
        data[at:at] = LEVEL * chance.choice((5, 1000, 10_000))


DATA_SET_CHANGES: tuple[Change, ...] = (flip, cut, repeat, length, _vr, _character_set, _item_length, _nest)


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value
