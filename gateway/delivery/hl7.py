"""Reports to an HL7 v2 receiver by ORU^R01 over MLLP, for hospitals without FHIR."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.errors import DeliveryError
from gateway.exchange.deidentified import Pseudonyms, deidentified
from gateway.exchange.mllp import MllpAddress, send_message
from gateway.exchange.oru import Parties, control_id, oru
from gateway.exchange.report import Report


@dataclass(frozen=True, slots=True)
class Hl7Sender:
    """Client of one receiver.

    Parameters
    ----------
    name
        Of the destination.
    address, parties
        Where it is; who is named in MSH.
    timeout_s
        Limit of a message with its acknowledgement.
    pseudonyms
        What stands for patients; None: reports are sent with the patient.
    """

    name: str
    address: MllpAddress
    parties: Parties
    timeout_s: float
    pseudonyms: Pseudonyms | None

    def send_report(self, report: Report, /) -> None:
        """Send; see `ReportSender`."""
        sent = report if self.pseudonyms is None else deidentified(report, self.pseudonyms)
        identity = control_id(report.job_id, self.name)
        message = oru(sent, self.parties, identity, datetime.now().astimezone())
        if message is None:
            raise DeliveryError("the job made no report")
        send_message(self.address, message, identity, self.timeout_s)
