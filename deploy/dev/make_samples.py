"""Make the shipped sample studies from the public data sets: `python -m deploy.dev.make_samples DATA_FOLDER`.

The chest X-rays go to `gateway/samples` (Kermany et al., CC BY 4.0), a cropped MR series to
`tests/data/mr-hippocampus` and a stretch of one chest CT, in lossless JPEG-LS, to `tests/data/ct-chest` (both from
The Cancer Imaging Archive). Needs dcmtk. The same data give the same files.
"""

import argparse
import shutil
import subprocess
from pathlib import Path

from tests.xray import XRay, wrap_xray

REPOSITORY = Path(__file__).resolve().parents[2]
XRAYS = {
    "normal": (
        "IM-0500-0001.jpeg",
        XRay("SAMPLE-001", "Sample^Ada", sex="F", age="004Y", accession_number="SAMPLE-A1", study_time="090000"),
    ),
    "bacterial": (
        "person3_bacteria_10.jpeg",
        XRay("SAMPLE-002", "Sample^Ben", sex="M", age="002Y", accession_number="SAMPLE-A2", study_time="091500"),
    ),
    "viral": (
        "person409_virus_820.jpeg",
        XRay("SAMPLE-003", "Sample^Cleo", sex="F", age="003Y", accession_number="SAMPLE-A3", study_time="093000"),
    ),
}
CT_SLICES = range(19, 41)
MR_SERIES = "hcrop"


def make_xrays(data: Path, target: Path) -> None:
    """Wrap one X-ray of each fine class as DX."""
    for fine_class, (image, xray) in XRAYS.items():
        wrap_xray(data / "cxr-fullres" / image, target / f"cxr-{fine_class}.dcm", xray)


def copy_mr(data: Path, target: Path) -> None:
    """Copy the cropped MR series as it is."""
    for file in sorted((data / "dicom" / "mr-hippocampus" / MR_SERIES).glob("*.dcm")):
        shutil.copyfile(file, target / f"{int(file.stem):02}.dcm")


def compress_ct(data: Path, target: Path) -> None:
    """Compress contiguous slices of a chest CT without loss, keeping their UIDs."""
    program = shutil.which("dcmcjpls")
    if program is None:
        raise SystemExit("dcmcjpls is missing: install dcmtk")
    for number in CT_SLICES:
        source = data / "dicom" / "ct-chest-philips" / f"1-{number:02}.dcm"
        subprocess.run([program, "--uid-never", source, target / f"{number:02}.dcm"], check=True)


def main() -> None:
    """Read the data folder from the command line and write all samples."""
    parser = argparse.ArgumentParser(description="Make the shipped sample studies.")
    parser.add_argument("data", type=Path, help="folder with cxr-fullres and dicom")
    data = parser.parse_args().data
    for folder, make in (
        (REPOSITORY / "gateway" / "samples", make_xrays),
        (REPOSITORY / "tests" / "data" / "mr-hippocampus", copy_mr),
        (REPOSITORY / "tests" / "data" / "ct-chest", compress_ct),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        make(data, folder)


if __name__ == "__main__":
    main()
