"""The deliverer: every destination at its own pace, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from gateway.config import Destination
from gateway.delivery import Outgoing
from gateway.store import Store
from tests.delivering import (
    LIMITS,
    commit_objects,
    make_deliverer,
    render_results,
    rows_of,
    scripted_peer,
    silent_peer,
    storescp,
)
from tests.services.orthanc import Orthanc
from tests.services.process import free_port
from tests.studies import RealData
from tests.working import eventually, running

# pynetdicom drops the socket of a refused connection without closing it; the interpreter closes it at once and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module")
def objects(real_data: RealData, tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    """Give SR and SEG of a real X-ray."""
    return render_results(real_data.cxr[0], tmp_path_factory.mktemp("results"))


def _pacs(port: int, name: str = "PACS", **wishes: object) -> Destination:
    return Destination(name=name, address=f"PEER@127.0.0.1:{port}", **wishes)  # type: ignore[arg-type] # fields by name


def test_results_reach_orthanc_by_both_ways(
    store: Store, real_data: RealData, objects: list[Outgoing], orthanc: Orthanc
) -> None:
    """One destination by C-STORE and one by STOW-RS: the PACS holds SEG and SR, once."""
    by_dimse = Destination(name="PACS", address=orthanc.dicom_address)
    by_web = Destination(name="WEB", address=orthanc.dicomweb_url, send=("sr",))
    commit_objects(store, real_data.cxr[0], objects, ["PACS", "WEB"])

    deliverer, heartbeat = make_deliverer(store, [by_dimse, by_web])
    with running(deliverer):
        eventually(lambda: {row.state for row in rows_of(store).values()} == {"done"}, "both done")

    assert len(orthanc.list_instances(Modality="SEG")) == 1
    assert len(orthanc.list_instances(Modality="SR")) == len(objects) - 1
    assert heartbeat.counters.snapshot()['hybridmed_deliveries_total{destination="WEB",outcome="done"}'] == 1


def test_a_destination_that_is_silent_delays_no_other(
    store: Store, real_data: RealData, objects: list[Outgoing], tmp_path: Path
) -> None:
    """While one thread waits for an answer that never comes, the other destination has its results."""
    commit_objects(store, real_data.cxr[0], objects, ["SILENT", "PACS"])
    with silent_peer() as silent, storescp(tmp_path / "pacs") as port:
        deliverer, _ = make_deliverer(store, [_pacs(silent, "SILENT"), _pacs(port)], timeout_s=3)
        with running(deliverer):
            eventually(lambda: rows_of(store)["PACS"].state == "done", "PACS is served")
            eventually(lambda: rows_of(store)["SILENT"].reason, "the silence is noted")

    assert len(list((tmp_path / "pacs").iterdir())) == len(objects)
    assert (rows_of(store)["SILENT"].state, rows_of(store)["SILENT"].attempts) == ("waiting", 0)


def test_results_arrive_when_the_destination_is_back(
    store: Store, real_data: RealData, objects: list[Outgoing], tmp_path: Path
) -> None:
    """More tries than any limit pass while it is away; health says so until it is back."""
    commit_objects(store, real_data.cxr[0], objects, ["PACS"])
    port = free_port()
    deliverer, heartbeat = make_deliverer(store, [_pacs(port)])
    away = 'hybridmed_deliveries_total{destination="PACS",outcome="away"}'
    with running(deliverer):
        eventually(lambda: heartbeat.counters.snapshot().get(away, 0) > LIMITS.max_attempts, "several tries")
        assert "destination PACS" in heartbeat._degraded
        with storescp(tmp_path / "pacs", port=port):
            eventually(lambda: rows_of(store)["PACS"].state == "done", "delivered")

    assert len(list((tmp_path / "pacs").iterdir())) == len(objects)
    assert heartbeat._degraded == {}


def test_a_refusal_is_given_up_after_its_tries(store: Store, real_data: RealData, objects: list[Outgoing]) -> None:
    """The reason stands on the failed list; the deliveries behind it go on."""
    commit_objects(store, real_data.cxr[0], objects, ["PACS"])
    with scripted_peer(lambda _: 0xC000) as peer:
        deliverer, _ = make_deliverer(store, [_pacs(peer.port)])
        with running(deliverer):
            eventually(lambda: rows_of(store)["PACS"].state == "failed", "given up")

    row = rows_of(store)["PACS"]
    assert row.attempts == LIMITS.max_attempts
    assert "seg: status C000, cannot understand" in (row.reason or "")


def test_a_destination_gets_only_the_kinds_that_it_takes(
    store: Store, real_data: RealData, objects: list[Outgoing], tmp_path: Path
) -> None:
    """A SEG-only destination; and one that takes nothing of this job is done without a connection."""
    commit_objects(store, real_data.cxr[0], objects, ["SEGS", "MAPS"])
    with storescp(tmp_path / "pacs") as port:
        maps = _pacs(free_port(), "MAPS", send=("heatmap",))
        deliverer, _ = make_deliverer(store, [_pacs(port, "SEGS", send=("seg",)), maps])
        with running(deliverer):
            eventually(lambda: {row.state for row in rows_of(store).values()} == {"done"}, "both done")

    assert [pydicom.dcmread(path).Modality for path in (tmp_path / "pacs").iterdir()] == ["SEG"]
    assert rows_of(store)["MAPS"].reason == "nothing that this destination takes"


def test_reports_go_first(store: Store, real_data: RealData, objects: list[Outgoing]) -> None:
    """They are what people wait for; the order of the others is as they were made."""
    commit_objects(store, real_data.cxr[0], list(reversed(objects)), ["PACS"])
    is_report = {each.sop_instance_uid: each.kind.startswith("sr-") for each in objects}
    with scripted_peer(lambda _: 0x0000) as peer:
        deliverer, _ = make_deliverer(store, [_pacs(peer.port)])
        with running(deliverer):
            eventually(lambda: rows_of(store)["PACS"].state == "done", "delivered")

    assert [is_report[uid] for uid in peer.received] == sorted(is_report.values(), reverse=True)


def test_a_missing_file_is_a_failure_with_its_reason(
    store: Store, real_data: RealData, objects: list[Outgoing], tmp_path: Path
) -> None:
    """Someone removed results by hand: the list says which kind is gone."""
    job_id = commit_objects(store, real_data.cxr[0], objects, ["PACS"])
    (store.data_dir / "results" / job_id / "seg.dcm").unlink()
    with storescp(tmp_path / "pacs") as port:
        deliverer, _ = make_deliverer(store, [_pacs(port)])
        with running(deliverer):
            eventually(lambda: rows_of(store)["PACS"].state == "failed", "given up")

    assert rows_of(store)["PACS"].reason == "result file is gone: seg"


def test_a_stopped_deliverer_ends_while_a_destination_is_silent(
    store: Store, real_data: RealData, objects: list[Outgoing]
) -> None:
    """The time limit bounds the wait; the delivery stays for the next start."""
    commit_objects(store, real_data.cxr[0], objects, ["SILENT"])
    with silent_peer() as port:
        deliverer, _ = make_deliverer(store, [_pacs(port, "SILENT")], timeout_s=1)
        with running(deliverer):
            eventually(lambda: rows_of(store)["SILENT"].reason, "tried once")

    assert rows_of(store)["SILENT"].state == "waiting"
