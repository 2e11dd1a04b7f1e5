"""Faults: at random moments under load, and some by themselves. Nothing lost, nothing doubled."""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import MakeGateway
from tests.acceptance.faults.campaign import Campaign
from tests.acceptance.faults.report import is_good, make_report
from tests.acceptance.faults.site import Plan, Site
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S, wait_until
from tests.services.rabbitmq import PrivateRabbitMQ
from tests.studies import RealData

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(1200),
    # pynetdicom drops the socket of a refused connection without closing it, and here receivers are killed on purpose.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

FAULTS = 5
SEED = 20261121


def test_faults_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    """The short form of `python -m tests.acceptance.faults`: processes, PACS, disk, database; singly and in pairs."""
    with Site(tmp_path, Plan("sqlite", seed=SEED)) as site:
        course = Campaign(site, faults=FAULTS, per_round=FAULTS, tell=print, over_within_s=HANGS_S).run()
        report = make_report(site, course)
        log = site.gateway.log_tail()

    assert report["faults"] == FAULTS, log
    assert is_good(report), (report["found"], log)
    assert report["results_at_pacs"] > 0


def test_the_broker_may_go_away_for_a_while(
    make_grown: MakeGateway, private_rabbitmq: PrivateRabbitMQ, real_data: RealData
) -> None:
    """Studies are received while RabbitMQ is down, shown as degraded, and processed when it is back."""
    gateway = make_grown(HYBRIDMED_BROKER_URL=private_rabbitmq.url)
    gateway.start()
    storescu(gateway.address, real_data.cxr[:1])
    gateway.wait_for_jobs(1)

    private_rabbitmq.stop()
    sent = storescu(gateway.address, real_data.cxr[1:])
    gateway.wait_for_studies(3)
    wait_until(lambda: _is_degraded(gateway, "broker"), HANGS_S, "a degraded broker in /readyz")
    private_rabbitmq.start()
    jobs = gateway.wait_for_jobs(3)

    assert sent.returncode == 0
    assert Counter(job["state"] for job in jobs) == Counter(done=3)
    wait_until(lambda: not _is_degraded(gateway, "broker"), HANGS_S, "a recovered broker in /readyz")


def test_a_pacs_that_is_away_gets_its_results_later_and_holds_up_no_other(
    make_embedded: MakeGateway, orthanc: Orthanc, real_data: RealData, tmp_path: Path
) -> None:
    """One destination down, one up: the one that is up gets everything at once, the other when it is back."""
    late = Orthanc(tmp_path / "late")
    try:
        gateway = make_embedded(HYBRIDMED_DESTINATIONS=f"PACS={orthanc.dicom_address},LATE={late.dicom_address}")
        gateway.start()
        storescu(gateway.address, real_data.cxr)
        gateway.wait_for_jobs(3)
        prompt = gateway.wait_for_deliveries(destination="PACS")
        waiting = gateway.json("deliveries", "list", "--destination", "LATE")
        late.start()
        gateway.wait_for_deliveries()

        assert {delivery["state"] for delivery in prompt} == {"done"}
        assert {delivery["state"] for delivery in waiting} == {"waiting"}
        assert all(delivery["reason"] for delivery in waiting if delivery["attempts"])
        assert len(late.list_instances()) == len(orthanc.list_instances()) > 0
    finally:
        late.close()


def test_drain_finishes_what_is_in_hand(make_embedded: MakeGateway, real_data: RealData) -> None:
    """SIGTERM ends all roles in good order, exit status 0, and nothing is left held."""
    gateway = make_embedded()
    gateway.start()
    storescu(gateway.address, real_data.cxr)

    status = gateway.stop()

    assert status == 0, gateway.log_tail()
    assert all(job["state"] != "running" for job in gateway.json("jobs", "list"))
    assert gateway.json("services", "list") == []


def _is_degraded(gateway: GatewayProcess, part: str) -> bool:
    ready = httpx.get(gateway.url + "/readyz", timeout=120, trust_env=False).json()
    return bool(ready["parts"][part]["state"] != "ready")
