"""DICOM over TLS, with dcmtk and openssl as peers: who is let in, who is not, and what is told of it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.admission import Admission
from gateway.association import Limits, Listening, Receiver
from gateway.audit.chain import ChainKey
from gateway.audit.lines import LineFilter, list_lines
from gateway.audit.trail import Trail
from gateway.config import DicomAddress
from gateway.config.dicom_tls import DicomTls
from gateway.config.tls import Tls
from gateway.delivery import Outgoing
from gateway.delivery.dimse import DimseSender
from gateway.doctor import echo
from gateway.errors import ConfigurationError, DestinationAwayError
from gateway.secure_channel import ClientChannel, SecureChannel
from gateway.sending import dicom_files
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.tls import has_hybrid_group
from tests.certificates import Authority, Identity
from tests.receiving import image, rows, until
from tests.services.process import HANGS_S, free_port, listens


@dataclass
class Secured:
    """A receiver with a port for TLS."""

    port: int
    plain_port: int
    authority: Authority
    ours: Identity
    store: Store
    counters: Counters


@contextmanager
def secured(
    store: Store, folder: Path, path: Literal["fast", "stock"] = "fast", *, is_plain: bool = True, **section: object
) -> Iterator[Secured]:
    """Run a receiver whose certificate is looked at anew every second, with a trail."""
    authority = Authority(folder / "ca")
    ours = authority.issue("gateway.example")
    files = Tls(certificate=ours.certificate, key=ours.key, peer_ca=authority.certificate, reload_s=1)
    counters = Counters()
    heartbeat = Heartbeat(store, "receive", counters)
    rules = DicomTls(enabled=True, **section)  # type: ignore[arg-type] # as the caller gives them
    who = Listening("HYBRIDMED", "127.0.0.1", 0, path=path, secure_port=0, is_plain=is_plain)
    limits = Limits(reserve_bytes=0, drain_s=2)
    channel = SecureChannel(files, rules, counters)
    receiver = Receiver(store, who, limits, heartbeat, (), Admission((), rules.certificates), channel)
    stop = threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    with Trail(store, ChainKey(), counters):
        thread.start()
        try:
            plain_port = receiver.wait_until_listening(HANGS_S)
            assert receiver.secure_port is not None
            yield Secured(receiver.secure_port, plain_port, authority, ours, store, counters)
        finally:
            stop.set()
            thread.join(HANGS_S)
            assert not thread.is_alive()


def dcmtk(program: str, here: Secured, who: Identity, *rest: str, ca: Path | None = None, ae: str = "CT1") -> int:
    """Run an SCU of dcmtk over TLS and return its exit status."""
    files = ["+tls", str(who.key), str(who.certificate), "+cf", str(ca or here.authority.certificate)]
    command = [program, *files, "-aet", ae, "-aec", "HYBRIDMED", "127.0.0.1", str(here.port), *rest]
    return subprocess.run(command, capture_output=True, timeout=HANGS_S, check=False).returncode


def alerts(store: Store) -> list[str]:
    """Return the bodies of the security alerts in the trail."""
    with store.read() as connection:
        return [line.body for line in list_lines(connection, LineFilter(kind="security-alert"), limit=100)]


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_dcmtk_stores_over_tls_and_strangers_do_not(
    sqlite_store: Store, tmp_path: Path, path: Literal["fast", "stock"]
) -> None:
    """A large and a small object arrive whole; wrong authority, expired, no certificate and wrong AE title do not."""
    large = image()
    large.add_new("PixelData", "OB", bytes(3 << 20))
    files = [str(write(each, tmp_path / f"{number}.dcm")) for number, each in enumerate((large, image()))]

    with secured(sqlite_store, tmp_path, path, certificates={"cn:ct1.example": ("CT1",)}, handshake_s=60) as here:
        known = here.authority.issue("ct1.example")
        expired = here.authority.issue("old.example", is_expired=True)
        stranger = Authority(tmp_path / "other", "Other").issue("ct1.example")

        assert dcmtk("storescu", here, known, *files) == 0
        assert dcmtk("echoscu", here, stranger) != 0
        assert dcmtk("echoscu", here, expired) != 0
        assert dcmtk("echoscu", here, known, ae="CT2") != 0
        anonymous = ["openssl", "s_client", "-connect", f"127.0.0.1:{here.port}", "-quiet"]
        said = subprocess.run(anonymous, input=b"x", capture_output=True, timeout=HANGS_S, check=False).stderr
        assert re.search(rb"certificate required|alert", said)
        until(lambda: len(rows(sqlite_store)) == 2, "both are indexed")
        until(lambda: len(alerts(sqlite_store)) == 4, "the alerts are in the trail")

    sizes = sorted((sqlite_store.data_dir / row.path).stat().st_size for row in rows(sqlite_store))
    assert sizes[1] > 3 << 20
    told = "".join(alerts(sqlite_store))
    for reason in (
        "unable to get local issuer",
        "expired",
        "certificate is not for this AE title",
        "peer did not return",
    ):
        assert reason in told, reason
    assert "CT2" in told


def test_a_stalled_handshake_holds_up_no_one_and_ends(sqlite_store: Store, tmp_path: Path) -> None:
    """Twenty peers stop in the middle; another stores meanwhile; they are closed when their time is over."""
    with secured(sqlite_store, tmp_path, handshake_s=10) as here:
        known = here.authority.issue("ct1.example")
        stalled = [socket.create_connection(("127.0.0.1", here.port), timeout=HANGS_S) for _ in range(20)]
        for peer in stalled:
            peer.sendall(b"\x16\x03\x01")

        assert dcmtk("echoscu", here, known) == 0
        closed = [peer.recv(100) for peer in stalled]
        for peer in stalled:
            peer.close()

        assert all(not said or said[0] == 0x15 for said in closed)  # an alert at most
        until(lambda: here.counters.snapshot().get("hybridmed_tls_handshakes_failed_total") == 20, "all are counted")


def test_a_crowd_of_stalled_handshakes_keeps_nobody_out(sqlite_store: Store, tmp_path: Path) -> None:
    """300 from another address stay as long as they may; a peer is served meanwhile, and threads are bounded."""
    with secured(sqlite_store, tmp_path, handshake_s=60) as here, ExitStack() as stack:
        known = here.authority.issue("ct1.example")
        before = threading.active_count()
        for _ in range(300):
            peer = socket.create_connection(("127.0.0.1", here.port), HANGS_S, ("127.0.0.2", 0))
            stack.enter_context(peer).sendall(b"\x16\x03\x01")
        crowd = threading.active_count() - before

        assert dcmtk("echoscu", here, known) == 0
        assert crowd < 100


@pytest.mark.parametrize("client_certificate", ["required", "optional"])
def test_a_title_with_a_certificate_comes_with_it_alone(
    sqlite_store: Store, tmp_path: Path, client_certificate: str
) -> None:
    """The port without TLS takes other titles; the log and the trail say why this one is refused there."""
    table = {"cn:ct1.example": ("CT1",)}
    with secured(sqlite_store, tmp_path, certificates=table, client_certificate=client_certificate) as here:
        known = here.authority.issue("ct1.example")
        plain = DicomAddress("HYBRIDMED", "127.0.0.1", here.plain_port)

        assert dcmtk("echoscu", here, known) == 0
        assert echo(plain, "CT2")
        assert not echo(plain, "CT1")
        until(lambda: len(alerts(sqlite_store)) == 1, "the alert is in the trail")

    assert "AE title comes without its certificate" in alerts(sqlite_store)[0]


def test_a_new_certificate_is_shown_without_a_restart(sqlite_store: Store, tmp_path: Path) -> None:
    """The files change, and the next handshake shows the new serial number; TLS 1.1 is not spoken."""

    def shown(*options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{here.port}", "-showcerts", *options]
        said = subprocess.run(command, input=b"", capture_output=True, timeout=HANGS_S, check=False).stdout
        certificate = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", said, re.DOTALL)
        return certificate[0].decode() if certificate else ""

    with secured(sqlite_store, tmp_path, is_plain=False, client_certificate="optional") as here:
        before = shown()
        here.authority.issue("gateway.example", to=here.ours)
        until(lambda: shown() not in {"", before}, "the new certificate is shown")
        assert before
        assert shown("-tls1_1", "-cipher", "ALL:@SECLEVEL=0") == ""
        if has_hybrid_group():
            assert shown("-groups", "X25519MLKEM768")


def test_results_go_out_over_tls(sqlite_store: Store, tmp_path: Path) -> None:
    """To dcmtk's storescp, which wants our certificate; not where its own is of a stranger."""
    authority = Authority(tmp_path / "ca")
    ours, theirs = authority.issue("gateway.example"), authority.issue("pacs.example")
    strange = Authority(tmp_path / "strange", "Strange").certificate
    taken = tmp_path / "taken"
    taken.mkdir()
    port = free_port()
    program = shutil.which("storescp") or "storescp"
    options = ["+tls", str(theirs.key), str(theirs.certificate), "+cf", str(authority.certificate), "-od", str(taken)]
    pacs = subprocess.Popen([program, *options, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), "storescp listens")
        address = DicomAddress("PACS", "127.0.0.1", port, tls=True)
        files = Tls(certificate=ours.certificate, key=ours.key, peer_ca=authority.certificate)
        objects = outgoing_of(image(), tmp_path)

        DimseSender(address, "HYBRIDMED", 60, ClientChannel(files, DicomTls())).send(objects)
        assert len(dicom_files([taken])) == 1
        wary = ClientChannel(files.model_copy(update={"peer_ca": strange}), DicomTls())
        with pytest.raises(DestinationAwayError):
            DimseSender(address, "HYBRIDMED", 60, wary).send(objects)
        with pytest.raises(ConfigurationError):
            DimseSender(address, "HYBRIDMED", 60).send(objects)
    finally:
        pacs.terminate()
        pacs.wait(HANGS_S)


def outgoing_of(data_set: Dataset, folder: Path) -> list[Outgoing]:
    """Write a data set as a file to send."""
    path = folder / "outgoing.dcm"
    write(data_set, path)
    return [Outgoing("sr", path, data_set.SOPClassUID, data_set.SOPInstanceUID)]


def write(data_set: Dataset, path: Path) -> Path:
    """Write a data set as a Part 10 file."""
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.save_as(path, enforce_file_format=True)
    return path
