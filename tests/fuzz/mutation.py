"""Data sets, commands and PDUs, broken with a seed: the same seed breaks them in the same way."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.fuzz.changes import LENGTHS, Change, changed, cut, flip, length, place, repeat, shuffle
from tests.fuzz.corpus import LEVEL, PATIENT_NAME, Seed
from tests.fuzz.requests import command, element, requests

Kind = Literal["data set", "command", "PDU", "association", "service"]
KINDS: tuple[Kind, ...] = ("data set", "command", "PDU", "association", "service")
"""What is broken; of a service its command, its data set or its PDUs."""
_REQUESTS = requests()
_STORE_FIELD = element(0x0100, b"\x01\0")
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
    service: str = "C-STORE"

    @property
    def kept_digest(self) -> str | None:
        """By which the data set is kept where the answer is success; None where what arrives is not known."""
        if self.service != "C-STORE" or self.noise is not None or _STORE_FIELD not in self.command:
            return None
        return hashlib.sha256(self.seed.transfer_syntax_uid.encode() + self.data).hexdigest()


def attempt(number: int, run_seed: int, seeds: Sequence[Seed]) -> Attempt:
    """Return the input with a number."""
    chance = random.Random(run_seed * 1_000_003 + number)  # repeatable, no secret
    kind = KINDS[number % len(KINDS)]
    cut_at = chance.choice((64, 1000, 16384, 131066))
    if kind == "service":
        return _service_attempt(chance, cut_at)
    seed = chance.choice(seeds)
    asked, data, noise = store_request(seed), seed.data, None
    if kind == "data set":
        data = changed(data, chance, DATA_SET_CHANGES)
    elif kind == "command":
        asked = changed(asked, chance, COMMAND_CHANGES)
    else:
        noise = _noise(chance.getrandbits(64))
    return Attempt(kind, seed, asked, data, cut_at, noise)


def _service_attempt(chance: random.Random, cut_at: int) -> Attempt:
    """Break a request of a service besides storage somewhere; now and then it is whole."""
    request = chance.choice(_REQUESTS)
    asked, data, noise = request.command, request.context.data, None
    match chance.choice(("command", "data set", "PDU", "whole")):
        case "command":
            asked = changed(asked, chance, COMMAND_CHANGES)
        case "data set":
            data = changed(data, chance, DATA_SET_CHANGES)
        case "PDU":
            noise = _noise(chance.getrandbits(64))
    return Attempt("service", request.context, asked, data, cut_at, noise, request.name)


def store_request(seed: Seed) -> bytes:
    """Return the command of a C-STORE (PS3.7 table 9.3-1)."""
    return command(
        (0x0002, seed.sop_class_uid.encode()),
        (0x0100, b"\x01\0"),
        (0x0110, b"\x01\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\0\0"),
        (0x1000, seed.sop_instance_uid.encode()),
    )


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
    data[0:0] = b"\x08\0\x05\0CS" + struct.pack("<H", len(value)) + value


def _item_length(data: bytearray, chance: random.Random) -> None:
    """Give an item of a sequence, or a fragment, a length that it has not (PS3.5 7.5, A.4)."""
    found: list[int] = []
    at = data.find(_ITEM)
    while 0 <= at < len(data) - 8 and len(found) < _MOST_ITEMS:
        found.append(at)
        at = data.find(_ITEM, at + 1)
    if found:
        at = chance.choice(found)
        data[at + 4 : at + 8] = struct.pack("<L", chance.choice(LENGTHS))


def _insert_element(data: bytearray, chance: random.Random) -> None:
    at = place(data, chance)
    data[at:at] = element(chance.choice((0x0001, 0x0100, 0x0902, 0x1000, 0x1030, 0xFFFF)), chance.randbytes(6))


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
COMMAND_CHANGES: tuple[Change, ...] = (flip, cut, repeat, length, _insert_element)
