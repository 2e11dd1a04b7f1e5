"""The algorithm that made the results -> Device."""

from __future__ import annotations

from fhir_facade.codes import DICOM_UID, concept, urn_oid
from fhir_facade.identity import ResourceIds
from fhir_facade.resource import Json, clean, present, reference
from gateway.report.equipment import device_uid
from inference.findings import Algorithm


def algorithm_id(algorithm: Algorithm, ids: ResourceIds) -> str:
    """Return the resource id: another version or other weights are another device."""
    return ids.make("Device", algorithm.manufacturer, algorithm.name, algorithm.version, algorithm.weights_digest)


def algorithm_reference(algorithm: Algorithm, ids: ResourceIds) -> Json:
    """Return the reference that other resources carry."""
    return reference("Device", algorithm_id(algorithm, ids), f"{algorithm.name} {algorithm.version}")


def algorithm_resource(algorithm: Algorithm, ids: ResourceIds) -> Json:
    """Return the algorithm; its identifier is the Device UID (0018,1002) of the DICOM results."""
    digest = {"type": {"text": "SHA-256 of the weights"}, "valueCode": [{"text": algorithm.weights_digest}]}
    return present(
        {
            "resourceType": "Device",
            "id": algorithm_id(algorithm, ids),
            "identifier": [{"system": DICOM_UID, "value": urn_oid(device_uid(algorithm))}],
            "status": "active",
            "manufacturer": clean(algorithm.manufacturer),
            "deviceName": [{"name": clean(algorithm.name), "type": "model-name"}],
            "type": concept(algorithm.family),
            "version": [{"type": {"text": "algorithm"}, "value": clean(algorithm.version)}],
            "property": [digest],
        }
    )
