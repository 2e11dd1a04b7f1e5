"""STOW-RS of real results to Orthanc's DICOMweb and to servers that refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pydicom
import pytest

from gateway.delivery.sender import Outgoing
from gateway.delivery.stow import StowSender
from gateway.errors import DeliveryError, DestinationAwayError
from tests.delivering import render_results, silent_peer
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S, free_port
from tests.studies import RealData


@pytest.fixture(scope="module")
def objects(real_data: RealData, tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    """Give SR and SEG of a real X-ray."""
    return render_results(real_data.cxr[0], tmp_path_factory.mktemp("results"))


@contextmanager
def _server(status: int, answer: object) -> Iterator[str]:
    """Answer every request so; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web"
        finally:
            server.shutdown()
            thread.join()


def _failed(objects: list[Outgoing], reason: int) -> dict[str, object]:
    items = [
        {"00081155": {"vr": "UI", "Value": [each.sop_instance_uid]}, "00081197": {"vr": "US", "Value": [reason]}}
        for each in objects
    ]
    return {"00081198": {"vr": "SQ", "Value": items}}


def test_orthanc_stores_what_is_sent(objects: list[Outgoing], orthanc: Orthanc, tmp_path: Path) -> None:
    """Every object comes back with the same content; a second time changes nothing."""
    sender = StowSender(orthanc.dicomweb_url, HANGS_S)
    sender.send(objects)
    sender.send(objects)

    stored = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, orthanc.save_files(tmp_path / "back"))}
    assert stored == {each.sop_instance_uid: pydicom.dcmread(each.path) for each in objects}


@pytest.mark.parametrize("status", [200, 202, 409])
def test_failed_instances_are_refusals_with_their_kind(objects: list[Outgoing], status: int) -> None:
    """The Failed SOP Sequence counts, whatever the code (PS3.18 10.5.3)."""
    with (
        _server(status, _failed(objects[:1], 0x0122)) as address,
        pytest.raises(DeliveryError, match=f"{objects[0].kind}: status 0122, SOP class not supported"),
    ):
        StowSender(address, HANGS_S).send(objects)


def test_failed_instances_for_want_of_room_may_pass(objects: list[Outgoing]) -> None:
    """A700 is tried again without end."""
    with _server(202, _failed(objects, 0xA700)) as address, pytest.raises(DestinationAwayError):
        StowSender(address, HANGS_S).send(objects)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_server_that_takes_nothing_for_now_may_pass(objects: list[Outgoing], status: int) -> None:
    """Access and faults of the server are mended without another send by hand."""
    with _server(status, {}) as address, pytest.raises(DestinationAwayError, match=f"HTTP {status}"):
        StowSender(address, HANGS_S).send(objects)


@pytest.mark.parametrize("status", [400, 409, 413, 415])
def test_a_refusal_without_a_list_is_a_refusal(objects: list[Outgoing], status: int) -> None:
    """What was sent is what it dislikes."""
    with _server(status, {}) as address, pytest.raises(DeliveryError, match=f"HTTP {status}"):
        StowSender(address, HANGS_S).send(objects)


@pytest.mark.parametrize("answer", [{"00081198": []}, {"00081198": {"Value": ["x"]}}, [7], {"00081198": {"Value": 5}}])
def test_an_answer_that_is_no_dicom_json_is_a_refusal_or_nothing(objects: list[Outgoing], answer: object) -> None:
    """A server that answers nonsense ends no thread: it is told as a refusal, or taken as the success it claims."""
    with _server(200, answer) as address:
        try:
            StowSender(address, HANGS_S).send(objects)
        except DeliveryError as error:
            assert "JSON" in str(error)
        else:
            assert answer == [7]


def test_silence_and_closed_ports_may_pass(objects: list[Outgoing]) -> None:
    """After the time limit, and at once."""
    with silent_peer() as port, pytest.raises(DestinationAwayError):
        StowSender(f"http://127.0.0.1:{port}", 0.5).send(objects)
    with pytest.raises(DestinationAwayError):
        StowSender(f"http://127.0.0.1:{free_port()}", 0.5).send(objects)
