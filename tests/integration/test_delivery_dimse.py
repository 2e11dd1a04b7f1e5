"""C-STORE of real results to dcmtk's storescp and to peers that refuse."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pynetdicom.dsutils import split_dataset

from gateway.config import DicomAddress
from gateway.delivery.dimse import DimseSender
from gateway.delivery.sender import Outgoing
from gateway.errors import DeliveryError, DestinationAwayError
from tests.delivering import render_results, scripted_peer, silent_peer, storescp
from tests.services.process import free_port
from tests.studies import RealData

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


# pynetdicom drops the socket of a refused connection without closing it; the interpreter closes it at once and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module")
def objects(real_data: RealData, tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    """Give SR and SEG of a real X-ray."""
    return render_results(real_data.cxr[0], tmp_path_factory.mktemp("results"))


def _sender(port: int, timeout_s: float = 60.0) -> DimseSender:
    return DimseSender(DicomAddress("PEER", "127.0.0.1", port), "HYBRIDMED", timeout_s)


def _data_set(path: Path) -> bytes:
    return path.read_bytes()[split_dataset(path)[1] :]


def test_the_bytes_arrive_as_they_lie(objects: list[Outgoing], tmp_path: Path) -> None:
    """What storescp keeps, which writes data sets as they came, is our file's data set."""
    with storescp(tmp_path / "pacs") as port:
        _sender(port).send(objects)

    received = sorted(_data_set(path) for path in (tmp_path / "pacs").iterdir())
    assert received == sorted(_data_set(each.path) for each in objects)


def test_a_peer_that_knows_implicit_vr_alone_gets_it(objects: list[Outgoing], tmp_path: Path) -> None:
    """The default transfer syntax is offered too (PS3.5 10.1); the content is the same."""
    with storescp(tmp_path / "pacs", "--implicit") as port:
        _sender(port).send(objects)

    received = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, (tmp_path / "pacs").iterdir())}
    assert {dataset.file_meta.TransferSyntaxUID for dataset in received.values()} == {"1.2.840.10008.1.2"}
    sent = {each.sop_instance_uid: pydicom.dcmread(each.path) for each in objects}
    for dataset in sent.values():
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OW"  # PS3.5 A.1: the only one in Implicit VR
    assert received == sent


def test_a_warning_is_success(objects: list[Outgoing]) -> None:
    """B000, coercion of data elements, and 0111, duplicate instance, end the delivery."""
    with scripted_peer(lambda sop_class: 0xB000 if sop_class == SEG else 0x0111) as peer:
        _sender(peer.port).send(objects)


def test_a_refused_object_is_named_and_the_others_are_sent(objects: list[Outgoing]) -> None:
    """The SR reach a PACS that cannot understand the SEG."""
    with (
        scripted_peer(lambda sop_class: 0xC001 if sop_class == SEG else 0) as peer,
        pytest.raises(DeliveryError, match="refused seg: status C001, cannot understand"),
    ):
        _sender(peer.port).send(objects)

    assert len(peer.received) == len(objects) - 1


def test_a_peer_without_a_sop_class_refuses_it(objects: list[Outgoing]) -> None:
    """No presentation context is a refusal, and not an absence."""
    with (
        scripted_peer(lambda _: 0, without=[SEG]) as peer,
        pytest.raises(DeliveryError, match="seg: such objects are not accepted"),
    ):
        _sender(peer.port).send(objects)


def test_a_peer_that_accepts_none_of_our_objects_refuses_them(objects: list[Outgoing]) -> None:
    """It is told from one that is away, which is tried for ever."""
    classes = [each.sop_class_uid for each in objects]
    with scripted_peer(lambda _: 0, without=classes) as peer, pytest.raises(DeliveryError, match="not accepted"):
        _sender(peer.port).send(objects)


def test_a_full_disk_may_pass(objects: list[Outgoing]) -> None:
    """A700 is tried again without end."""
    with scripted_peer(lambda _: 0xA700) as peer, pytest.raises(DestinationAwayError, match="out of resources"):
        _sender(peer.port).send(objects)


@pytest.mark.parametrize("option", ["--refuse", "--abort-during", "--abort-after"])
def test_rejections_and_aborts_may_pass(objects: list[Outgoing], tmp_path: Path, option: str) -> None:
    """Whatever ends an association before all answers are in."""
    with storescp(tmp_path / "pacs", option) as port, pytest.raises(DestinationAwayError):
        _sender(port).send(objects)


def test_a_closed_port_may_pass(objects: list[Outgoing]) -> None:
    """Nothing listens there."""
    with pytest.raises(DestinationAwayError):
        _sender(free_port()).send(objects)


def test_a_silent_peer_is_left_after_the_time_limit(objects: list[Outgoing]) -> None:
    """It accepts the connection and never answers the association request."""
    with silent_peer() as port, pytest.raises(DestinationAwayError):
        _sender(port, timeout_s=1.0).send(objects)
