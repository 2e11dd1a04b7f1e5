"""The seam to pynetdicom's transport: connections that say nothing cost no association, and no PDU is endless.

pynetdicom 3.0 starts two polling threads for each TCP connection and reads any PDU length a peer announces, without a
time limit. PACS health checks open bare connections all day, so a thread waits here for the first byte and only then
an association begins.
"""

from __future__ import annotations

import queue
import select
import socket
import socketserver
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from typing import Any

import structlog
from pynetdicom import fsm
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from gateway.receive.lobby import Lobby, end_quietly
from gateway.secure_channel import SecureChannel

log = structlog.get_logger()

_LARGEST_NEGOTIATION = 1 << 20
"""Bytes of an A-ASSOCIATE-RQ: 128 presentation contexts with every transfer syntax take a third of it."""
_BACKLOG = 128


def _leave_unsent(dul: DULServiceProvider) -> str:
    """Drop what is to be sent over an association that ended while it was made; stay in the state (PS3.8 9.2.3).

    One request may be announced twice: the queue is looked at again while the abort's own event is worked on.
    """
    with suppress(queue.Empty):
        dul.to_provider_queue.get(False)
    return dul.state_machine.current_state


# The table of PS3.8 says nothing of an answer that meets an abort, and pynetdicom's thread would end on it with the
# socket open: we answer in one thread while another finds that the peer breaks the protocol, or has gone.
fsm.ACTIONS["unsent"] = ("Leave what an ended association was to send unsent", _leave_unsent, "Sta13")
for _event, _state in product(("Evt7", "Evt8", "Evt9"), ("Sta1", "Sta13")):  # accept, reject, P-DATA
    fsm.TRANSITION_TABLE[_event, _state] = "unsent"


def _indicate_association(dul: DULServiceProvider) -> str:
    """Tell of a request for an association (PS3.8 AE-6), or abort where it holds what no request may.

    pynetdicom decodes a request and looks at its values afterwards, such as at presentation context ids, which are odd.
    Its thread would end on one of those, and the association hold its place until it is given up.
    """
    try:
        return str(fsm.AE_6(dul))
    except Exception as error:  # whatever a stranger sends must end in an A-ABORT, not in a dead thread
        log.warning("association.broken", error=type(error).__name__)
        return str(fsm.AA_1(dul))


_description, _, _next_states = fsm.ACTIONS["AE-6"]
fsm.ACTIONS["AE-6"] = (_description, _indicate_association, _next_states)


class PeerSocket(AssociationSocket):
    """A socket whose PDUs end: in length and in time.

    Parameters
    ----------
    association
        Whose socket it is; its announcement of the connection has been made already by the socket this one replaces.
    client_socket
        The connection.
    largest_pdu
        Longest read, in bytes.
    pdu_timeout_s
        Time limit of one read.
    """

    def __init__(
        self, association: Association, client_socket: socket.socket, largest_pdu: int, pdu_timeout_s: float
    ) -> None:
        super().__init__(association, client_socket=client_socket)
        self._peer = client_socket
        self._largest_pdu = largest_pdu
        self._pdu_timeout_s = pdu_timeout_s
        self._poll = select.poll()
        self._poll.register(client_socket, select.POLLIN)
        client_socket.settimeout(pdu_timeout_s)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; unlike the original's select(), for any number of open files."""
        if self.socket is None or not self._is_connected:
            return False
        has_decrypted = isinstance(self._peer, ssl.SSLSocket) and self._peer.pending() > 0
        return has_decrypted or bool(self._poll.poll(0))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, fewer at the end of the connection; OSError past the limits."""
        if nr_bytes > self._largest_pdu:
            raise OSError("PDU longer than the limit")
        data = bytearray(nr_bytes)
        view = memoryview(data)
        deadline = time.monotonic() + self._pdu_timeout_s
        read = 0
        while read < nr_bytes:
            if time.monotonic() > deadline:
                raise TimeoutError("PDU slower than the limit")
            count = self._peer.recv_into(view[read:])
            if count == 0:
                return bytearray(view[:read])
            read += count
        return data

    def _shutdown_socket(self) -> None:
        """Close for good: the original leaves the file open where the peer has gone first."""
        end_quietly(self._peer)
        self._peer.close()


class PeerHandler(RequestHandler):
    """One connection: wait for its first byte, then hand it to an association."""

    server: StorageServer

    def handle(self) -> None:
        """Begin an association once the peer speaks; close the connection if it does not."""
        server = self.server
        if not server.wait_for_first_byte(self.request):
            server.lobby.counters.add("hybridmed_connections_bare_total")
            server.shutdown_request(self.request)
        elif server.channel is None:
            super().handle()
        elif (secured := server.channel.secured(self.request, self.client_address[0], server.lobby)) is not None:
            self.request = secured
            super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        self._fit_out(association)
        return association

    def _fit_out(self, association: Association) -> None:
        """Give an association our own connection and service."""
        dul = association.dul
        dul.event_queue.get_nowait()  # the plain socket announced the connection; ours does it again
        dul.socket = PeerSocket(association, self.request, self.server.longest_read, self.server.pdu_timeout_s)
        association.dimse = self.server.new_service(association)


class StorageServer(ThreadedAssociationServer):
    """The listening side.

    Parameters
    ----------
    args, options
        Those of pynetdicom's `AssociationServer`, with `PeerHandler` as the request handler.
    new_service
        Makes the DIMSE service of each association.
    pdu_timeout_s
        Time limit of the first byte and of each PDU.
    lobby
        Where connections are until they have an association; closed when the server stops.
    channel
        Speaks TLS with every connection, in its own thread; None: none does.
    is_shared
        Whether other processes listen on the same port: the kernel hands each connection to one of them.
    """

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(
        self,
        *args: Any,
        new_service: Callable[[Association], DIMSEServiceProvider],
        pdu_timeout_s: float,
        lobby: Lobby,
        channel: SecureChannel | None = None,
        is_shared: bool = False,
        **options: Any,
    ) -> None:
        self.channel = channel
        self._is_shared = is_shared
        self.new_service = new_service
        self.pdu_timeout_s = pdu_timeout_s
        self.lobby = lobby
        super().__init__(*args, **options)

    def server_bind(self) -> None:
        """Bind, beside others where the port is shared."""
        if self._is_shared:
            assert self.socket is not None  # noqa: S101 # TCPServer has just made it
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    @property
    def longest_read(self) -> int:
        """Longest PDU that is read: of P-DATA what we ask for, and its header."""
        ae: ApplicationEntity = self.ae
        return max(_LARGEST_NEGOTIATION, ae.maximum_pdu_size + 6)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection that may not come, before it has a thread."""
        return self.lobby.enter(request, client_address[0])

    def wait_for_first_byte(self, peer: socket.socket) -> bool:
        """Return whether the peer spoke in time, and may still wait."""
        try:
            poll = select.poll()
            poll.register(peer, select.POLLIN)
            has_event = bool(poll.poll(self.pdu_timeout_s * 1000))
            is_waiting = has_event and self.lobby.holds(peer)
            return is_waiting and bool(peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def stop(self) -> None:
        """Stop listening and close the connections without an association; associations go on."""
        self.lobby.close()
        socketserver.BaseServer.shutdown(self)
        self.server_close()
