"""Faults: at random moments under load, and some by themselves. Nothing lost, nothing doubled."""

import gc
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.acceptance.conftest import MakeGateway
from tests.acceptance.faults import preload, verdict
from tests.acceptance.faults.campaign import Campaign
from tests.acceptance.faults.ledger import Ledger
from tests.acceptance.faults.load import Load
from tests.acceptance.faults.power import Power
from tests.acceptance.faults.report import is_good, make_report
from tests.acceptance.faults.site import Plan, Site
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.services.orthanc import Orthanc
from tests.services.process import HANGS_S, LOOPBACK, wait_until
from tests.services.rabbitmq import PrivateRabbitMQ
from tests.studies import REPOSITORY, RealData

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(1200),
    # pynetdicom drops the socket of a refused connection without closing it, and here receivers are killed on purpose.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

FAULTS = 5
ANSWERED = 6
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


@dataclass
class Received:
    """A gateway that only receives, and what it answered."""

    ledger: Ledger
    engine: sa.Engine
    gateway: GatewayProcess

    def stored(self, path: str) -> bytes | None:
        """As of `Keeper`."""
        file = self.gateway.data_dir / path
        return file.read_bytes() if file.is_file() else None


@pytest.mark.skipif(not preload.can_make(), reason="no C compiler (cc)")
@pytest.mark.parametrize("swallows", ["", "/incoming/"])
def test_an_fsync_that_is_left_out_is_found(tmp_path: Path, swallows: str) -> None:
    """Slower: where fsync of the spool does nothing, a loss of power shows lost instances; where it works, none."""
    power = Power(tmp_path / "power", tmp_path / "gateway" / "data", swallows)
    preloaded = {**preload.env_of([power.library]), **power.env}
    gateway = GatewayProcess(tmp_path / "gateway", roles="receive", **preloaded)
    ledger = Ledger()
    receivers = [(LOOPBACK, gateway.dicom_port)]
    template = REPOSITORY / "gateway" / "samples" / "cxr-bacterial.dcm"
    try:
        gateway.start()
        with Load(receivers, ledger, template, seed=SEED, every_s=0.2) as load:
            wait_until(lambda: ledger.answers().get("0000", 0) >= ANSWERED, HANGS_S, "instances answered")
            gateway.kill()
            with load.silence():
                loss = power.lose(random.Random(SEED))
        gateway.start()
        wait_until(lambda: not list(gateway.data_dir.glob("incoming/*/*.dcm")), HANGS_S, "everything indexed")
        engine = sa.create_engine(f"sqlite:///{gateway.data_dir / 'hybridmed.db'}", poolclass=sa.NullPool)
        found = verdict.judge_instances(Received(ledger, engine, gateway))
    finally:
        gateway.stop()
    gc.collect()  # pynetdicom's sockets of refused connections, while their warning is expected

    answered = {instance for study in ledger.studies() for instance in study.acknowledged}
    lost = {instance for instance in answered if any(instance in each for each in found.lost)}
    assert bool(lost) == bool(swallows), found
    assert not swallows or loss.cut


def test_the_broker_and_the_database_may_go_away_for_a_while(
    make_grown: MakeGateway, private_rabbitmq: PrivateRabbitMQ, real_data: RealData
) -> None:
    """Studies are received while RabbitMQ is down or out of disk, and PostgreSQL ends connections; then all is done."""
    gateway = make_grown(HYBRIDMED_BROKER_URL=private_rabbitmq.url)
    gateway.start()
    storescu(gateway.address, real_data.cxr[:1])
    gateway.wait_for_jobs(1)

    private_rabbitmq.stop()
    sent = storescu(gateway.address, real_data.cxr[1:2])
    gateway.wait_for_studies(2)
    wait_until(lambda: "broker" in _not_ready(gateway), HANGS_S, "a degraded broker in /readyz")
    private_rabbitmq.start()
    gateway.wait_for_jobs(2)
    private_rabbitmq.rabbitmqctl("set_disk_free_limit", "900000GB")
    sent_again = storescu(gateway.address, real_data.cxr[2:])
    gateway.wait_for_studies(3)
    wait_until(lambda: "broker" in _not_ready(gateway).get("role dispatch", ""), HANGS_S, "a broker out of disk")
    _end_connections(gateway)
    private_rabbitmq.rabbitmqctl("set_disk_free_limit", "50MB")
    jobs = gateway.wait_for_jobs(3)

    assert sent.returncode == sent_again.returncode == 0
    assert Counter(job["state"] for job in jobs) == Counter(done=3)
    wait_until(lambda: not {"broker", "role dispatch"} & _not_ready(gateway).keys(), HANGS_S, "a recovered broker")


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


def _not_ready(gateway: GatewayProcess) -> dict[str, str]:
    """Return the parts of /readyz that are not ready, with their reasons."""
    ready = httpx.get(gateway.url + "/readyz", timeout=120, trust_env=False).json()
    return {name: str(part["reason"]) for name, part in ready["parts"].items() if part["state"] != "ready"}


def _end_connections(gateway: GatewayProcess) -> None:
    """Let PostgreSQL end every connection of the gateway."""
    engine = sa.create_engine(gateway.env["HYBRIDMED_DATABASE_URL"], poolclass=sa.NullPool)
    with engine.connect() as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) {others}"))
