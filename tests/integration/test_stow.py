"""STOW-RS over a real socket: the pledge of C-STORE, and what is refused with which reason."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pydicom
import pytest
import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import generate_uid

from gateway.delivery.sender import Outgoing
from gateway.delivery.stow import StowSender
from gateway.errors import DeliveryError
from gateway.receive.contexts import storage_classes
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.tables import association
from gateway.web.dicomweb import create_app
from gateway.web.intake import ReceivingRole, StowIntake, Taken, known_transfer_syntaxes
from tests.dicomweb import AS_STORED, LIMITS, STORE_TYPE, as_file, body, dicomweb, instance_path, parts, store_files
from tests.receiving import encoded, image, kept_files, receiving, rows, send_one, sending, spooled_files, until
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S
from tests.studies import RealData
from tests.unit.web.serving import served
from tests.working import running


@pytest.fixture
def server(sqlite_store: Store) -> Iterator[httpx.Client]:
    """Give a client of a server over an empty store."""
    with dicomweb(sqlite_store) as client:
        yield client


def failures(answer: httpx.Response) -> list[int]:
    """Return the failure reasons, those of parts without a UID too."""
    items = [item for tag in ("00081198", "0008119A") for item in answer.json().get(tag, {}).get("Value", [])]
    return [item["00081197"]["Value"][0] for item in items]


def test_what_is_stored_is_on_disk_indexed_and_retrievable(store: Store, real_data: RealData) -> None:
    """On both databases: 200, the files in their place, the request closed as an association, the spool empty."""
    paths = real_data.studies()["mr"][:5]
    with dicomweb(store) as client:
        answer = store_files(client, [path.read_bytes() for path in paths])
        back = client.get(answer.json()["00081190"]["Value"][0], headers={"Accept": AS_STORED})

        assert answer.status_code == 200
        assert len(answer.json()["00081199"]["Value"]) == len(rows(store)) == len(parts(back)) == 5
        assert spooled_files(store) == []
        assert sorted(one for _, one in parts(back)) == sorted(path.read_bytes() for path in kept_files(store))
        until(lambda: closed(store) == [("STOW-RS", "released")], "the association closed")


def closed(store: Store) -> list[tuple[str, str]]:
    """Return calling AE and outcome of the associations that are closed."""
    with store.read() as connection:
        query = sa.select(association.c.calling_ae, association.c.outcome).where(association.c.closed_at.is_not(None))
        return [(row.calling_ae, row.outcome) for row in connection.execute(query)]


def test_the_same_instance_by_c_store_and_stow_is_one(sqlite_store: Store) -> None:
    """The data set decides, not the way in: its digest is the same."""
    one = image()
    with receiving(sqlite_store) as running, dicomweb(sqlite_store) as client:
        assert send_one(running.port, sending(one)).status == 0
        until(lambda: len(rows(sqlite_store)) == 1, "indexed")
        assert store_files(client, [as_file(one)]).status_code == 200

    assert len(rows(sqlite_store)) == 1


def test_dicomweb_client_stores_and_reads_back(server: httpx.Client) -> None:
    """A client that others wrote."""
    client = DICOMwebClient(str(server.base_url).rstrip("/"))
    one = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm")
    said = client.store_instances([one], one.StudyInstanceUID)

    assert said.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    uids = (one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID)
    assert client.retrieve_instance(*uids).PixelData == one.PixelData


def test_orthanc_sends_by_stow(
    server: httpx.Client, orthanc: Orthanc, real_data: RealData, sqlite_store: Store
) -> None:
    """Orthanc's DICOMweb plug-in as the client: chunked, with its own boundary."""
    instances = []
    for path in real_data.studies()["ct-philips"][:4]:
        answer = httpx.post(f"{orthanc.http_url}/instances", content=path.read_bytes(), timeout=HANGS_S)
        instances.append(answer.json()["ID"])
    url = str(server.base_url)
    peer = httpx.put(f"{orthanc.dicomweb_url}/servers/gateway", json={"Url": url}, timeout=HANGS_S)
    sent = httpx.post(
        f"{orthanc.dicomweb_url}/servers/gateway/stow",
        json={"Resources": instances, "Synchronous": True},
        timeout=HANGS_S,
    )

    assert (peer.status_code, sent.status_code) == (200, 200), sent.text
    assert len(rows(sqlite_store)) == 4


