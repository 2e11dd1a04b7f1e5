"""The audit trail of a command; what a role's is made of."""

from __future__ import annotations

from gateway.audit.chain import ChainKey, load_key
from gateway.audit.dicom_xml import AuditSource
from gateway.audit.event import AuditEvent
from gateway.audit.lines import append
from gateway.config import Settings, load_settings
from gateway.store import Store


def chain_key(settings: Settings) -> ChainKey:
    """Return how lines are hashed."""
    return load_key(settings.audit.chain_key_file)


def audit_source(settings: Settings) -> AuditSource:
    """Return who reports: our AE title."""
    return AuditSource(settings.ae_title, settings.audit.enterprise_site)


def note(store: Store, *events: AuditEvent) -> None:
    """Append what a command did, at once and in a transaction of its own."""
    with store.write() as connection:
        append(connection, events, chain_key(load_settings()))
