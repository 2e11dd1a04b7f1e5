"""Chest X-rays of the public JPEG set, wrapped as Digital X-Ray Images (PS3.3 A.26) of made-up patients.

A baseline JPEG goes into the DICOM file without recompression; its application segments, which may carry names and
dates, stay behind. A progressive JPEG, for which DICOM has no transfer syntax any more, is decoded and kept as
lossless JPEG-LS.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

SOURCE = "Kermany et al., Labeled Optical Coherence Tomography and Chest X-Ray Images, CC BY 4.0"
_STUDY_DATE = "20260105"
_START_OF_IMAGE, _START_OF_SCAN, _COMMENT = 0xD8, 0xDA, 0xFE
_APPLICATION_SEGMENTS = range(0xE0, 0xF0)
_BASELINE_FRAME = 0xC0


@dataclass(frozen=True)
class XRay:
    """What the made-up patient and study of a wrapped X-ray say."""

    patient_id: str
    patient_name: str
    sex: str = ""
    age: str = "003Y"
    accession_number: str = ""
    study_time: str = "090000"


def wrap_xray(jpeg: Path, target: Path, xray: XRay) -> None:
    """Write a grey JPEG as a valid Digital X-Ray Image - For Presentation; the same input gives the same bytes.

    Parameters
    ----------
    jpeg
        An 8-bit grey JPEG file.
    target
        DICOM file to write.
    xray
        The made-up patient and study.

    Raises
    ------
    ValueError
        If the image is not 8-bit grey.
    """
    encoded = jpeg.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode != "L":
            raise ValueError(f"{jpeg.name}: 8-bit grey wanted, not mode {image.mode}")
        pixels = np.asarray(image)  # (Y, X) uint8
    dataset = _dataset(jpeg.name, target)
    _describe_patient_and_study(dataset, jpeg.name, xray)
    _describe_acquisition(dataset)
    _describe_pixels(dataset, pixels.shape, len(encoded))
    segments = list(_segments(encoded))
    if any(marker == _BASELINE_FRAME for marker, _ in segments):
        dataset.PixelData = encapsulate([_without_application_data(segments)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    else:
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        dataset.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    dataset.save_as(target, enforce_file_format=True)


def _dataset(name: str, target: Path) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid(name, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(target), {}, preamble=b"\0" * 128, file_meta=meta)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return dataset


def _describe_patient_and_study(dataset: Dataset, name: str, xray: XRay) -> None:
    """Fill the Patient, General Study, Patient Study and General Equipment modules."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = xray.patient_name
    dataset.PatientID = xray.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = xray.sex
    dataset.PatientAge = xray.age
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Published data set; patient and study are made up"
    dataset.StudyInstanceUID = _uid(name, "study")
    dataset.StudyID = "1"
    dataset.StudyDate = _STUDY_DATE
    dataset.StudyTime = xray.study_time
    dataset.StudyDescription = "Chest X-ray"
    dataset.AccessionNumber = xray.accession_number
    dataset.ReferringPhysicianName = ""
    dataset.Manufacturer = ""


def _describe_acquisition(dataset: Dataset) -> None:
    """Fill the series, anatomy, positioning and detector modules of the DX IOD."""
    dataset.SeriesInstanceUID = _uid(str(dataset.StudyInstanceUID), "series")
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "AP"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    dataset.ViewCodeSequence = [_code("399348003", "SCT", "antero-posterior")]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.PositionerType = ""
    dataset.DetectorType = ""
    dataset.ImageComments = f"Image: {SOURCE}. Pixel spacing is nominal."
    # Type 1 in the DX Detector module, and lost when the data set was published.
    dataset.ImagerPixelSpacing = [0.2, 0.2]


def _describe_pixels(dataset: Dataset, shape: tuple[int, ...], encoded_length: int) -> None:
    """Fill the Image Pixel, DX Image and VOI LUT modules for an image that was once compressed with loss."""
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept = 0
    dataset.RescaleSlope = 1
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter = 128
    dataset.WindowWidth = 256
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = round(shape[0] * shape[1] / encoded_length, 2)
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _uid(name: str, kind: str) -> UID:
    """Derive a UID of the 2.25 root from a name (PS3.5 B.2)."""
    digest = hashlib.sha256(f"{kind}:{name}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a JPEG stream (ISO 10918-1, B.1.1.2) into marker and bytes; the scan and all after it are one piece."""
    yield _START_OF_IMAGE, jpeg[:2]
    position = 2
    while jpeg[position + 1] != _START_OF_SCAN:
        length = 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        yield jpeg[position + 1], jpeg[position : position + length]
        position += length
    yield _START_OF_SCAN, jpeg[position:]


def _without_application_data(segments: list[tuple[int, bytes]]) -> bytes:
    kept = (content for marker, content in segments if marker not in _APPLICATION_SEGMENTS and marker != _COMMENT)
    return b"".join(kept)
