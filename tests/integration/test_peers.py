"""Peers over real associations: refused ones are rejected and told, a fast one waits, and nothing is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from gateway.admission import Admission
from gateway.association import Limits, Listening, Receiver
from gateway.audit.chain import ChainKey
from gateway.audit.lines import LineFilter, list_lines
from gateway.audit.trail import Trail
from gateway.config.peers import Peer
from gateway.query_retrieve import FindService
from gateway.services import Counters, Heartbeat
from gateway.store import Store
from tests.receiving import CT, associated, image, rows, send, sending, until

FIND = StudyRootQueryRetrieveInformationModelFind
PEERS = (
    Peer(ae_title="CT1", addresses=("127.0.0.0/8",), may=("store",), max_associations=1, max_instances_per_s=20),
    Peer(ae_title="FAR", addresses=("192.0.2.0/24",)),
)


def asked(port: int, calling_ae: str, source: str = "127.0.0.1") -> tuple[int | None, set[str]]:
    """Return the diagnostic of the rejection, and the SOP classes that were accepted."""
    entity = AE(calling_ae)
    for uid in (Verification, CT, FIND):
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", port, ae_title="HYBRIDMED", bind_address=(source, 0))
    if not association.is_established:
        return association.acceptor.primitive.diagnostic, set()
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    association.release()
    return None, accepted


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_peers_may_what_they_may(sqlite_store: Store, tmp_path: Path, path: str) -> None:
    """Unknown title, wrong address: rejected; a right that lacks is not offered; one association of an address."""
    counters = Counters()
    heartbeat = Heartbeat(sqlite_store, "receive", counters)
    service = FindService(sqlite_store, "HYBRIDMED", counters, 10)
    admission = Admission(PEERS, None, {"store": {CT}, "query": set(service.contexts)})
    who = Listening("HYBRIDMED", "127.0.0.1", 0, path=path)  # type: ignore[arg-type] # as parametrized
    receiver = Receiver(sqlite_store, who, Limits(reserve_bytes=0, drain_s=2), heartbeat, [service], admission)
    stop = threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    with Trail(sqlite_store, ChainKey(), counters):
        thread.start()
        port = receiver.wait_until_listening(20)
        try:
            assert asked(port, "NOBODY") == (3, set())
            assert asked(port, "FAR") == (3, set())
            assert asked(port, "CT1") == (None, {Verification, CT})
            until(lambda: counters.snapshot().get("hybridmed_associations_open", 0) == 0, "it has ended")
            those = [sending(image()) for _ in range(30)]
            with associated(port, those) as association:
                assert asked(port, "CT1") == (2, set())
                assert asked(port, "CT1", "127.0.0.2") == (None, {Verification, CT})
                began = time.monotonic()
                statuses = [answer.status for each in those if (answer := send(association, each)) is not None]
                took_s = time.monotonic() - began
            assert statuses == [0] * 30
            assert took_s > 0.4  # twenty at once, then twenty a second
            until(lambda: len(rows(sqlite_store)) == 30, "all are indexed")
        finally:
            stop.set()
            thread.join(30)
    with sqlite_store.read() as connection:
        bodies = [line.body for line in list_lines(connection, LineFilter(kind="security-alert"), limit=10)]
    assert ["NOBODY" in bodies[0], "FAR" in bodies[1], "too many" in bodies[2], len(bodies)] == [True, True, True, 3]
