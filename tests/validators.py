"""Independent validators and readers of DICOM results, each run as the program that it is.

Every function returns what the program complains about, empty when it is content; `MissingProgramError` names what to
install. Warnings are left out: the validators warn about much that real scanners write.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")
_TIMEOUT_S = 300
_ERROR = re.compile(r"^\s*error\b|\berror\s*[-:]", re.IGNORECASE)
_ENTITY_ERROR = re.compile(r"^\s*error\b", re.IGNORECASE)


class MissingProgramError(RuntimeError):
    """A validator is not installed."""


def dciodvfy(path: Path) -> list[str]:
    """Check one object against its IOD (PS3.3); returns the lines that say 'Error'."""
    lines = _run([_program("dciodvfy", "apt: dicom3tools"), str(path)])
    return [line for line in lines if _ERROR.search(line)]


def dcentvfy(paths: Sequence[Path]) -> list[str]:
    """Check that patient, study, series and frame of reference are told alike by all of `paths`."""
    lines = _run([_program("dcentvfy", "apt: dicom3tools"), *(str(path) for path in paths)])
    return [line for line in lines if _ENTITY_ERROR.search(line)]


def dsrdump(path: Path) -> list[str]:
    """Read an SR with dcmtk; returns its errors, or a line for a failed exit."""
    program = _program("dsrdump", "apt: dcmtk")
    done = _execute([program, str(path)])
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))]
    if done.returncode and not complaints:
        complaints.append(f"dsrdump ended with {done.returncode}")
    return complaints


def pixelmed(path: Path) -> list[str]:
    """Check an SR against its templates with PixelMed's DicomSRValidator; returns the lines that say 'Error'."""
    if not _PIXELMED_JAR.exists():
        raise MissingProgramError("PixelMed's DicomSRValidator is missing (apt: libpixelmed-java)")
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command = [_program("java", "apt: default-jre-headless"), *quick, "-Xmx4g", "-Xss64m", *limits]
    lines = _run([*command, "-cp", str(_PIXELMED_JAR), "com.pixelmed.validate.DicomSRValidator", str(path)])
    if not any("Found" in line or "IOD" in line for line in lines):
        raise RuntimeError("DicomSRValidator gave no answer: " + " ".join(lines[-5:]))
    return [line for line in lines if "Error" in line]


def segimage2itkimage(path: Path) -> dict[int, NDArray[np.bool_]]:
    """Read a Segmentation with dcmqi.

    Returns
    -------
    Mask of each segment number, (Z, Y, X) bool, on the grid that dcmqi reconstructs: the source rows and columns,
    slices in ascending order along the normal from the first to the last that holds a segment.

    Raises
    ------
    RuntimeError
        dcmqi does not open it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command = [_dcmqi("segimage2itkimage"), "--inputDICOM", str(path), "--outputDirectory", folder]
        done = _execute([*command, "--outputType", "nrrd", "--prefix", "seg"])
        if done.returncode:
            raise RuntimeError("segimage2itkimage: " + (done.stderr or done.stdout)[-500:])
        return {int(file.stem.split("-")[1]): _nrrd(file) > 0 for file in sorted(out.glob("seg-*.nrrd"))}


def tid1500reader(path: Path) -> dict[str, object]:
    """Read a measurement SR with dcmqi; returns its JSON.

    Raises
    ------
    RuntimeError
        dcmqi does not open it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sr.json"
        done = _execute([_dcmqi("tid1500reader"), "--inputDICOM", str(path), "--outputMetadata", str(out)])
        if done.returncode or not out.exists():
            raise RuntimeError("tid1500reader: " + (done.stderr or done.stdout)[-500:])
        answer: dict[str, object] = json.loads(out.read_text())
        return answer


def _program(name: str, source: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingProgramError(f"{name} is missing ({source})")
    return found


def _dcmqi(name: str) -> str:
    """Return a program of the dcmqi wheel, which lies beside this interpreter."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        raise MissingProgramError(f"{name} is missing (pip: dcmqi)")
    return found


def _execute(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)


def _run(command: Sequence[str]) -> list[str]:
    """Return all lines of a program that answers on both streams."""
    done = _execute(command)
    return (done.stdout + done.stderr).splitlines()


def _nrrd(path: Path) -> NDArray[np.generic]:
    """Read a NRRD file (nrrd version 4, raw or gzip encoding, one file) as (Z, Y, X)."""
    content = path.read_bytes()
    head, _, body = content.partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode("ascii").splitlines() if ": " in line)
    if fields["encoding"] in ("gzip", "gz"):
        body = gzip.decompress(body)
    kinds = {"short": "<i2", "unsigned short": "<u2", "unsigned char": "u1", "uint8": "u1", "int16": "<i2"}
    sizes = [int(size) for size in fields["sizes"].split()]
    return np.frombuffer(body, dtype=kinds[fields["type"]]).reshape(sizes[::-1])
