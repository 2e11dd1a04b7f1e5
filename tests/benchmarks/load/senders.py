"""Associations that send, break off or only knock; what each was told."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from tests.fuzz.corpus import Seed
from tests.fuzz.mutation import store_request
from tests.fuzz.peer import P_DATA_TF, associate_rq, p_data, read_pdu
from tests.receiving import CT, EXPLICIT, encoded, image

_TIMEOUT_S = 60.0
_LARGEST_BODY = 16000
_STUDY_MARK, _INSTANCE_MARK = b"9876543210", b"765432"
_UID = f"2.25.{_STUDY_MARK.decode()}.1{_INSTANCE_MARK.decode()}"
_OF_A_STUDY = 120
_RELEASE_RQ, _RELEASE_RP = struct.pack(">BxL4x", 5, 4), 6
_ABORT = struct.pack(">BxL4x", 7, 4)
_ASSOCIATE_AC, _ASSOCIATE_RJ = 2, 3
LOCAL_LIMIT = b"\0\x02\x03\x02"
"""Reserved byte, result, source and diagnostic of a rejection for want of a place (PS3.8 table 9-21)."""
_MOST_IN_ONE = 60
_SILENT = 30
_ABORTED_SHARE = 0.15


@dataclass
class Told:
    """What the receiver said, over all senders; for any thread."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stored: set[str] = field(default_factory=set)
    """SOP Instance UIDs that were answered with success."""
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, what: str) -> None:
        """Count something."""
        with self.lock:
            self.counts[what] += 1

    def note_stored(self, uid: str) -> None:
        """Keep an instance that was answered with success."""
        with self.lock:
            self.stored.add(uid)
            self.counts["success"] += 1


class RefusedError(Exception):
    """The association was rejected; the message is the body of the rejection."""


