"""Associations that we ask for: small PDUs at once in both directions, no answer lost, ended as PS3.8 wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from ssl import SSLContext

    from pynetdicom.transport import AddressInformation

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux has it; elsewhere the kernel acknowledges when it likes."""
_LOOK_S = 0.05
"""How often to look whether an association's thread is still there."""


class PromptEntity(AE):
    """An application entity whose connections to peers wait for nothing and lose no answer.

    A request is two small writes, its command and the last of its data, and so is the answer of many peers, its header
    and its body. Left alone, the kernel of either side holds the second back until the first is acknowledged, and the
    other side acknowledges after 40 ms or more: a tenth of a second for each object.

    Whoever waits for an answer holds the association's own thread at a checkpoint, since that thread takes what comes
    for a request of the peer. pynetdicom only asks whether the thread was there last; let go and held again within one
    turn of the processor, as between two objects, it goes on, takes the answer and throws it away. `Checkpoint` is sure
    of it.
    """

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[SSLContext, str] | None
    ) -> AssociationSocket:
        assoc._reactor_checkpoint = Checkpoint(assoc)  # not started yet: nobody has looked at the library's own
        prompt = _PromptSocket(assoc, address=address)
        prompt.tls_args = tls_args
        return prompt


class _PromptSocket(AssociationSocket):
    """Sends at once, acknowledges at once."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(self, nr_bytes: int) -> bytearray:
        received = super().recv(nr_bytes)
        if _QUICK_ACK is not None and self.socket is not None:
            # Not kept by the kernel: said anew after each read, it acknowledges what was read.
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        return received


class Checkpoint(threading.Event):
    """Where the thread of an association of ours stops while answers are waited for; clearing it waits until it has.

    Parameters
    ----------
    association
        The thread that stops; one that clears the checkpoint itself does not wait for itself.
    """

    def __init__(self, association: threading.Thread) -> None:
        super().__init__()
        self._association = association
        self._changed = threading.Condition()
        self._is_open = True
        self._is_waited_at = False

    def is_set(self) -> bool:
        """Say whether the thread may pass."""
        return self._is_open

    def set(self) -> None:
        """Let the thread pass."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let the thread pass no more; returns once it stands at the checkpoint or has ended."""
        with self._changed:
            self._is_open = False
            if threading.current_thread() is self._association:
                return
            while self._association.is_alive() and not self._is_waited_at:
                self._changed.wait(_LOOK_S)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for leave to pass, and pass, as one step: a thread that stands here when it is cleared stays."""
        with self._changed:
            self._is_waited_at = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._is_open, timeout)
            finally:
                self._is_waited_at = False


@contextmanager
def held_still(association: Association) -> Iterator[None]:
    """Keep the thread of an association of ours from taking the answers that we wait for."""
    association._reactor_checkpoint.clear()
    try:
        yield
    finally:
        association._reactor_checkpoint.set()


@contextmanager
def ended(association: Association) -> Iterator[Association]:
    """Release an established association at the end of the block; abort it where the block fails."""
    try:
        yield association
    except BaseException:  # whatever ends the block, a generator that is closed too: the peer must not wait for us
        association.abort()
        raise
    association.release()
