"""Where the results come from: the addresses and the institution that resources name."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.report.order import ImagingOrder


@dataclass(frozen=True, slots=True)
class Site:
    """What others need to know of this installation."""

    public_url: str | None = None
    """Of the HTTP server, without a slash at the end; None: no address that others could use is known."""
    institution: str = ""
    """Who answers for the reports; empty: the institution of the images."""

    def institution_of(self, order: ImagingOrder) -> str:
        """Return who answers for the reports on these images; empty where nobody is named."""
        return self.institution or order.institution


UNKNOWN_SITE = Site()
