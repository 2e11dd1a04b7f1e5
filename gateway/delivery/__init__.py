"""The role `deliver`: results to destinations, each at its own pace.

sender.py  what a way of sending has to offer
status.py  what a peer's status means for us
dimse.py   C-STORE
stow.py    STOW-RS
role.py    a thread for each destination
"""

from gateway.config import Destination
from gateway.delivery.dimse import DimseSender
from gateway.delivery.role import Deliverer, DeliveryLimits
from gateway.delivery.sender import Outgoing, Sender
from gateway.delivery.stow import StowSender

__all__ = ["Deliverer", "DeliveryLimits", "Outgoing", "Sender", "open_sender"]


def open_sender(destination: Destination, *, ae_title: str, timeout_s: float) -> Sender:
    """Return the way to send to a destination; nothing connects yet.

    Parameters
    ----------
    ae_title
        Ours.
    timeout_s
        Limit of each step.
    """
    address = destination.dicom
    if address is None:
        return StowSender(destination.address, timeout_s)
    return DimseSender(address, ae_title, timeout_s)
