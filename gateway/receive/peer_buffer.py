"""The connection of an association with a receive buffer, and a wait for whatever happens first."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time

from pynetdicom.association import Association

from gateway.upper_layer import PeerSocket

_BUFFER_BYTES = 1 << 18
_LONGEST_WAIT_S = 0.5
"""After which timers are looked at."""
_CLOSED_WAIT_S = 0.01


class Wakening:
    """An eventfd: any thread wakes the one that waits for it in poll()."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def set(self) -> None:
        """Wake; nothing happens after `close`."""
        with self._lock:
            if self.descriptor >= 0:
                os.eventfd_write(self.descriptor, 1)

    def clear(self) -> None:
        """Forget earlier calls of `set`."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


class BufferedPeerSocket(PeerSocket):
    """A socket that is read in large pieces while P-DATA comes, and exactly where the library reads.

    Parameters
    ----------
    association, client_socket, largest_pdu, pdu_timeout_s
        As of `PeerSocket`.
    wakening
        Ends a wait for data.
    """

    def __init__(
        self,
        association: Association,
        client_socket: socket.socket,
        largest_pdu: int,
        pdu_timeout_s: float,
        wakening: Wakening,
    ) -> None:
        super().__init__(association, client_socket, largest_pdu, pdu_timeout_s)
        self.largest_pdu = largest_pdu
        self.pdu_timeout_s = pdu_timeout_s
        self.view = memoryview(b"")
        self.start = self.end = 0
        """Bounds of what is in the buffer and not yet taken."""
        self.is_unread = False
        """Whether nobody has looked at what is in the buffer."""
        self.due_at: float | None = None
        """When the PDU that is being read must be complete (monotonic); None between PDUs."""
        self._wakening = wakening
        self._poll.register(wakening.descriptor, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Wait until there is something to read or to do; whether it is something to read.

        The loop that asks does nothing else meanwhile. It is to look at its timers twice a second.
        """
        if self.socket is None or not self._is_connected:
            time.sleep(_CLOSED_WAIT_S)  # the association's thread is about to end ours
            return False
        if self.is_unread or self._is_overdue() or self._decrypted():
            return True
        dul = self.assoc.dul
        may_wait = dul.state_machine.current_state != "Sta13" and dul.event_queue.empty() and not dul._kill_thread
        events = dict(self._poll.poll(_LONGEST_WAIT_S * 1000 if may_wait else 0))
        if self._wakening.descriptor in events:
            self._wakening.clear()
        return self._peer.fileno() in events or self._is_overdue()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, those in the buffer first."""
        held = min(nr_bytes, self.end - self.start)
        if held == 0:
            return super().recv(nr_bytes)
        data = bytearray(self.view[self.start : self.start + held])
        self.start += held
        self.is_unread = self.start < self.end
        return data if held == nr_bytes else data + super().recv(nr_bytes - held)

    def fill(self) -> int:
        """Read what is there, behind what is in the buffer; 0 at the end of the connection.

        Raises
        ------
        BlockingIOError
            Nothing is there.
        """
        if not self.view:
            self.view = memoryview(bytearray(_BUFFER_BYTES))
        held = self.end - self.start
        if held and self.start:
            self.view[:held] = bytes(self.view[self.start : self.end])  # less than a header of P-DATA
        self.start, self.end = 0, held
        count = self._read_at_once(self.view[held:])
        self.end += count
        return count

    def _read_at_once(self, room: memoryview) -> int:
        if not isinstance(self._peer, ssl.SSLSocket):
            return os.readv(self._peer.fileno(), [room])  # the socket's own methods would poll first
        if not self._peer.pending() and self._peer.fileno() not in dict(self._poll.poll(0)):
            raise BlockingIOError
        return self._peer.recv_into(room)

    def _decrypted(self) -> bool:
        return isinstance(self._peer, ssl.SSLSocket) and self._peer.pending() > 0

    def _is_overdue(self) -> bool:
        return self.due_at is not None and time.monotonic() > self.due_at
