"""What every route of the FHIR server is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final

from fhir_facade.matching import Clock
from fhir_facade.resource import Json
from gateway.exchange.endpoint import AllowedEndpoints
from gateway.store import Store

NO_ENDPOINTS: Final = AllowedEndpoints((), with_loopback=False)


@dataclass(frozen=True, slots=True)
class ExchangeRules:
    """What others may have this server do."""

    endpoints: AllowedEndpoints = NO_ENDPOINTS
    """Of subscriptions."""
    max_subscriptions: int = 100
    """That are not off."""


NOTHING_EXCHANGED: Final = ExchangeRules()


@dataclass(frozen=True, slots=True)
class FhirServer:
    """The store and what is fixed at the start."""

    store: Store
    zone: tzinfo | None
    """The site's zone, for dates without offset in searches; None: that of this machine."""
    since: datetime
    """When this server was made."""
    exchange: ExchangeRules = NOTHING_EXCHANGED
    """For subscriptions."""
    security: Json | None = None
    """How callers prove who they are; None: nobody has to."""

    def clock(self) -> Clock:
        """Return what dates in a search are measured against."""
        return Clock(datetime.now(UTC), self.zone)
