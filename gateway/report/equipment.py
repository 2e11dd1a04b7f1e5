"""The algorithm as equipment and as observer: name, version, manufacturer, weights."""

from __future__ import annotations

import uuid
from datetime import datetime

import highdicom as hd
from pydicom.dataset import Dataset

from inference.findings import Algorithm, Code

_DEVICES = uuid.UUID("c0f9a4a2-6d0f-5d0c-9a3e-6b8f1c0f7e55")
"""Name space of device UIDs."""
_PROCESSING_ALGORITHM = Code("Newcode1", "99IHE", "Processing Algorithm")
"""Purpose of reference of the IHE profile AI Results, which awaits its number in DICOM."""


def device_uid(algorithm: Algorithm) -> str:
    """Return the UID of one algorithm in one version with one set of weights."""
    name = "/".join((algorithm.manufacturer, algorithm.name, algorithm.version, algorithm.weights_digest))
    return f"2.25.{uuid.uuid5(_DEVICES, name).int}"


def concept(code: Code) -> hd.sr.CodedConcept:
    """Return `code` as a code sequence item (PS3.3 table 8.8-1)."""
    return hd.sr.CodedConcept(code.value, code.scheme, code.meaning)


def identification(algorithm: Algorithm) -> hd.sr.AlgorithmIdentification:
    """Return the Algorithm Identification content items (PS3.16 TID 4019)."""
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[_weights(algorithm)],
        family=concept(algorithm.family),
        manufacturer=algorithm.manufacturer,
    )


def identification_sequence(algorithm: Algorithm) -> hd.AlgorithmIdentificationSequence:
    """Return the Algorithm Identification macro of an image (PS3.3 table 10-19)."""
    return hd.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=concept(algorithm.family),
        version=algorithm.version,
        source=algorithm.manufacturer,
        parameters={"weights": f"sha256:{algorithm.weights_digest}"},
    )


def observer(algorithm: Algorithm) -> hd.sr.ObservationContext:
    """Return the algorithm as device observer (PS3.16 TID 1004)."""
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(algorithm),
        name=algorithm.name,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        serial_number=algorithm.weights_digest,
    )
    device = hd.sr.CodedConcept("121007", "DCM", "Device")
    return hd.sr.ObservationContext(observer_device_context=hd.sr.ObserverContext(device, attributes))


def contribution(algorithm: Algorithm, at: datetime) -> Dataset:
    """Return the item of the Contributing Equipment Sequence (PS3.3 C.12.1) that names the algorithm."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept(_PROCESSING_ALGORITHM)]
    item.Manufacturer = algorithm.manufacturer
    item.ManufacturerModelName = algorithm.name
    item.SoftwareVersions = algorithm.version
    item.DeviceUID = device_uid(algorithm)
    item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = _weights(algorithm)
    return item


def _weights(algorithm: Algorithm) -> str:
    return f"weights=sha256:{algorithm.weights_digest}"
