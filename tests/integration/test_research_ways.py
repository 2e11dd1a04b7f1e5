"""No other way leads to a research destination: receivers as the settings make them, asked by real peers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, build_role
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.commitment import PUSH_MODEL
from gateway.config import DicomAddress, load_settings
from gateway.errors import ConfigurationError
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from gateway.wiring.exchange import allowed_endpoints
from gateway.wiring.receive import build
from gateway.wiring.workitems import build_worklist
from gateway.workitem.mapping import UPS_PUSH
from gateway.workitem.refusal import WorkitemError
from gateway.workitem.state import GLOBAL
from tests.querying import FIND_STUDY, GET_STUDY, MOVE_STUDY, asking, identifier, move, target
from tests.receiving import CT, EXPLICIT, IMPLICIT, image, rows, send_one, sending, until
from tests.services.process import HANGS_S, LOOPBACK, free_port
from tests.working import running

# pynetdicom leaves the socket of a refused connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

STUDY = "1.2.3.1"
VERIFICATION = "1.2.840.10008.1.1"
EVERYTHING = (VERIFICATION, CT, FIND_STUDY, MOVE_STUDY, GET_STUDY, PUSH_MODEL, UPS_PUSH)
SENDING = {VERIFICATION, CT, PUSH_MODEL}


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)


@contextmanager
def receiving(store: Store, **settings: object) -> Iterator[int]:
    """Run the receiver that these settings make; give its port."""
    made = load_settings(data_dir=store.data_dir, dicom_port=free_port(), reserve_mib=0, **settings)
    receiver = build(made, store, Heartbeat(store, "receive", Counters()))
    with running(receiver):
        yield receiver.wait_until_listening(HANGS_S)


def research(address: DicomAddress) -> Mapping[str, str]:
    """Return the destination that gets objects without the patient."""
    return {"name": "RESEARCH", "address": str(address), "deidentify": "basic"}


def offered(port: int, calling_ae: str) -> set[str]:
    """Return which of all services a caller is offered."""
    entity = AE(calling_ae)
    for uid in EVERYTHING:
        entity.add_requested_context(uid)
    association = entity.associate(LOOPBACK, port, ae_title="HYBRIDMED", ext_neg=[build_role(CT, scu_role=True)])
    assert association.is_established
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    association.release()
    return accepted


def test_a_move_to_a_research_destination_is_refused(local_store: Store) -> None:
    """A801 and a sentence in the log, whatever move_destinations say; it got nothing, and another peer all."""
    contexts = [(CT, IMPLICIT), (CT, EXPLICIT)]
    with target(lambda _: 0, contexts, "RESEARCH") as marked, target(lambda _: 0, contexts) as viewer:
        known = {"destinations": [research(marked.address)], "move_destinations": (viewer.address, marked.address)}
        with receiving(local_store, **known) as port, asking(port, [MOVE_STUDY]) as association:
            send_one(port, sending(image(STUDY, PatientName="Doe^Jane")))
            until(lambda: len(rows(local_store)) == 1, "indexed")
            with capture_logs() as lines:
                refused = move(association, identifier("STUDY", StudyInstanceUID=STUDY), "RESEARCH")
            done = move(association, identifier("STUDY", StudyInstanceUID=STUDY), "TARGET")

    said = "the move destination takes objects without the patient only"
    assert (refused.status, refused.comment) == (0xA801, said)
    assert [(line["destination"], line["reason"]) for line in lines if line["event"] == "move.refused"] == [
        ("RESEARCH", said)
    ]
    assert (done.status, len(viewer.received), marked.received) == (0, 1, [])


@pytest.mark.parametrize("peers", [(), ({"ae_title": "RESEARCH"}, {"ae_title": "PACS"})])
def test_under_a_research_title_nobody_queries_or_retrieves(
    local_store: Store, peers: tuple[Mapping[str, str], ...]
) -> None:
    """C-FIND, C-MOVE, C-GET and workitems name patients: not offered, not even where a table of peers says so."""
    destination = research(DicomAddress("RESEARCH", LOOPBACK, free_port()))
    with receiving(local_store, destinations=[destination], peers=peers) as port, capture_logs() as lines:
        assert offered(port, "RESEARCH") == SENDING
        assert offered(port, "PACS") == set(EVERYTHING)

    told = [line for line in lines if line["event"] == "association.not_allowed"]
    assert [line["calling_ae"] for line in told] == ["RESEARCH"]
    assert told[0]["rights"] == ["query", "retrieve", "workitem"]
    assert "deidentify" in told[0]["reason"]


def test_a_research_destination_is_told_of_no_workitem_and_no_resource(local_store: Store) -> None:
    """Neither by N-EVENT-REPORT nor as the endpoint of a FHIR subscription."""
    destinations = [
        research(DicomAddress("RESEARCH", LOOPBACK, free_port())),
        {"name": "FHIR", "address": "fhir+http://127.0.0.1:9000/r4", "deidentify": "basic"},
    ]
    settings = load_settings(data_dir=local_store.data_dir, destinations=destinations)
    endpoints = allowed_endpoints(settings)

    with pytest.raises(WorkitemError, match="no address is configured"):
        build_worklist(settings, local_store).subscribing.subscribe(
            GLOBAL, "RESEARCH", lock=False, keys={}, by_websocket=False
        )
    assert "without the patient" in (endpoints.refusal("http://127.0.0.1:9000/r4/hook") or "")
    assert endpoints.refusal("http://127.0.0.1:9001/hook") is None


def test_files_are_not_sent_there_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`send` takes files as they are: it names the reason and sends none."""
    (tmp_path / "hybridmed.toml").write_text(
        '[destinations.R]\naddress = "RESEARCH@127.0.0.1:104"\ndeidentify = "basic"\n'
    )
    monkeypatch.setenv("HYBRIDMED_CONFIG", str(tmp_path / "hybridmed.toml"))
    file = tmp_path / "one.dcm"
    file.write_bytes(b"\0" * 128 + b"DICM")

    ended = CliRunner().invoke(app, ["send", str(file), "--to", "RESEARCH@10.0.0.9:104"])

    assert isinstance(ended.exception, ConfigurationError)
    assert "without the patient" in str(ended.exception)


def test_a_title_that_may_send_is_offered_nothing_else(local_store: Store) -> None:
    """Of allowed_aes: C-STORE, C-ECHO and storage commitment; with a table of peers what it says; the log says so."""
    peers = ({"ae_title": "PACS", "may": ("query", "retrieve")},)
    with receiving(local_store, allowed_aes=("CT1", "PACS"), peers=peers) as port, capture_logs() as lines:
        assert offered(port, "CT1") == SENDING
        assert offered(port, "PACS") == {VERIFICATION, FIND_STUDY, MOVE_STUDY, GET_STUDY}

    told = {line["calling_ae"]: line for line in lines if line["event"] == "association.not_allowed"}
    assert told["CT1"]["rights"] == ["query", "retrieve", "workitem"]
    assert "[[peers]]" in told["CT1"]["reason"]


def test_where_nothing_is_set_everybody_on_this_machine_may_everything(local_store: Store) -> None:
    """A first try on a laptop needs no list."""
    with receiving(local_store) as port, capture_logs() as lines:
        assert offered(port, "ANYBODY") == set(EVERYTHING)

    assert [line for line in lines if line["event"] == "association.not_allowed"] == []
