"""How a result came about -> Provenance: one for each job, so that every revision keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fhir_facade.about import About
from fhir_facade.resource import Json, present

Role = Literal["author", "assembler"]
_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance_resource(
    provenance_id: str,
    about: About,
    targets: Sequence[Json],
    agents: Sequence[tuple[Role, Json]],
    replaced: Json | None,
) -> Json:
    """Return the Provenance.

    Parameters
    ----------
    targets
        References to the report and its Observations.
    agents
        References to the Devices: `author` found it, `assembler` wrote it down.
    replaced
        Reference to the version of the report that this result takes the place of.
    """
    entities = [{"role": "source", "what": about.imaging_study}]
    if replaced is not None:
        entities.append({"role": "revision", "what": replaced})
    return present(
        {
            "resourceType": "Provenance",
            "id": provenance_id,
            "target": list(targets),
            "recorded": about.issued,
            "agent": [_agent(role, who) for role, who in agents],
            "entity": entities,
        }
    )


def _agent(role: Role, who: Json) -> Json:
    return {"type": {"coding": [{"system": _AGENT, "code": role}]}, "who": who}
