"""The gateway itself, which assembles the results -> Device."""

from __future__ import annotations

from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, reference


def gateway_id(ids: ResourceIds) -> str:
    """Return the resource id of this installation; it stays over its versions."""
    return ids.make("Device", "gateway")


def gateway_resource(version: str, ids: ResourceIds) -> Json:
    """Return this gateway."""
    return {
        "resourceType": "Device",
        "id": gateway_id(ids),
        "status": "active",
        "deviceName": [{"name": "HybridMed Gateway", "type": "model-name"}],
        "type": {"text": "Imaging AI gateway"},
        "version": [{"type": {"text": "software"}, "value": version}],
    }


def gateway_reference(ids: ResourceIds) -> Json:
    """Return the reference that other resources carry."""
    return reference("Device", gateway_id(ids), "HybridMed Gateway")
