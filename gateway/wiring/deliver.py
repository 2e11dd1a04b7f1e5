"""The role 'deliver'."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from gateway.config import Settings
from gateway.delivery import Deliverer, DeliveryLimits, open_sender
from gateway.services import Heartbeat
from gateway.store import Store


def build(settings: Settings, store: Store, heartbeat: Heartbeat) -> Deliverer:
    """Return the deliverer."""
    return Deliverer(
        store=store,
        heartbeat=heartbeat,
        destinations=settings.destinations,
        open_sender=partial(open_sender, ae_title=settings.ae_title, timeout_s=settings.delivery_timeout_s),
        limits=DeliveryLimits(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            retry_first=timedelta(seconds=settings.retry_s),
            retry_limit=timedelta(seconds=settings.retry_limit_s),
        ),
    )
