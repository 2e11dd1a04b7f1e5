"""What a way of sending reports, rather than DICOM objects, has to offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gateway.exchange.report import Report


@dataclass(frozen=True, slots=True)
class OutgoingReport:
    """One report to send."""

    report: Report
    kind: str = "report"
    sop_class_uid: str = ""

    @property
    def study_instance_uid(self) -> str:
        """Of the study that was evaluated."""
        return self.report.study_instance_uid


@runtime_checkable
class ReportSender(Protocol):
    """Sends reports to one destination."""

    def send_report(self, report: Report, /) -> None:
        """Send a report; returns when the destination has taken all of it.

        Raises
        ------
        DestinationAwayError
            It does not answer, or takes nothing for now: the same call may succeed later.
        DeliveryError
            It answered, and refuses the report.
        """
