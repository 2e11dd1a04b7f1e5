"""Where the images and the viewer are -> Endpoint; none where no address is known that others could use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fhir_facade.codes import LOCAL_SYSTEM
from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, present, reference
from fhir_facade.site import Site

_CONNECTION = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One service of this gateway."""

    name: str
    path: str
    system: str
    code: str
    payload: str
    media_types: tuple[str, ...]


_KINDS: Final = (
    _Kind("DICOMweb WADO-RS", "/dicomweb", _CONNECTION, "dicom-wado-rs", "DICOM objects", ("application/dicom",)),
    _Kind("Viewer", "/viewer", LOCAL_SYSTEM, "dicom-viewer", "Pages for people", ("text/html",)),
)


def endpoint_references(site: Site, ids: ResourceIds) -> list[Json]:
    """Return the references that an ImagingStudy carries."""
    return [reference("Endpoint", _id(kind, ids), kind.name) for kind in _KINDS if site.public_url]


def endpoint_resources(site: Site, managed_by: Json | None, ids: ResourceIds) -> list[Json]:
    """Return the Endpoints.

    Parameters
    ----------
    managed_by
        Reference to the Organization.
    """
    if not site.public_url:
        return []
    return [_resource(kind, site.public_url, managed_by, ids) for kind in _KINDS]


def _resource(kind: _Kind, public_url: str, managed_by: Json | None, ids: ResourceIds) -> Json:
    return present(
        {
            "resourceType": "Endpoint",
            "id": _id(kind, ids),
            "status": "active",
            "connectionType": {"system": kind.system, "code": kind.code, "display": kind.name},
            "name": kind.name,
            "managingOrganization": managed_by,
            "payloadType": [{"text": kind.payload}],
            "payloadMimeType": list(kind.media_types),
            "address": public_url + kind.path,
        }
    )


def _id(kind: _Kind, ids: ResourceIds) -> str:
    return ids.make("Endpoint", kind.code)
