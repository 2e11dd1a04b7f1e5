"""One connection over the fast path."""

from __future__ import annotations

from pynetdicom.association import Association

from gateway.receive.peer_buffer import BufferedPeerSocket
from gateway.receive.reactor import Checkpoint, PromptDUL, WakingQueue
from gateway.storage_service import StorageService
from gateway.upper_layer import PeerHandler


class PromptHandler(PeerHandler):
    """As `PeerHandler`, with an association whose threads block and whose C-STORE takes the short way."""

    def _fit_out(self, association: Association) -> None:
        service = self.server.new_service(association)
        assert isinstance(service, StorageService)  # noqa: S101 # as the receiver makes them
        checkpoint = Checkpoint(lambda: service.is_attended)
        dul = PromptDUL(association, checkpoint.tick)
        association._reactor_checkpoint = checkpoint
        association.dul = dul
        association.dimse = service
        service.msg_queue = WakingQueue(checkpoint.tick)
        service.is_direct = True
        largest, timeout_s = self.server.longest_read, self.server.pdu_timeout_s
        dul.connect(BufferedPeerSocket(association, self.request, largest, timeout_s, dul.wakening), service)
