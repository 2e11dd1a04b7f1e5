"""Faults under load: roles killed, the broker or the PACS away. Nothing lost, nothing doubled."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom.ae import ApplicationEntity

from tests.acceptance.conftest import MakeGateway
from tests.acceptance.gateway_process import GatewayProcess, storescu
from tests.services.orthanc import Orthanc
from tests.services.process import LOOPBACK, wait_until
from tests.services.rabbitmq import PrivateRabbitMQ
from tests.studies import RealData

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(1200),
    # pynetdicom drops the socket of a refused connection without closing it, and here receivers are killed on purpose.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

INSTANCES = 200


def test_killed_roles_lose_and_double_nothing(
    make_gateway: MakeGateway, orthanc: Orthanc, real_data: RealData, tmp_path: Path
) -> None:
    """Receiver, dispatcher and worker are killed at random moments while 200 instances come in."""
    # Longer than a sender needs to come back: otherwise a study cut off in the middle rightly gets two revisions.
    gateway = make_gateway(HYBRIDMED_DESTINATIONS=f"PACS={orthanc.dicom_address}", HYBRIDMED_QUIET_S="15")
    gateway.start()
    files = _make_instances(real_data, tmp_path / "load")
    acknowledged: set[str] = set()
    is_done = threading.Event()
    killed: list[str] = []
    killer = threading.Thread(target=_kill_at_random, args=(gateway, is_done, random.Random(20261121), killed))
    killer.start()
    xray_studies = {_study(file) for file in files if _modality(file) == "DX"}

    try:
        _send_until_acknowledged(gateway, files, acknowledged)
    finally:
        is_done.set()
        killer.join()
    # The work begins when the studies are complete: a worker that holds a job is killed now, and a dispatcher.
    gateway.wait_for_running_job()
    killed += [gateway.kill_role("work") and "busy work", gateway.kill_role("dispatch") and "dispatch"]
    gateway.wait_for_studies(len({_study(file) for file in files}))
    jobs = gateway.wait_for_jobs(len(xray_studies))
    gateway.wait_for_deliveries()

    assert {"receive", "work", "busy work", "dispatch"} <= set(killed)
    assert acknowledged == {_sop(file) for file in files}
    assert len(gateway.stored_files()) == INSTANCES
    done = Counter(job["study_instance_uid"] for job in jobs if job["state"] == "done")
    assert done == Counter(dict.fromkeys(xray_studies, 1))
    segmentations = orthanc.save_files(tmp_path / "pacs", Modality="SEG")
    assert Counter(_study(file) for file in segmentations) == Counter(dict.fromkeys(xray_studies, 2))
    assert gateway.json("dead", "list") == []


def test_a_killed_gateway_finishes_after_its_restart(make_embedded: MakeGateway, real_data: RealData) -> None:
    """All processes end at once in the middle of the work; after a start everything is there, once."""
    gateway = make_embedded()
    gateway.start()
    assert storescu(gateway.address, real_data.cxr).returncode == 0

    gateway.kill()
    gateway.start()
    jobs = gateway.wait_for_jobs(3)

    assert Counter(job["study_instance_uid"] for job in jobs) == Counter({_study(file): 1 for file in real_data.cxr})
    assert len(gateway.stored_files()) == 3


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
    wait_until(lambda: _is_degraded(gateway, "broker"), 60, "a degraded broker in /readyz")
    private_rabbitmq.start()
    jobs = gateway.wait_for_jobs(3)

    assert sent.returncode == 0
    assert Counter(job["state"] for job in jobs) == Counter(done=3)
    wait_until(lambda: not _is_degraded(gateway, "broker"), 60, "a recovered broker in /readyz")


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


def _make_instances(real_data: RealData, folder: Path) -> list[Path]:
    """Write 200 instances: eight X-ray studies of two images, and four CT studies that no bundle takes."""
    folder.mkdir()
    xray = pydicom.dcmread(real_data.cxr[0])
    slices = [pydicom.dcmread(file) for file in real_data.studies()["ct-philips"][:20]]
    for each in slices:
        each.BodyPartExamined = "KNEE"
    made = []
    for study in range(8):
        made += [_renamed(xray, folder, f"dx-{study}-{image}", f"dx-{study}") for image in range(2)]
    made += [_renamed(slices[n % len(slices)], folder, f"ct-{n}", f"ct-{n % 4}") for n in range(INSTANCES - len(made))]
    return made


def _renamed(dataset: pydicom.Dataset, folder: Path, name: str, study: str) -> Path:
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["acceptance", study])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["acceptance", study, "series"])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["acceptance", name])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder / f"{name}.dcm"


def _send_until_acknowledged(gateway: GatewayProcess, files: Sequence[Path], acknowledged: set[str]) -> None:
    """Send as a modality does: what was not answered with success is sent again."""
    deadline = time.monotonic() + 300
    while True:
        left = [file for file in files if _sop(file) not in acknowledged]
        if not left:
            return
        assert time.monotonic() < deadline, gateway.log_tail()
        _send_once(gateway, left, acknowledged)
        time.sleep(0.3)


def _send_once(gateway: GatewayProcess, files: Sequence[Path], acknowledged: set[str]) -> None:
    entity = ApplicationEntity("LOADTEST")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 15
    for abstract, transfer in {_context(file) for file in files}:
        entity.add_requested_context(abstract, transfer)
    association = entity.associate(LOOPBACK, gateway.dicom_port, ae_title="HYBRIDMED")
    if not association.is_established:
        return
    try:
        for file in files:
            status = association.send_c_store(file)
            if status and status.Status == 0:
                acknowledged.add(_sop(file))
            time.sleep(0.02)
        association.release()
    except (RuntimeError, ValueError):  # the association ended under our hands: pynetdicom says so in these ways
        association.abort()


def _kill_at_random(gateway: GatewayProcess, is_done: threading.Event, dice: random.Random, killed: list[str]) -> None:
    for role in ("receive", "work", "dispatch", "receive", "work", "receive"):
        if is_done.wait(dice.uniform(0.5, 2)):
            return
        gateway.kill_role(role)
        killed.append(role)


def _is_degraded(gateway: GatewayProcess, part: str) -> bool:
    ready = httpx.get(gateway.url + "/readyz", timeout=30, trust_env=False).json()
    return bool(ready["parts"][part]["state"] != "ready")


def _header(file: Path) -> pydicom.Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True)


def _study(file: Path) -> str:
    return str(_header(file).StudyInstanceUID)


def _sop(file: Path) -> str:
    return str(_header(file).SOPInstanceUID)


def _modality(file: Path) -> str:
    return str(_header(file).Modality)


def _context(file: Path) -> tuple[str, str]:
    header = _header(file)
    return str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID)
