"""A finished job -> the FHIR resources that tell its report, as they stand now.

What was stored is taken, and what it refers to: what is not sent along is not referred to either. The report as it
stands now is sent, not as the job left it: of two deliveries that overtake each other none takes back the later word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.store.tables import fhir_resource, job

Json: TypeAlias = dict[str, Any]
_MADE_BY_JOB = ("DiagnosticReport", "Observation", "Provenance")
_REFERRED = frozenset(
    {"DiagnosticReport", "Observation", "Patient", "ImagingStudy", "Device", "Organization", "Practitioner"}
)
"""An order is not sent: it is the hospital's. A report refers to it by its number."""
_MOST = 2000
_OURS = 2
"""Parts of a reference to a resource of this server: type and id."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report with all that it refers to."""

    job_id: str
    study_instance_uid: str
    resources: Sequence[Json]

    def of_type(self, resource_type: str) -> list[Json]:
        """Return the resources of a type, in order."""
        return [each for each in self.resources if each["resourceType"] == resource_type]


def read_report(connection: Connection, job_id: str) -> Report:
    """Return the report of a job; one without resources where the job made none."""
    made = sa.select(fhir_resource.c.type, fhir_resource.c.resource_id).where(
        fhir_resource.c.job_id == job_id, fhir_resource.c.type.in_(_MADE_BY_JOB)
    )
    wanted = dict.fromkeys(
        f"{row.type}/{row.resource_id}" for row in connection.execute(made.order_by(fhir_resource.c.id))
    )
    found: dict[str, Json] = {}
    while missing := [name for name in wanted if name not in found][: _MOST - len(found)]:
        found |= _read(connection, missing)
        for name in missing:
            wanted |= dict.fromkeys(_references(found.setdefault(name, {})))
    present = {name: content for name, content in found.items() if content}
    study_uid = connection.scalar(sa.select(job.c.study_instance_uid).where(job.c.id == job_id)) or ""
    return Report(job_id, study_uid, [_pruned(content, set(present)) for content in present.values()])


def _read(connection: Connection, names: Sequence[str]) -> dict[str, Json]:
    """Return the current versions of resources, given as `Type/id`."""
    ids = [name.partition("/")[2] for name in names]
    query = sa.select(fhir_resource.c.type, fhir_resource.c.resource_id, fhir_resource.c.body).where(
        fhir_resource.c.is_current,
        fhir_resource.c.resource_id.in_(ids),
        fhir_resource.c.type.in_(_REFERRED | {*_MADE_BY_JOB}),
    )
    rows = {f"{row.type}/{row.resource_id}": row.body for row in connection.execute(query)}
    return {name: json.loads(rows[name], parse_float=Decimal) for name in names if name in rows}


def _references(element: Any) -> Iterator[str]:
    """Yield the resources of this server that an element refers to, whatever their version."""
    if isinstance(element, list):
        for each in element:
            yield from _references(each)
    elif isinstance(element, dict):
        text = element.get("reference")
        if isinstance(text, str):
            parts = text.split("/")
            if len(parts) == _OURS and parts[0] in _REFERRED:
                yield text
        for value in element.values():
            yield from _references(value)


def _pruned(content: Json, present: set[str]) -> Json:
    """Return a resource without references that lead nowhere outside of this server, and without its attachments."""
    kept = {name: value for name, value in content.items() if name not in {"media", "presentedForm", "endpoint"}}
    return {
        name: value
        for name, value in ((name, _kept(value, present)) for name, value in kept.items())
        if value is not None
    }


def _kept(value: Any, present: set[str]) -> Any:
    """Return an element; None where it, or a single element in it, is a reference that leads nowhere.

    One that names an identifier too is kept as a logical reference (R4 references, 2.3.0.2).
    """
    if isinstance(value, list):
        items = [each for each in (_kept(item, present) for item in value) if each is not None]
        return items or None
    if not isinstance(value, dict):
        return value
    text = value.get("reference")
    if isinstance(text, str) and "://" not in text and not text.startswith("urn:") and text not in present:
        logical = {name: each for name, each in value.items() if name != "reference"}
        return logical if "identifier" in value else None
    kept = {name: _kept(each, present) for name, each in value.items()}
    if any(each is None for name, each in kept.items() if not isinstance(value[name], list)):
        return None
    return {name: each for name, each in kept.items() if each is not None}
