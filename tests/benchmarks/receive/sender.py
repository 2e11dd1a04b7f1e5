"""A sender that is not the bottleneck: PDUs are prepared before the clock starts; each association is a process.

`python -m tests.benchmarks.receive.sender PORT CALLED_AE SOP_CLASS TEMPLATE COUNT ASSOCIATIONS RUN` prints a JSON line.
It imports no DICOM library: associations and C-STORE are written by hand (PS3.7 9.3.1, PS3.8 9.3).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UID_ROOT = "2.25.1"
RUN_DIGITS = 12
"""Digits of a UID that tell run and association; six more, behind a dot, tell the instance."""
_OUR_PDU = 131072
_TIMEOUT_S = 600
_EXPLICIT = b"1.2.840.10008.1.2.1"
_RUN_MARK, _INSTANCE_MARK = b"987654321012", b"987654"
_ASSOCIATE_RQ, _ASSOCIATE_AC, _P_DATA, _RELEASE_RQ, _RELEASE_RP = 1, 2, 4, 5, 6


def template_uid() -> str:
    """Return the SOP Instance UID of a template; those of study and series begin like it."""
    return f"{UID_ROOT}{_RUN_MARK.decode()}.1{_INSTANCE_MARK.decode()}"


@dataclass(frozen=True)
class Plan:
    """What one run sends."""

    port: int
    called_ae: str
    sop_class_uid: str
    template: Path
    count: int
    associations: int
    run: int


@dataclass(frozen=True)
class Message:
    """A framed C-STORE request; the part with UIDs aside, it is the same for all instances."""

    head: bytes
    tail: memoryview

    def of(self, run: int, association: int, instance: int) -> bytes:
        """Return the head of one instance."""
        mark = b"%08d%04d" % (run, association)
        return self.head.replace(_RUN_MARK + b".1" + _INSTANCE_MARK, mark + b".1%06d" % instance).replace(
            _RUN_MARK, mark
        )


def main(arguments: Sequence[str]) -> None:
    """Send, and print what came of it."""
    port, called_ae, sop_class_uid, template, count, associations, run = arguments
    plan = Plan(int(port), called_ae, sop_class_uid, Path(template), int(count), int(associations), int(run))
    peer, largest = _associate(plan)
    _release(peer)
    message = _framed(plan, largest)
    begin_read, begin_write = os.pipe()
    results = [_start(plan, message, number, (begin_read, begin_write)) for number in range(plan.associations)]
    os.close(begin_read)
    time.sleep(0.1)
    began = time.perf_counter()
    os.close(begin_write)
    reports = [_report(pid, result) for pid, result in results]
    took_s = time.perf_counter() - began
    latencies = sorted(latency for report in reports for latency in report["latencies_s"])
    said = {
        "took_s": took_s,
        "failures": sum(report["failures"] for report in reports),
        "sender_cpu_s": sum(report["cpu_s"] for report in reports),
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p95_ms": 1000 * latencies[int(0.95 * (len(latencies) - 1))],
        "largest_pdu": largest,
    }
    print(json.dumps(said))


def _start(plan: Plan, message: Message, number: int, begin: tuple[int, int]) -> tuple[int, int]:
    """Fork the process of one association; it begins when the other end of the pipe `begin` is closed."""
    result_read, result_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(result_write)
        return pid, result_read
    os.close(begin[1])
    heads = [
        message.of(plan.run, number, instance)
        for instance in range(plan.count)
        if instance % plan.associations == number
    ]
    os.read(begin[0], 1)
    failures, latencies = _send(plan, heads, message.tail)
    spent = os.times()
    said = {"failures": failures, "latencies_s": latencies, "cpu_s": spent.user + spent.system}
    with os.fdopen(result_write, "w") as stream:
        json.dump(said, stream)
    os._exit(0)


def _report(pid: int, result: int) -> dict[str, Any]:
    with os.fdopen(result) as stream:
        said = stream.read()
    os.waitpid(pid, 0)
    if not said:
        raise RuntimeError("a sender failed")
    found: dict[str, Any] = json.loads(said)
    return found


def _send(plan: Plan, heads: Sequence[bytes], tail: memoryview) -> tuple[int, list[float]]:
    peer, _ = _associate(plan)
    failures, latencies = 0, []
    for head in heads:
        began = time.perf_counter()
        peer.sendall(head)
        peer.sendall(tail)
        # Not 40 ms late: a receiver that leaves Nagle's algorithm on waits for this before the rest of its answer.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        kind, body = _read_pdu(peer)
        latencies.append(time.perf_counter() - began)
        failures += kind != _P_DATA or _status(body) != 0
    _release(peer)
    return failures, latencies


def _associate(plan: Plan) -> tuple[socket.socket, int]:
    """Open an association with one presentation context; return it and the receiver's maximum PDU length."""
    peer = socket.create_connection(("127.0.0.1", plan.port))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit = struct.pack("ll", _TIMEOUT_S, 0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)  # a blocking socket, unlike after settimeout()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    context = struct.pack(">BBBB", 1, 0, 0, 0) + _item(0x30, plan.sop_class_uid.encode()) + _item(0x40, _EXPLICIT)
    user = _item(0x51, struct.pack(">I", _OUR_PDU)) + _item(0x52, b"2.25.1") + _item(0x55, b"BENCHMARK")
    body = struct.pack(">HH", 1, 0) + plan.called_ae.ljust(16).encode() + b"BENCHMARK".ljust(16) + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, context) + _item(0x50, user)
    peer.sendall(struct.pack(">BBI", _ASSOCIATE_RQ, 0, len(body)) + body)
    kind, answer = _read_pdu(peer)
    if kind != _ASSOCIATE_AC:
        raise RuntimeError("the association was rejected")
    return peer, _largest_pdu(answer)