def test_our_own_sender_is_told_what_was_refused(server: httpx.Client, tmp_path: Path) -> None:
    """The delivery client of another gateway understands the answer."""
    one = image(SOPClassUID="1.2.840.10008.5.1.4.1.1.999")
    (tmp_path / "one.dcm").write_bytes(as_file(one))
    outgoing = Outgoing("seg", tmp_path / "one.dcm", one.SOPClassUID, one.SOPInstanceUID)

    with pytest.raises(DeliveryError, match="0122"):
        StowSender(str(server.base_url), 60).send([outgoing])


def _mismatched() -> bytes:
    one = image()
    whole = as_file(one)
    other = generate_uid()[: len(one.SOPInstanceUID)].ljust(len(one.SOPInstanceUID), "1")
    return whole.replace(str(one.SOPInstanceUID).encode(), other.encode(), 1)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", 0xC000),
        (b"not a DICOM file" * 20, 0xC000),
        (bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\x7f", 0xC000),
        (as_file(image())[:200], 0xC000),
        (as_file(image("1.2.3")).replace(b"1.2.3\0", b"1.2.x\0"), 0xC000),
        (as_file(image(SeriesInstanceUID=None)), 0xC000),
        (as_file(image(SOPClassUID="1.2.840.10008.5.1.4.1.1.999")), 0x0122),
        (as_file(image()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0", 1), 0xC122),
        (_mismatched(), 0xA900),
    ],
)
def test_what_is_refused_has_its_reason(server: httpx.Client, sqlite_store: Store, file: bytes, reason: int) -> None:
    """Alone it is 409; beside a good one 202, the good one stored; nothing of the other is left on the disk."""
    alone = store_files(server, [file])
    beside = store_files(server, [as_file(image()), file, as_file(image())])

    assert (alone.status_code, failures(alone)) == (409, [reason])
    assert (beside.status_code, failures(beside)) == (202, [reason])
    assert len(rows(sqlite_store)) == 2
    assert spooled_files(sqlite_store) == []


def test_the_path_decides_the_study(server: httpx.Client) -> None:
    """An instance of another study than the path's is a mismatch; a path that is no UID is none at all."""
    one, other = image(), image()
    answer = store_files(server, [as_file(one), as_file(other)], one.StudyInstanceUID)

    assert (answer.status_code, failures(answer)) == (202, [0xA900])
    assert store_files(server, [as_file(one)], "1.2.x").status_code == 400
    assert server.get(instance_path(other), headers={"Accept": AS_STORED}).status_code == 404


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("application/dicom", as_file(image()), 415),
        ('multipart/related; type="application/dicom+json"; boundary=BB', b"--BB--", 415),
        ('multipart/related; type="application/dicom"', b"", 400),
        (STORE_TYPE["Content-Type"], b"", 400),
        (STORE_TYPE["Content-Type"], b"--BB--\r\n", 400),
        (STORE_TYPE["Content-Type"], body([as_file(image())])[:-9], 400),
        (STORE_TYPE["Content-Type"], b"--BB\r\nX: " + b"y" * 9000, 400),
    ],
)
def test_a_body_that_is_no_message_is_refused(
    server: httpx.Client, sqlite_store: Store, content_type: str, content: bytes, status: int
) -> None:
    """With a sentence, and nothing left in the spool but what was whole."""
    answer = server.post("studies", content=content, headers={"Content-Type": content_type})

    assert answer.status_code == status
    assert answer.json()["error"]
    until(lambda: spooled_files(sqlite_store) == [], "the spool is empty")


def test_a_part_of_another_kind_fails_alone(server: httpx.Client) -> None:
    """A part that is no application/dicom cannot be understood."""
    content = b"--BB\r\nContent-Type: text/plain\r\n\r\nhello\r\n" + body([as_file(image())])
    answer = server.post("studies", content=content, headers=STORE_TYPE)

    assert (answer.status_code, failures(answer)) == (202, [0xC000])


def test_no_room_and_too_large_are_said(sqlite_store: Store) -> None:
    """Under the reserve nothing is taken: 503 with A700; one instance beyond the bound fails alone."""
    with dicomweb(sqlite_store, replace(LIMITS, reserve_bytes=1 << 60)) as client:
        full = store_files(client, [as_file(image())])
    with dicomweb(sqlite_store, replace(LIMITS, max_instance_bytes=2000)) as client:
        large = store_files(client, [as_file(image(PixelData=bytes(4000), BitsAllocated=8)), as_file(image())])

    assert (full.status_code, failures(full)) == (503, [0xA700])
    assert (large.status_code, failures(large)) == (202, [0xA700])


