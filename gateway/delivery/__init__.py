"""The role `deliver`: results to destinations, each at its own pace.

sender.py  what a way of sending has to offer
status.py  what a peer's status means for us
dimse.py   C-STORE
stow.py    STOW-RS
report_sender.py  what a way of sending reports has to offer; fhir.py  a transaction; hl7.py  ORU^R01 over MLLP
role.py    a thread for each destination
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.config import Destination
from gateway.delivery.dimse import DimseSender
from gateway.delivery.fhir import LARGEST_ANSWER, FhirSender
from gateway.delivery.hl7 import Hl7Sender
from gateway.delivery.report_sender import ReportSender
from gateway.delivery.role import Deliverer, DeliveryLimits
from gateway.delivery.sender import Outgoing, Sender
from gateway.delivery.stow import StowSender
from gateway.errors import ConfigurationError
from gateway.exchange.client import HttpClient
from gateway.exchange.deidentified import Pseudonyms
from gateway.exchange.mllp import MllpAddress
from gateway.exchange.oru import Parties
from gateway.secure_channel import ClientChannel

__all__ = ["Deliverer", "DeliveryLimits", "Outgoing", "Sender", "Sending", "open_sender"]


@dataclass(frozen=True, slots=True)
class Sending:
    """What senders share."""

    ae_title: str
    """Ours."""
    timeout_s: float
    """Limit of each step, or of a whole exchange by HTTP or MLLP."""
    security: ClientChannel | None = None
    """For destinations that are called by DICOM over TLS."""
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context
    """Whom we believe by HTTPS and MLLP over TLS."""
    pseudonyms: Pseudonyms | None = None
    """What stands for patients in reports to destinations that get them without; None: there are none such."""


def open_sender(destination: Destination, sending: Sending) -> Sender | ReportSender:
    """Return the way to send to a destination; nothing connects yet."""
    if destination.takes_reports:
        return _open_report_sender(destination, sending)
    address = destination.dicom
    sender: Sender = StowSender(destination.address, sending.timeout_s)
    if address is not None:
        sender = DimseSender(address, sending.ae_title, sending.timeout_s, sending.security)
    if destination.deidentify is None:
        return sender
    from gateway.privacy.deidentify import Deidentifier  # noqa: PLC0415 # its table is large, and few send without
    from gateway.privacy.sender import DeidentifyingSender  # noqa: PLC0415 # as above

    return DeidentifyingSender(sender, Deidentifier(_pseudonyms(destination, sending)))


def _pseudonyms(destination: Destination, sending: Sending) -> Pseudonyms:
    if sending.pseudonyms is None:
        raise ConfigurationError(f"destination {destination.name}: there are no pseudonyms for it")
    return sending.pseudonyms


def _open_report_sender(destination: Destination, sending: Sending) -> ReportSender:
    pseudonyms = _pseudonyms(destination, sending) if destination.deidentify else None
    if destination.way == "fhir":
        secret = destination.authorization
        client = HttpClient(sending.timeout_s, LARGEST_ANSWER, sending.trust)
        return FhirSender(destination.url, secret.get_secret_value() if secret else "", client, pseudonyms)
    parts = urlsplit(destination.address)
    tls = sending.trust() if parts.scheme == "mllps" else None
    receiver = MllpAddress(parts.hostname or "", parts.port or 0, tls)
    parties = Parties(sending.ae_title, destination.receiver)
    return Hl7Sender(destination.name, receiver, parties, sending.timeout_s, pseudonyms)