def _release(peer: socket.socket) -> None:
    peer.sendall(struct.pack(">BBI4x", _RELEASE_RQ, 0, 4))
    if _read_pdu(peer)[0] != _RELEASE_RP:
        raise RuntimeError("no answer to the release")
    peer.close()


def _largest_pdu(answer: bytes) -> int:
    """Return the maximum length (PS3.8 annex D.1) of an A-ASSOCIATE-AC; 0 is: no limit."""
    position = 68
    while position < len(answer):
        kind, length = struct.unpack_from(">BxH", answer, position)
        if kind == 0x50:  # user information
            _, largest = struct.unpack_from(">BxxxI", answer, position + 4)
            return int(largest)
        if kind == 0x21 and answer[position + 6]:  # presentation context with a reason for refusal
            raise RuntimeError("the presentation context was refused")
        position += 4 + length
    raise RuntimeError("no maximum length")


def _framed(plan: Plan, largest: int) -> Message:
    """Return the request in PDUs, as large as the receiver takes them, at most 128 KiB."""
    data_set = plan.template.read_bytes()
    payload = min(largest or _OUR_PDU, _OUR_PDU) - 6
    pieces = [_pdu(_store_rq(plan.sop_class_uid.encode()), 3)]
    for start in range(0, len(data_set), payload):
        piece = data_set[start : start + payload]
        pieces.append(_pdu(piece, 2 if start + payload >= len(data_set) else 0))
    whole = b"".join(pieces)
    cut = whole.rindex(_RUN_MARK) + 64
    return Message(whole[:cut], memoryview(whole)[cut:])


def _store_rq(sop_class_uid: bytes) -> bytes:
    elements = (
        (0x0002, sop_class_uid),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", 1)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1)),
        (0x1000, template_uid().encode()),
    )
    body = b"".join(_element(number, value) for number, value in elements)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def _pdu(payload: bytes, control: int) -> bytes:
    """Return a P-DATA-TF PDU with one presentation data value of presentation context 1."""
    return struct.pack(">BBIIBB", _P_DATA, 0, len(payload) + 6, len(payload) + 2, 1, control) + payload


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _status(body: bytes) -> int:
    position = 6
    while position < len(body):
        _, number, length = struct.unpack_from("<HHI", body, position)
        if number == 0x0900:  # Status
            return int(struct.unpack_from("<H", body, position + 8)[0])
        position += 8 + length
    return -1


def _read_pdu(peer: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", _read(peer, 6))
    return kind, _read(peer, length)


def _read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError("the receiver closed the connection")
        data += more
    return data


if __name__ == "__main__":
    main(sys.argv[1:])
