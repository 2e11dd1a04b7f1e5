"""Grad-CAM over the source image as Secondary Capture (PS3.3 A.8.1), marked as not for diagnosis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.report.assignment import ObjectReference
from gateway.report.equipment import concept
from gateway.report.identity import RenderedObject, Rendering, finish, own_text
from gateway.report.modules import put_request_attributes
from gateway.report.picture import WARNING, blend_heat, fit, grey_plane, heat_map_kinds, labelled
from inference.findings import Code, Findings, HeatMap

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


def render_heat_maps(rendering: Rendering, outcome: Findings) -> list[RenderedObject]:
    """Return one Secondary Capture per heat map, each in its own series."""
    return [
        _render(rendering, kind, heat_map, position)
        for position, (kind, heat_map) in enumerate(heat_map_kinds(outcome.heat_maps))
    ]


def _render(rendering: Rendering, kind: str, heat_map: HeatMap, position: int) -> RenderedObject:
    blended = blend_heat(grey_plane(rendering.source, heat_map.frame), heat_map.weight)
    algorithm = rendering.algorithm
    pixels = labelled(fit(blended, rendering.options.heat_map_px), algorithm, f"Grad-CAM: {heat_map.class_name}")
    reference = rendering.reference(kind, _SECONDARY_CAPTURE)
    dataset = _image(reference, pixels)
    dataset.SeriesNumber = rendering.series_number(kind, position)
    dataset.SeriesDescription = own_text(rendering, f"{algorithm.name} heat map {heat_map.class_name}")[:64]
    dataset.ImageComments = own_text(rendering, f"{WARNING}. Grad-CAM of class {heat_map.class_name}.")
    dataset.Manufacturer = algorithm.manufacturer
    dataset.ManufacturerModelName = algorithm.name
    dataset.SoftwareVersions = algorithm.version
    dataset.DeviceSerialNumber = algorithm.weights_digest
    _refer_to_source(rendering, heat_map, dataset)
    put_request_attributes(rendering.source.study, dataset)
    return finish(rendering, reference, dataset)


def _image(reference: ObjectReference, pixels: NDArray[np.uint8]) -> Dataset:
    """Return general series, general image, image pixel and SC equipment modules for (Y, X, 3) pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = reference.sop_class_uid
    dataset.SOPInstanceUID = reference.sop_instance_uid
    dataset.SeriesInstanceUID = reference.series_instance_uid
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.InstanceNumber = 1
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = data + b"\x00" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    return dataset


def _refer_to_source(rendering: Rendering, heat_map: HeatMap, dataset: Dataset) -> None:
    """Name the source image (PS3.3 C.12.4, General Reference) and what was done to it."""
    header = rendering.source.header(heat_map.frame)
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if heat_map.frame.frame_number is not None:
        item.ReferencedFrameNumber = heat_map.frame.frame_number
    item.PurposeOfReferenceCodeSequence = [concept(_SOURCE_IMAGE)]
    dataset.SourceImageSequence = [item]
    dataset.DerivationDescription = own_text(
        rendering, f"Grad-CAM of class {heat_map.class_name} blended over the image; {WARNING.lower()}"
    )
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if header.get(keyword):
            setattr(dataset, keyword, header.get(keyword))
    dataset.PatientOrientation = header.get("PatientOrientation")
    if header.get("BodyPartExamined"):
        dataset.BodyPartExamined = header.BodyPartExamined
    if header.get("Laterality") or "BodyPartExamined" not in dataset:
        dataset.Laterality = header.get("Laterality")
