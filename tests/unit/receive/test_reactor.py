"""The upper layer's thread while data comes without a pause."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

from pynetdicom import AE
from pynetdicom.association import Association

from gateway.receive.peer_buffer import BufferedPeerSocket
from gateway.receive.reactor import PromptDUL

_PDU = b"\4\0" + (100_006).to_bytes(4) + (100_002).to_bytes(4) + b"\1\0" + bytes(100_000)
_PDUS = 20


@dataclass
class _Disk:
    """A service that notes with each piece of a data set since when the association counts as silent."""

    dul: PromptDUL
    is_receiving: bool = True
    silent_since: list[float | None] = field(default_factory=list)

    def receive_data(self, _context_id: int, _pieces: list[memoryview]) -> None:
        self.silent_since.append(self.dul._idle_timer._start_time)

    def end_data(self) -> None:
        raise AssertionError

    def receive_fragment(self, _context_id: int, _fragment: bytes) -> None:
        raise AssertionError


def test_an_association_that_sends_without_a_pause_is_not_idle() -> None:
    """A peer faster than the disk never leaves the socket empty: its silence is counted from each read all the same."""
    dul = PromptDUL(Association(AE(), "acceptor"), lambda: None)
    disk = _Disk(dul)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as theirs:
        ours, _ = server.accept()
        with ours:
            dul.connect(BufferedPeerSocket(dul.assoc, ours, 1 << 20, 30.0, dul.wakening), disk)
            dul.state_machine.current_state = "Sta6"
            sender = threading.Thread(target=theirs.sendall, args=(_PDU * _PDUS,))
            sender.start()
            while sender.is_alive():
                dul._read_pdu_data()
            dul._read_pdu_data()
    dul.wakening.close()

    assert len(disk.silent_since) > 1
    assert len(set(disk.silent_since)) == len(disk.silent_since)
