"""Content of a resource -> a version as the store takes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from fhir_facade.index import index_entries
from fhir_facade.resource import Json, encode
from gateway.store.results import FhirVersion, IndexEntry


def new_version(
    content: Json, zone: tzinfo | None, study_instance_uid: str | None, extra: Sequence[IndexEntry] = ()
) -> FhirVersion:
    """Return a resource as the store takes it: checked, with the values that it is found by."""
    return FhirVersion(
        type=content["resourceType"],
        resource_id=content["id"],
        study_instance_uid=study_instance_uid,
        body=encode(content),
        index=index_entries(content, zone, extra),
    )
