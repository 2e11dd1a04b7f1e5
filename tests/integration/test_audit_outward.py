"""Where the audit trail goes: FHIR AuditEvents, a syslog repository; and where it comes from: requests over HTTP."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path

import pytest
import sqlalchemy as sa
from fhir_facade.app import create_app as create_fhir_app
from fhir_facade.audit_event import AuditEventRenderer
from fhir_facade.resource import parse
from lxml import etree

from gateway.audit.chain import ChainKey
from gateway.audit.dicom_xml import AuditSource
from gateway.audit.keeper import AuditKeeper, SyslogForwarder
from gateway.audit.lines import LineFilter, append, list_lines
from gateway.audit.syslog import Repository
from gateway.audit.trail import Trail
from gateway.config.audit import Audit
from gateway.errors import DestinationAwayError
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.store.tables import study
from gateway.tls import TlsFiles, server_context
from gateway.web.app import HttpParts, create_app
from gateway.web.auth import Access
from tests.auditing import every_act
from tests.certificates import Authority
from tests.receiving import until
from tests.services.process import HANGS_S
from tests.unit.fhir import cases, node
from tests.unit.web.serving import served

KEY = ChainKey()
SOURCE = AuditSource("HYBRIDMED", "Example Hospital")


def fill(store: Store) -> int:
    """Append one event of each act; return how many."""
    events = every_act()
    with store.write() as connection:
        return append(connection, events, KEY)


def kinds(store: Store) -> list[tuple[str, str, str | None]]:
    """Return kind, actor and study of every line."""
    with store.read() as connection:
        lines = list_lines(connection, LineFilter(), limit=100)
    return [(line.kind, line.actor, line.study_instance_uid) for line in lines]


def make_resources(store: Store) -> None:
    """Let the keeper make the FHIR resources."""
    AuditKeeper(store, KEY, AuditEventRenderer(cases.RENDERER.ids, SOURCE, UTC)).turn()


def test_every_event_is_a_valid_audit_event_that_is_found(store: Store, tmp_path: Path) -> None:
    """Once each, however often the keeper looks; by date, agent, type, entity, action; the validators agree."""
    count = fill(store)
    make_resources(store)
    make_resources(store)

    with served(create_fhir_app(store, zone=UTC)) as client:
        found = client.get("/AuditEvent", params={"_count": "100"})
        resources = [entry["resource"] for entry in parse(found.content)["entry"]]
        asked = {
            query: parse(client.get(f"/AuditEvent?{query}").content).get("total")
            for query in ("action=D", "type=110104", "date=gt2020", "date=lt2020", "outcome=4")
        }
        one = client.get(f"/AuditEvent/{resources[0]['id']}")
    assert len(resources) == count
    assert asked == {"action=D": 1, "type=110104": 2, "date=gt2020": count, "date=lt2020": 0, "outcome=4": 2}
    assert one.status_code == 200
    assert node.complaints(resources, tmp_path) == []


def test_what_a_caller_reads_is_told_with_the_patient(sqlite_store: Store) -> None:
    """A search, a read and a study's page name the caller; the read is told with study and patient, repeats once."""
    store = sqlite_store
    cases.commit(store, cases.finished(cases.pneumonia()))
    with store.write() as connection:
        given = cases.study()
        values = {"patient_id": given.patient_id, "patient_id_issuer": given.patient_id_issuer}
        connection.execute(sa.update(study).values(**values))
    fhir = create_fhir_app(store, zone=UTC)
    parts = HttpParts(store, fhir, Access("none"), Counters(), 0)

    with Trail(store, KEY, Counters()), served(create_app(parts)) as client:
        report = parse(client.get("/fhir/DiagnosticReport").content)["entry"][0]["resource"]["id"]
        for _ in range(3):
            assert client.get(f"/fhir/DiagnosticReport/{report}").status_code == 200
        client.get(f"/studies/{cases.STUDY_UID}")
        client.post("/fhir/DiagnosticReport/_search", data={"patient.identifier": "P7"})
        client.get("/healthz")
        client.get("/fhir/Patient", headers={"Host": "evil.example"})

    with store.read() as connection:
        lines = list_lines(connection, LineFilter(), limit=100)
    uid = cases.STUDY_UID
    assert [(line.kind, line.actor, line.study_instance_uid) for line in lines] == [
        ("query", "loopback", None),
        ("patient-record", "loopback", uid),
        ("instances-accessed", "loopback", uid),
        ("query", "loopback", None),
        ("security-alert", "anonymous", None),
    ]
    assert lines[1].patient_id == lines[2].patient_id == given.patient_id != ""
    assert "patient.identifier=P7" in lines[3].body
    make_resources(store)
    with served(fhir) as client:
        patient = parse(client.get("/Patient").content)["entry"][0]["resource"]["id"]
        of_patient = parse(client.get("/AuditEvent", params={"patient": patient, "_count": "50"}).content)
    assert of_patient["total"] == 2