def test_a_slow_or_broken_client_leaves_nothing_half(sqlite_store: Store) -> None:
    """Silence is cut off with 408; what was whole before is kept, what was not is gone."""
    large = image(PixelData=bytes(4 << 20), BitsAllocated=8)
    half = body([as_file(image()), as_file(large)])[: 3 << 20]
    with dicomweb(sqlite_store, replace(LIMITS, timeout_s=1)) as client:
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=60) as broken:
            broken.sendall(_head(len(half) + 1000) + half)
        until(lambda: [outcome for _, outcome in closed(sqlite_store)] == ["aborted"], "the broken one closed")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
            slow.sendall(_head(len(half) + 1000) + half)
            said = b"".join(iter(lambda: slow.recv(4096), b""))  # to the end: the connection is closed
        until(lambda: [outcome for _, outcome in closed(sqlite_store)] == ["aborted"] * 2, "both closed")

    assert b" 408 " in said.splitlines()[0]
    assert b"1 instance(s) before that have been stored" in said
    assert spooled_files(sqlite_store) == []
    assert len(rows(sqlite_store)) == 1


def _head(length: int) -> bytes:
    lines = ["POST /dicomweb/studies HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {STORE_TYPE['Content-Type']}"]
    return ("\r\n".join([*lines, f"Content-Length: {length}"]) + "\r\n\r\n").encode()


def test_a_database_that_is_away_loses_nothing(sqlite_store: Store) -> None:
    """The answer is still success: the file is on disk, and the indexer takes it when the database is back."""
    one = image()
    with dicomweb(sqlite_store) as client:
        database = sqlite_store.data_dir / "hybridmed.db"
        sqlite_store.engine.dispose()
        database.rename(database.with_suffix(".away"))
        answer = store_files(client, [as_file(one)])
        kept = spooled_files(sqlite_store)
        sqlite_store.engine.dispose()
        shutil.move(database.with_suffix(".away"), database)
        until(lambda: len(rows(sqlite_store)) == 1, "indexed")

    assert answer.status_code == 200
    assert len(kept) == 1
    assert kept[0].suffix == ".dcm"


def test_a_restart_finds_what_an_earlier_server_left(sqlite_store: Store) -> None:
    """A file that a killed server had answered for is indexed by the next one."""
    folder = sqlite_store.data_dir / "incoming" / "dead"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "a1_1.dcm").write_bytes(as_file(image()))
    with dicomweb(sqlite_store):
        until(lambda: len(rows(sqlite_store)) == 1, "adopted")


class Serving:
    """A role that waits for its end."""

    name = "web"

    def run(self, stop: threading.Event) -> None:
        """Wait."""
        assert stop.wait(HANGS_S)


def intake_of(store: Store) -> StowIntake:
    """Return an intake that is not open yet."""
    taken = Taken("HYBRIDMED", storage_classes(), known_transfer_syntaxes())
    return StowIntake(store, Heartbeat(store, "web", Counters()), LIMITS, taken)


def test_what_a_killed_server_left_is_taken_by_one_that_runs(sqlite_store: Store) -> None:
    """It is looked for again and again, not at the start alone."""
    with running(ReceivingRole(Serving(), intake_of(sqlite_store), adopt_every_s=0.1)):
        until(lambda: any((sqlite_store.data_dir / "incoming").glob("*")), "the intake is open")
        folder = sqlite_store.data_dir / "incoming" / "dead"
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "a1_1.dcm").write_bytes(as_file(image()))
        until(lambda: len(rows(sqlite_store)) == 1, "adopted")


def test_a_role_without_its_indexer_ends(sqlite_store: Store) -> None:
    """It is started anew then, for it could take nothing any more."""
    intake = intake_of(sqlite_store)
    with pytest.raises(RuntimeError, match="indexer"), ThreadPoolExecutor(1) as pool:
        ran = pool.submit(ReceivingRole(Serving(), intake).run, threading.Event())
        until(lambda: intake.is_open, "the intake is open")
        intake.indexer.__exit__()
        ran.result(HANGS_S)


def test_a_server_without_intake_takes_nothing(sqlite_store: Store) -> None:
    """503, to be tried again elsewhere."""
    with served(create_app(sqlite_store)) as client:
        answer = client.post("/studies", content=body([as_file(image())]), headers=STORE_TYPE)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_large_instance_streams(server: httpx.Client, sqlite_store: Store) -> None:
    """Pieces of any size make the same file."""
    one = image(PixelData=bytes(range(256)) * 40000, BitsAllocated=8)
    content = body([as_file(one)])
    pieces = (content[at : at + 33333] for at in range(0, len(content), 33333))
    answer = server.post("studies", content=pieces, headers=STORE_TYPE)

    assert answer.status_code == 200
    (file,) = kept_files(sqlite_store)
    assert encoded(pydicom.dcmread(file)) == encoded(one)
