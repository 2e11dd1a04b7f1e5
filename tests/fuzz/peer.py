"""A hand-made sender: writes any bytes, and says how the receiver ended it."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct

from tests.fuzz.mutation import Attempt
from tests.receiving import CT, EXPLICIT

_A_ASSOCIATE_AC, P_DATA_TF, _A_ABORT = 2, 4, 7
_STATUS = b"\0\0\0\x09\x02\0\0\0"
_ANSWER_LIMIT = 1 << 20
PATIENCE_S = 0.3


def attack(port: int, attempt: Attempt, limit_s: float, patience_s: float = PATIENCE_S) -> str:
    """Write an attempt; return what came of it: 'status 0000' and so on, 'aborted', 'closed', or 'hang'.

    Parameters
    ----------
    port
        Of the receiver, on the loopback interface.
    attempt
        What is written.
    limit_s
        After which a receiver that says nothing hangs.
    patience_s
        How long an answer may take before we end our side: to wait for the rest of a broken message is no fault.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=limit_s) as peer:
        opening = associate_rq(attempt.seed.sop_class_uid, attempt.seed.transfer_syntax_uid)
        if attempt.service == "C-GET":
            opening = _with_storage(opening)
        message = _pdus(attempt)
        if attempt.noise is not None and attempt.kind == "association":
            opening = attempt.noise(opening)
        elif attempt.noise is not None:
            message = attempt.noise(message)
        try:
            peer.sendall(opening)
            if attempt.kind != "association":
                kind, body = read_pdu(peer)
                if kind != _A_ASSOCIATE_AC:
                    return f"not associated: PDU {kind} {body.hex()}"
            with contextlib.suppress(ConnectionError):
                peer.sendall(message)
            select.select([peer], [], [], patience_s)
            _end_our_side(peer)
            return _outcome(peer)
        except TimeoutError:
            return "hang"
        except (EOFError, ConnectionError):
            return "closed"


def _end_our_side(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # the receiver was first
            raise


def associate_rq(sop_class_uid: str, transfer_syntax_uid: str, calling_ae: str = "FUZZ") -> bytes:
    """Return an A-ASSOCIATE-RQ with one presentation context (PS3.8 9.3.2)."""
    context = b"\x01\0\0\0" + _item(0x30, sop_class_uid.encode()) + _item(0x40, transfer_syntax_uid.encode())
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"2.25.9")
    body = b"\0\x01\0\0" + b"HYBRIDMED".ljust(16) + calling_ae.encode().ljust(16) + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def _with_storage(opening: bytes) -> bytes:
    """Offer to take CT images on the same association, as whoever retrieves by C-GET does (PS3.7 D.3.3.4)."""
    context = b"\x03\0\0\0" + _item(0x30, CT.encode()) + _item(0x40, EXPLICIT.encode())
    role = _item(0x54, struct.pack(">H", len(CT)) + CT.encode() + b"\0\x01")
    at = opening.index(_item(0x51, struct.pack(">L", 16384)))  # the first item of the user information
    body = opening[6 : at - 4] + _item(0x20, context) + _item(0x50, opening[at:] + role)
    return struct.pack(">BxL", 1, len(body)) + body


def _pdus(attempt: Attempt) -> bytes:
    pieces = [p_data(attempt.command, 3)]
    if attempt.service != "C-STORE" and not attempt.data:
        return pieces[0]
    for start in range(0, len(attempt.data) or 1, attempt.cut):
        is_last = start + attempt.cut >= len(attempt.data)
        pieces.append(p_data(attempt.data[start : start + attempt.cut], 2 if is_last else 0))
    return b"".join(pieces)


def p_data(payload: bytes, control: int) -> bytes:
    """Return a P-DATA-TF with one fragment (PS3.8 9.3.5)."""
    return struct.pack(">BxLLBB", P_DATA_TF, len(payload) + 6, len(payload) + 2, 1, control) + payload


def _outcome(peer: socket.socket) -> str:
    """Read to the end; say what the first answer to a request was, or how it ended without."""
    said = ""
    while True:
        try:
            kind, body = read_pdu(peer)
        except (EOFError, ConnectionError):
            return said or "closed"
        at = body.find(_STATUS)
        if kind == P_DATA_TF and at >= 0 and not said:
            (status,) = struct.unpack_from("<H", body, at + len(_STATUS))
            said = f"status {status:04X}"
        elif kind == _A_ABORT:
            return said or "aborted"


def read_pdu(peer: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU; EOFError where there is none."""
    kind, length = struct.unpack(">BxL", _read(peer, 6))
    if length > _ANSWER_LIMIT:
        raise EOFError("an answer longer than any")
    return kind, _read(peer, length)


def _read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError("closed")
        data += more
    return data


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value
