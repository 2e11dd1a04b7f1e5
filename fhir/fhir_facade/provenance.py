"""How a result came about -> Provenance: one for each job, so that every revision keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fhir_facade.about import About
from fhir_facade.resource import Json, present

Role = Literal["author", "assembler", "verifier"]
_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


def provenance_resource(
    provenance_id: str,
    about: About,
    targets: Sequence[Json],
    agents: Sequence[tuple[Role, Json, Json | None]],
    replaced: Json | None,
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
            "agent": [_agent(*each) for each in agents],
            "entity": entities,
        }
    )


def _agent(role: Role, who: Json, on_behalf_of: Json | None) -> Json:
    kind = {"coding": [{"system": _AGENT, "code": role}]}
    return present({"type": kind, "who": who, "onBehalfOf": on_behalf_of})
