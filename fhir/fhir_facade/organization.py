"""The institution that answers for the reports -> Organization."""

from __future__ import annotations

from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, clean, present, reference
from fhir_facade.site import Site
from gateway.report.order import ImagingOrder

_TYPE = {"system": "http://terminology.hl7.org/CodeSystem/organization-type", "code": "prov"}


def organization_reference(site: Site, order: ImagingOrder, ids: ResourceIds) -> Json | None:
    """Return the reference that other resources carry; None where no institution is known."""
    name = clean(site.institution_of(order))
    return reference("Organization", ids.make("Organization", name), name) if name else None


def organization_resource(site: Site, order: ImagingOrder, ids: ResourceIds) -> Json | None:
    """Return the Organization; None where no institution is known."""
    name = clean(site.institution_of(order))
    if not name:
        return None
    address = clean(order.institution_address) if name == clean(order.institution) else ""
    return present(
        {
            "resourceType": "Organization",
            "id": ids.make("Organization", name),
            "active": True,
            "type": [{"coding": [_TYPE | {"display": "Healthcare Provider"}]}],
            "name": name,
            "address": [{"text": address}] if address else None,
        }
    )
