"""What follows from the audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from fhir_facade.audit_event import AuditEventRenderer
from fhir_facade.identity import installation_ids

from gateway.audit.keeper import AuditKeeper, SyslogForwarder
from gateway.audit.syslog import Repository
from gateway.config import Settings
from gateway.services import Heartbeat, Role
from gateway.store import Store
from gateway.wiring.audit import audit_source, chain_key


def build_keepers(settings: Settings, store: Store, heartbeat: Heartbeat) -> Sequence[Role]:
    """Return what makes FHIR resources of the trail and sends it to a repository."""
    source = audit_source(settings)
    as_resource = AuditEventRenderer(installation_ids(store.data_dir), source) if settings.audit.fhir else None
    keepers: list[Role] = [AuditKeeper(store, chain_key(settings), as_resource)]
    if settings.audit.address is not None:
        repository = Repository(*settings.audit.address, settings.audit)
        keepers.append(SyslogForwarder(store, heartbeat, repository, source))
    return keepers
