"""How a result came about -> Provenance: one for each job, so that every revision keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fhir_facade.about import About
from fhir_facade.codes import DICOM_UID, urn_oid
from fhir_facade.resource import Json, present

Role = Literal["author", "assembler", "verifier"]
Activity = Literal["CREATE", "UPDATE", "NULLIFY"]
"""Of HL7 v3 DataOperation."""
_OPERATION = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance_resource(  # noqa: PLR0913, PLR0917 # all that is told of how a result came about
    provenance_id: str,
    about: About,
    targets: Sequence[Json],
    agents: Sequence[tuple[Role, Json, Json | None]],
    replaced: Json | None,
    activity: Activity,
    inputs: Sequence[str] = (),
) -> Json:
    """Return the Provenance.

    Parameters
    ----------
    targets
        References to the report and its Observations.
    agents
        Role, reference and, of a person, the organisation: the Device that is `author` found it, the one that is
        `assembler` wrote it down, the person who is `verifier` said that it is so, or not.
    replaced
        Reference to the version of the report that this result takes the place of.
    activity
        What was done: a result made, made anew, or said to be right or wrong.
    inputs
        Series Instance UIDs of what the algorithms were shown.
    """
    entities = [{"role": "source", "what": about.imaging_study}]
    if replaced is not None:
        entities.append({"role": "revision", "what": replaced})
    entities += [{"role": "source", "what": _series(uid)} for uid in inputs]
    return present(
        {
            "resourceType": "Provenance",
            "id": provenance_id,
            "target": list(targets),
            "recorded": about.issued,
            "activity": {"coding": [{"system": _OPERATION, "code": activity}]},
            "agent": [_agent(*each) for each in agents],
            "entity": entities,
        }
    )


def _series(uid: str) -> Json:
    named = {"system": DICOM_UID, "value": urn_oid(uid)}
    return {"type": "ImagingStudy", "identifier": named, "display": "Series that was evaluated"}


def _agent(role: Role, who: Json, on_behalf_of: Json | None) -> Json:
    kind = {"coding": [{"system": _AGENT, "code": role}]}
    return present({"type": kind, "who": who, "onBehalfOf": on_behalf_of})
