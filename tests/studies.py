"""The real studies that tests run on: all of `../shared/data` where that is present, the shipped samples otherwise."""

from dataclasses import dataclass
from pathlib import Path

import pydicom

from tests.xray import XRay, wrap_xray

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RealData:
    """Where real, de-identified studies lie."""

    samples: Path
    """Folder of the shipped samples: `mr-hippocampus` and `ct-chest`."""

    shared: Path | None
    """The shared data beside the checkout, or None on a machine without it."""

    scratch: Path
    """Folder that the X-rays of the shared data are wrapped into, once."""

    @property
    def cxr(self) -> list[Path]:
        """The three shipped chest X-rays: bacterial, normal, viral."""
        return dicom_files(REPOSITORY / "gateway" / "samples")

    def studies(self) -> dict[str, list[Path]]:
        """Return all studies at hand by name: `ct-philips`, `ct-siemens` (shared only), `mr`, `xrays` and `odd`.

        `xrays` is one study per file; `odd` are files of many studies, whole ones and broken ones.
        """
        if self.shared is None:
            return {
                "ct-philips": dicom_files(self.samples / "ct-chest"),
                "mr": dicom_files(self.samples / "mr-hippocampus"),
                "xrays": self.cxr,
                "odd": dicom_files(Path(pydicom.__file__).parent / "data" / "test_files"),
            }
        return {
            "ct-philips": dicom_files(self.shared / "dicom" / "ct-chest-philips"),
            "ct-siemens": dicom_files(self.shared / "dicom" / "ct-chest-siemens"),
            "mr": dicom_files(self.shared / "dicom" / "mr-hippocampus"),
            "xrays": self._wrapped_xrays(self.shared / "cxr-fullres"),
            "odd": dicom_files(self.shared / "dicom-odd"),
        }

    def describe(self) -> str:
        """Say which data the tests run on, as the first line of a run does."""
        return "../shared/data present: all of it" if self.shared else "shipped samples only"

    def _wrapped_xrays(self, folder: Path) -> list[Path]:
        images = sorted(folder.glob("*.jpeg"))
        wrapped = [self.scratch / image.with_suffix(".dcm").name for image in images]
        for number, (image, target) in enumerate(zip(images, wrapped, strict=True), start=1):
            if not target.exists():
                wrap_xray(image, target, XRay(patient_id=f"TEST-{number:03}", patient_name=f"Xray^Number{number}"))
        return wrapped


def find(scratch: Path) -> RealData:
    """Look for the data from the repository on."""
    shared = REPOSITORY.parent / "shared" / "data"
    return RealData(samples=REPOSITORY / "tests" / "data", shared=shared if shared.is_dir() else None, scratch=scratch)


def dicom_files(folder: Path) -> list[Path]:
    """Return all files with the suffix `.dcm` below a folder, sorted."""
    return sorted(folder.rglob("*.dcm"))
