"""What a hospital's FHIR server says of patients and studies that this gateway knows; of others nothing is taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_facade.codes import DICOM_UID
from fhir_facade.demographics import Patients
from fhir_facade.outcome import FhirError
from fhir_facade.resource import Json
from fhir_facade.written import checked
from gateway.store.tables import fhir_resource

_UNTAKEN = frozenset({"contained", "text", "meta", "implicitRules", "link", "photo"})
"""Elements of the other server's resource that mean nothing here, or are large."""
_OURS = 2


@dataclass(frozen=True, slots=True)
class Polled:
    """Takes resources of another server (`gateway.exchange.poller.Take`).

    Parameters
    ----------
    patients
        Writes patients.
    server
        Base address of the other server.
    """

    patients: Patients
    server: str

    def __call__(self, connection: Connection, resource: Json, now: datetime, /) -> str:
        """Take one resource; return what became of it."""
        try:
            own = {name: _absolute(value, self.server) for name, value in resource.items() if name not in _UNTAKEN}
            content = checked(orjson.dumps(own), resource["resourceType"])
        except (FhirError, RecursionError):
            return "refused"
        if content["resourceType"] == "ImagingStudy":
            return self._study(connection, content, now)
        return self._patient(connection, content, now)

    def _patient(self, connection: Connection, content: Json, now: datetime) -> str:
        resource_id = self.patients.id_for(connection, content)
        if resource_id is None or not _is_held(connection, resource_id):
            return "unknown"
        self.patients.write(connection, content | {"id": resource_id}, self.server, now)
        return "taken"

    def _study(self, connection: Connection, content: Json, now: datetime) -> str:
        uids = [
            each["value"].removeprefix("urn:oid:")
            for each in content.get("identifier", ())
            if each.get("system") == DICOM_UID and "value" in each
        ]
        taken = [self.patients.note_study(connection, uid, content, self.server, now) for uid in uids]
        return "taken" if any(taken) else "unknown"


def _is_held(connection: Connection, resource_id: str) -> bool:
    row = fhir_resource.c
    query = sa.select(row.id).where(row.type == "Patient", row.resource_id == resource_id, row.is_current)
    return connection.scalar(query) is not None


def _absolute(value: Any, server: str) -> Any:
    """Return an element whose references lead to the other server, wherever they are read."""
    if isinstance(value, list):
        return [_absolute(each, server) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _absolute(each, server) for name, each in value.items()}
    text = changed.get("reference")
    if isinstance(text, str) and len(text.split("/")) == _OURS and ":" not in text:
        changed["reference"] = f"{server}/{text}"
    return changed
