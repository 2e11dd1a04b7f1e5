"""pynetdicom's two threads of an association, blocking where the library sleeps a millisecond and looks again.

The upper layer's thread asks its socket whether there is something to read: ours answers once there is, or once the
other thread has something to send. The association's thread stops at its checkpoint in each round: ours lets it go on
once there is something to look at.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

from gateway.receive.data_transfer import DataTransfer, FragmentSink
from gateway.receive.peer_buffer import BufferedPeerSocket, Wakening

log = structlog.get_logger()

_DATA_TRANSFER = "Sta6"
_CLOSED, _INVALID_PDU = "Evt17", "Evt19"  # PS3.8 table 9-10
_IDLE_LOOK_S = 0.5
_ATTENDED_LOOK_S = 0.02
_JOIN_S = 5.0


class WakingQueue(queue.Queue[Any]):
    """A queue that tells when something is put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put, then tell."""
        super().put(item, block, timeout)
        self._wake()


class Checkpoint(threading.Event):
    """Where the association's thread waits in each round: for something to look at, and for leave to go on.

    Parameters
    ----------
    is_attended
        Whether somebody wants to be called while nothing happens.
    """

    def __init__(self, is_attended: Callable[[], bool]) -> None:
        super().__init__()
        self.set()
        self._tick = threading.Event()
        self._is_attended = is_attended

    def tick(self) -> None:
        """Say that there is something to look at."""
        self._tick.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait; the library gives no time limit."""
        self._tick.wait(_ATTENDED_LOOK_S if self._is_attended() else _IDLE_LOOK_S)
        self._tick.clear()
        return super().wait(timeout)


class PromptDUL(DULServiceProvider):
    """The upper layer of one association.

    Parameters
    ----------
    association
        pynetdicom's, as acceptor; its time limits hold here too.
    tick
        Tells the association's thread that there is something to look at.
    """

    def __init__(self, association: Association, tick: Callable[[], None]) -> None:
        super().__init__(association)
        self.wakening = Wakening()
        self.to_provider_queue = WakingQueue(self.wakening.set)
        self.to_user_queue = WakingQueue(tick)
        self.artim_timer.timeout = association.acse_timeout
        self._idle_timer.timeout = association.network_timeout
        self._run_loop_delay = 0.0  # the socket waits
        self._tick = tick
        self._transfer: DataTransfer | None = None

    def connect(self, peer: BufferedPeerSocket, sink: FragmentSink) -> None:
        """Begin with a connection, and the service that takes what comes over it."""
        self.socket = peer
        self._transfer = DataTransfer(peer, sink)

    def run_reactor(self) -> None:
        """Run until the connection has ended; then the association's thread is to see it."""
        try:
            super().run_reactor()
        finally:
            self._tick()
            self.wakening.close()

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.wakening.set()

    def stop_dul(self) -> bool:
        """End the thread if the connection has ended."""
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if threading.current_thread() is not self:
            self.join(_JOIN_S)
        return True

    def _read_pdu_data(self) -> None:
        """Take what came: P-DATA of an established association here, everything else as the library does."""
        peer, transfer = self.socket, self._transfer
        if self.state_machine.current_state != _DATA_TRANSFER or transfer is None or peer is None:
            super()._read_pdu_data()
            return
        assert isinstance(peer, BufferedPeerSocket)  # noqa: S101 # as `connect` was given it
        try:
            while transfer.receive():
                if self._has_other_work():
                    return
                if peer.fill() == 0:
                    self.event_queue.put(_CLOSED)
                    return
                self._idle_timer.restart()  # we may not come back to the loop that does it for as long as data comes
        except BlockingIOError:
            return
        except OSError:
            self.event_queue.put(_CLOSED)
            return
        except Exception as error:  # whatever a stranger sends must end in an A-ABORT, not in a dead thread
            log.warning("association.broken", error=type(error).__name__)
            self.event_queue.put(_INVALID_PDU)
            return
        super()._read_pdu_data()

    def _has_other_work(self) -> bool:
        return self._kill_thread or not self.event_queue.empty() or not self.to_provider_queue.empty()
