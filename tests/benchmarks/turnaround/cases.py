"""A chest X-ray and a CT of 100 slices; real images where they lie beside the checkout, the tests' own otherwise."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

_REPOSITORY = Path(__file__).parents[3]
_X_RAY = _REPOSITORY / "gateway/samples/cxr-bacterial.dcm"
_CT = (_REPOSITORY.parent / "shared/data/dicom/ct-chest-philips", _REPOSITORY / "tests/data/ct-chest")
_SLICES = 100


@dataclass(frozen=True)
class Case:
    """A study that one bundle evaluates."""

    name: str
    bundle: str
    images: tuple[Dataset, ...]
    """In order of their numbers."""
    source: str
    """Where the images are from."""

    def write(self, folder: Path, *, is_announced: bool) -> Sequence[Path]:
        """Write the images as a study that nobody has seen; with `is_announced` they say how many they are."""
        folder.mkdir(parents=True)
        study_uid, series_uid = generate_uid(), generate_uid()
        paths = []
        for number, image in enumerate(self.images, start=1):
            image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = (
                study_uid,
                series_uid,
                generate_uid(),
            )
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.NumberOfStudyRelatedInstances = len(self.images) if is_announced else None
            paths.append(folder / f"{number:04}.dcm")
            image.save_as(paths[-1], enforce_file_format=True)
        return paths


def chest_x_ray() -> Case:
    """Return the X-ray: one image, a baseline JPEG."""
    return Case("chest X-ray", "cxr-pneumonia", (pydicom.dcmread(_X_RAY),), _X_RAY.parent.name)


def chest_ct(slices: int = _SLICES) -> Case:
    """Return the CT, uncompressed as scanners send it: between real slices, others are interpolated."""
    folder = next(each for each in _CT if each.is_dir())
    found = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    found.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    stored = np.stack([each.pixel_array for each in found])  # (Z, Y, X)
    heights = np.array([float(each.ImagePositionPatient[2]) for each in found])
    places = np.linspace(0, len(found) - 1, slices)
    template = found[0]
    del template.PixelData
    images = tuple(_slice(template, stored, heights, float(place), number) for number, place in enumerate(places, 1))
    return Case(f"CT, {slices} slices", "ct-lung", images, folder.name)


def _slice(
    template: Dataset, stored: NDArray[np.uint16], heights: NDArray[np.float64], place: float, number: int
) -> Dataset:
    """Return the slice at a fractional index of the stack."""
    below = min(int(place), len(stored) - 2)
    share = place - below
    values = (1 - share) * stored[below] + share * stored[below + 1]
    image = copy.deepcopy(template)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    x, y, _ = template.ImagePositionPatient
    height = (1 - share) * heights[below] + share * heights[below + 1]
    image.ImagePositionPatient = [x, y, f"{height:.4f}"]
    image.pop("SpacingBetweenSlices", None)
    image.pop("SliceLocation", None)
    image.InstanceNumber = number
    image.PixelData = np.rint(values).astype(stored.dtype).tobytes()
    image["PixelData"].VR = "OW"
    return image