class Message:
    """A C-STORE in PDUs, of which the SOP Instance UID is another each time."""

    def __init__(self, kib: int) -> None:
        data_set = image(f"2.25.{_STUDY_MARK.decode()}", SOPInstanceUID=_UID)
        data_set.BitsAllocated = 8
        data_set.PixelData = random.Random(1).randbytes(kib << 10)
        data = encoded(data_set)
        pieces = [p_data(store_request(Seed(CT, _UID, EXPLICIT, data)), 3)]
        for start in range(0, len(data), _LARGEST_BODY):
            is_last = start + _LARGEST_BODY >= len(data)
            pieces.append(p_data(data[start : start + _LARGEST_BODY], 2 if is_last else 0))
        whole = b"".join(pieces)
        cut = whole.rindex(_STUDY_MARK) + 64
        self._head, self._tail = whole[:cut], whole[cut:]

    def of(self, sender: int, number: int) -> tuple[str, bytes]:
        """Return the SOP Instance UID and the PDUs of an instance; so many of a sender make a study."""
        study, instance = b"9%04d%05d" % (sender, number // _OF_A_STUDY), b"%06d" % number
        uid = study + b".1" + instance
        head = self._head.replace(_STUDY_MARK + b".1" + _INSTANCE_MARK, uid).replace(_STUDY_MARK, study)
        return f"2.25.{uid.decode()}", head + self._tail


class Sender(threading.Thread):
    """Associates again and again and sends its share, evenly over the time; now and then it breaks off.

    Parameters
    ----------
    port
        Of the receiver.
    number
        Of this sender; its studies have it in their UIDs.
    message
        What is sent.
    plan
        How many instances, over how many seconds.
    told
        Hears what came of it.
    """

    def __init__(self, port: int, number: int, message: Message, plan: tuple[int, float], told: Told) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._port = port
        self._number = number
        self._message = message
        self._count, self._seconds = plan
        self._told = told
        self._chance = random.Random(number)
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send all."""
        try:
            self._send_all()
        except BaseException as error:
            self.error = error
            raise

    def _send_all(self) -> None:
        began, sent = time.monotonic(), 0
        while sent < self._count:
            in_this = min(self._chance.randint(1, _MOST_IN_ONE), self._count - sent)
            try:
                peer = associate(self._port, f"LOAD{self._number}")
            except RefusedError:
                self._told.note("refused")
                time.sleep(1)
                continue
            self._told.note("association")
            with peer:
                for _ in range(in_this):
                    due_at = began + self._seconds * sent / self._count
                    time.sleep(max(0.0, due_at - time.monotonic()))
                    uid, pdus = self._message.of(self._number, sent)
                    if self._chance.random() < _ABORTED_SHARE / in_this:
                        self._break_off(peer, pdus)
                        break
                    self._send(peer, uid, pdus)
                    sent += 1
                else:
                    release(peer)

    def _send(self, peer: socket.socket, uid: str, pdus: bytes) -> None:
        peer.sendall(pdus)
        kind, body = read_pdu(peer)
        if kind == P_DATA_TF and b"\0\0\0\x09\x02\0\0\0\0\0" in body:
            self._told.note_stored(uid)
        else:
            self._told.note("failure")

    def _break_off(self, peer: socket.socket, pdus: bytes) -> None:
        """End in the middle of a data set: by A-ABORT, or without a word."""
        with contextlib.suppress(OSError):
            peer.sendall(pdus[: self._chance.randrange(len(pdus))])
            if self._chance.random() < 1 / 2:
                peer.sendall(_ABORT)
        self._told.note("broken off")


def knock(port: int, until: float, told: Told) -> None:
    """Connect and say nothing, or rubbish, or too little, several times a second, beside a crowd that stays."""
    chance = random.Random(0)
    with SilentCrowd(port, _SILENT) as those:
        while time.monotonic() < until:
            with contextlib.suppress(OSError), _connect(port) as peer:
                peer.sendall(chance.choice((b"", b"GET / HTTP/1.1\r\n\r\n", associate_rq(CT, EXPLICIT)[:20])))
                time.sleep(chance.choice((0.0, 0.1)))
            told.note("probe")
            those.refill()
            time.sleep(0.1)


class SilentCrowd:
    """Connections that stay and negotiate nothing: every other one has sent one byte.

    Parameters
    ----------
    port
        Of the receiver.
    count
        How many.
    """

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        self.refill()
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._held:
            peer.close()

    def refill(self) -> None:
        """Replace those that the receiver has ended."""
        ended, _, _ = select.select(self._held, [], [], 0)
        for peer in ended:
            peer.close()
            self._held.remove(peer)
        for number in range(self._count - len(self._held)):
            with contextlib.suppress(OSError):
                self._held.append(_connect(self._port))
                self._held[-1].sendall(b"\x01" * (number % 2))


def associate(port: int, calling_ae: str = "LOAD") -> socket.socket:
    """Open an association; RefusedError where it is rejected."""
    peer = _connect(port)
    peer.sendall(associate_rq(CT, EXPLICIT, calling_ae))
    kind, body = read_pdu(peer)
    if kind == _ASSOCIATE_AC:
        return peer
    peer.close()
    if kind == _ASSOCIATE_RJ:
        raise RefusedError(body)
    raise ConnectionError(f"PDU {kind} to a request for an association")


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)


def release(peer: socket.socket) -> None:
    """End an association in good order."""
    peer.sendall(_RELEASE_RQ)
    if read_pdu(peer)[0] != _RELEASE_RP:
        raise ConnectionError("no answer to the release")


def crowd(port: int, limit: int, more: int) -> dict[str, int]:
    """Open as many associations as there are places, then more; return how both went, and how it is afterwards."""
    counts = {"within": 0, "refused below the limit": 0, "refused above": 0, "let in above": 0, "afterwards": 0}
    held: list[socket.socket] = []
    for number in range(limit + more):
        try:
            held.append(associate(port))
        except RefusedError as refusal:
            is_told = refusal.args[0] == LOCAL_LIMIT and number >= limit
            counts["refused above" if is_told else "refused below the limit"] += 1
        else:
            counts["within" if number < limit else "let in above"] += 1
    for peer in held:
        release(peer)
        peer.close()
    with associate(port) as peer:
        release(peer)
        counts["afterwards"] = 1
    return counts
