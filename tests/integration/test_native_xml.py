"""The Native DICOM Model beside dcmtk's dcm2xml, and where the services answer with it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from gateway.store import Store
from tests.dicomweb import as_file, dicomweb, instance_path, parts, store_files
from tests.receiving import image

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
XML = "application/dicom+xml"
IN_PARTS = f'multipart/related; type="{XML}"'
NAMESPACE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
_KEYWORD = re.compile(rb'tag="(\w+)" vr="\w\w" keyword="(\w+)"')
_NUMBERS = {"DS", "FL", "FD", "IS", "SL", "SS", "UL", "US"}
_ADDED = {"00080005", "00083002"}
"""Character set of the answer, Available Transfer Syntax UID."""
_TO_XML = ["dcm2xml", "--native-format", "+U8"]
_FILES = [
    "MR_small_implicit.dcm",
    "CT_small.dcm",
    "reportsi.dcm",
    "rtplan.dcm",
    "liver_1frame.dcm",
    "test-SR.dcm",
]

Model: TypeAlias = dict[str, tuple[str, list[Any]]]


@pytest.fixture
def server(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over an empty store."""
    with dicomweb(sqlite_store) as client:
        yield client


def plain(document: bytes) -> Model:
    """Return what a document says by tag: VR and values; binary ones left out."""
    return _attributes(ElementTree.fromstring(re.sub(rb'xmlns="[^"]*"', b"", document)))  # noqa: S314 # our own


def _attributes(element: ElementTree.Element) -> Model:
    model: Model = {}
    for one in element.findall("DicomAttribute"):
        names: Mapping[str, str] = one.attrib
        if one.find("InlineBinary") is None and one.find("BulkData") is None and names["vr"] not in {"OB", "OW", "UN"}:
            model[names["tag"]] = names["vr"], [_value(names["vr"], each) for each in one]
    return model


def _value(vr: str, element: ElementTree.Element) -> Any:
    if element.tag == "Item":
        return _attributes(element)
    if element.tag == "PersonName":
        return [(group.tag, [(part.tag, part.text) for part in group]) for group in element]
    text = element.text or ""
    return float(text) if vr in _NUMBERS and text.strip() else text.strip()


@pytest.mark.parametrize("name", _FILES)
def test_metadata_say_what_dcmtk_says(server: httpx.Client, tmp_path: Path, name: str) -> None:
    """Tags, VRs, keywords, values, names and nested items agree with dcm2xml on files of several makers."""
    path = TEST_FILES / name
    data_set = pydicom.dcmread(path)
    data_set.remove_private_tags()  # dcmtk knows private dictionaries, which give other VRs
    assert store_files(server, [as_file(data_set)]).status_code == 200
    (tmp_path / "sent.dcm").write_bytes(as_file(data_set))
    copy = subprocess.run([*_TO_XML, tmp_path / "sent.dcm"], capture_output=True, check=True, timeout=60)

    ((head, document),) = parts(server.get(f"/{instance_path(data_set)}/metadata", headers={"Accept": IN_PARTS}))

    said, expected = plain(document), plain(copy.stdout)
    ours, theirs = dict(_KEYWORD.findall(document)), dict(_KEYWORD.findall(copy.stdout))
    assert head["Content-Type"] == XML
    assert {tag: ours[tag] for tag in ours.keys() & theirs.keys()} == {
        tag: theirs[tag] for tag in ours.keys() & theirs.keys()
    }
    assert {tag: said[tag] for tag in said.keys() - _ADDED} == {tag: expected[tag] for tag in expected.keys() - _ADDED}


def hostile() -> Dataset:
    """Make an image with values that XML cannot hold, private elements and a name of all groups."""
    data_set = image(
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", PatientID="<b>&\"'", ImageComments="a\r\nb\x0cc]]>"
    )
    data_set.SpecificCharacterSet = "ISO_IR 192"
    block = data_set.private_block(0x0011, 'Maker "A"', create=True)
    block.add_new(0x01, "LO", "own")
    block.add_new(0x02, "OB", b"\0" * 5000)
    data_set.ReferencedImageSequence = Items([Dataset()])
    return data_set


def test_odd_values_are_still_xml(server: httpx.Client) -> None:
    """Markup is text, control characters are replaced, line ends survive, private creators and name groups are told."""
    data_set = hostile()
    assert store_files(server, [as_file(data_set)]).status_code == 200

    answer = server.get(f"/{instance_path(data_set)}/metadata", headers={"Accept": f"{XML}, */*;q=0.1"})

    ((_, document),) = parts(answer)
    root = ElementTree.fromstring(document)  # noqa: S314 # our own
    found = {one.get("tag"): one for one in root.findall(f"{NAMESPACE}DicomAttribute")}
    groups = [[part.text for part in group] for group in found["00100010"][0]]
    assert groups == [["Yamada", "Tarou"], ["山田", "太郎"], ["やまだ", "たろう"]]
    assert found["00100020"][0].text == "<b>&\"'"
    assert found["00204000"][0].text == "a\r\nb\ufffdc]]>"
    assert (found["00111001"].get("privateCreator"), found["00111001"][0].text) == ('Maker "A"', "own")
    assert found["00110010"].get("privateCreator") is None
    assert [item.get("number") for item in found["00081140"]] == ["1"]
    assert found["00111002"][0].get("uri", "").endswith("/bulkdata/00111002")


def test_searches_answer_in_parts(server: httpx.Client) -> None:
    """A part for each match; nothing found is 204; JSON stays the answer where both are liked alike."""
    images = [image(PatientName="Doe^Jane"), image(PatientName="Roe^Jo")]
    assert store_files(server, [as_file(one) for one in images]).status_code == 200

    answer = server.get("/studies", headers={"Accept": IN_PARTS})
    nothing = server.get("/studies?PatientID=nobody", headers={"Accept": IN_PARTS})
    either = server.get("/studies", headers={"Accept": f"{IN_PARTS}, application/dicom+json"})

    said = [plain(document) for _, document in parts(answer)]
    assert {one["0020000D"][1][0] for one in said} == {str(one.StudyInstanceUID) for one in images}
    assert nothing.status_code == 204
    assert either.headers["content-type"] == "application/dicom+json"