@contextmanager
def repository(context: ssl.SSLContext | None) -> Iterator[tuple[int, list[bytes]]]:
    """Listen as a syslog collector does, by RFC 5425 framing; give its port and what came."""
    came: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
                accepted.settimeout(HANGS_S)
                peer = context.wrap_socket(accepted, server_side=True) if context else accepted
                with peer, peer.makefile("rb") as stream:
                    while length := b"".join(iter(lambda s=stream: s.read(1).strip(), b"")):
                        came.append(stream.read(int(length)))
            except OSError:
                if listener.fileno() < 0:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], came
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("way", ["tls", "tcp"])
def test_every_line_reaches_the_repository(sqlite_store: Store, tmp_path: Path, way: str) -> None:
    """What it does not take while it is away waits; then every line comes, in order, as syslog with XML."""
    authority = Authority(tmp_path / "ca")
    ours, theirs = authority.issue("gateway.example"), authority.issue("repository.example")
    context = server_context(TlsFiles(theirs.certificate, theirs.key, peer_ca=authority.certificate), "required")
    count = fill(sqlite_store)
    heartbeat = Heartbeat(sqlite_store, "dispatch", Counters())
    settings = Audit(ca_file=authority.certificate, certificate_file=ours.certificate, private_key_file=ours.key)

    with repository(context if way == "tls" else None) as (port, came):
        with pytest.raises(DestinationAwayError):
            SyslogForwarder(sqlite_store, heartbeat, Repository("tcp", "127.0.0.1", 1, settings), SOURCE).turn()
        sender = Repository("tls" if way == "tls" else "tcp", "127.0.0.1", port, settings)
        SyslogForwarder(sqlite_store, heartbeat, sender, SOURCE).turn()
        assert not SyslogForwarder(sqlite_store, heartbeat, sender, SOURCE).turn()
        sender.close()
        until(lambda: len(came) == count, "all messages came")

    xml = [etree.fromstring(message.partition(b"\xef\xbb\xbf")[2]) for message in came]
    assert [each.find("EventIdentification/EventID").get("csd-code") for each in xml][:3] == [
        "110100",
        "110100",
        "110102",
    ]
    assert all(message.startswith(b"<85>1 ") for message in came)


def test_a_repository_of_a_stranger_is_not_believed(sqlite_store: Store, tmp_path: Path) -> None:
    """Its certificate is of another authority: nothing is sent, and what waits goes on waiting."""
    known, strange = Authority(tmp_path / "known"), Authority(tmp_path / "strange")
    theirs = strange.issue("repository.example")
    fill(sqlite_store)

    with repository(server_context(TlsFiles(theirs.certificate, theirs.key))) as (port, came):
        sender = Repository("tls", "127.0.0.1", port, Audit(ca_file=known.certificate))
        forwarder = SyslogForwarder(sqlite_store, Heartbeat(sqlite_store, "dispatch", Counters()), sender, SOURCE)
        with pytest.raises(DestinationAwayError, match="SSLCertVerificationError"):
            forwarder.turn()
        assert came == []
    assert kinds(sqlite_store)


class OneLook(threading.Event):
    """Is set by the first wait, without waiting."""

    def wait(self, timeout: float | None = None) -> bool:
        """Set it."""
        self.set()
        return True


def test_a_repository_that_is_away_for_days_ends_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    """Nor one whose certificates somebody spoilt: the role that routes studies runs beside, and must not end."""
    fill(sqlite_store)
    heartbeat = Heartbeat(sqlite_store, "dispatch", Counters())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        spoilt = Audit(ca_file=tmp_path / "none.pem", timeout_s=5)
        repository = Repository("tls", "127.0.0.1", listener.getsockname()[1], spoilt)
        forwarder = SyslogForwarder(sqlite_store, heartbeat, repository, SOURCE)
        forwarder._failures = 2000  # a day and a half
        forwarder.run(OneLook())

    assert forwarder._failures == 2001
