"""Everything odd that pydicom's users have met: each instance is stored or refused with a status."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from gateway.calling import PromptEntity
from tests.acceptance.conftest import MakeGateway
from tests.acceptance.gateway_process import GatewayProcess
from tests.services.process import LOOPBACK
from tests.studies import RealData

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom, of files that are odd on purpose
    # pynetdicom drops the socket of a refused association without closing it.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def test_each_odd_file_is_stored_or_refused_with_a_status(make_embedded: MakeGateway, real_data: RealData) -> None:
    """What was accepted equals what lies on disk and in the index; the receiver lives and stays the same process."""
    gateway = make_embedded(HYBRIDMED_QUIET_S="3600")
    gateway.start()
    pid = gateway.role_pid("receive")

    answers = {file: _send_one(gateway, file) for file in real_data.studies()["odd"]}
    stored = {file for file, status in answers.items() if status == 0}
    pid_afterwards = gateway.role_pid("receive")
    gateway.stop()
    gateway.start()

    assert pid_afterwards == pid
    assert len(stored) > len(answers) / 2, answers
    assert None not in answers.values(), [file.name for file, status in answers.items() if status is None]
    distinct = {(header.SOPInstanceUID, _bytes(file)) for file in stored if (header := _header(file)) is not None}
    indexed = gateway.json("studies", "list", "--limit", "1000")
    assert len(gateway.stored_files()) == len(distinct)
    current = {header.SOPInstanceUID for file in stored if (header := _header(file)) is not None}
    assert sum(_instance_count(gateway, study["study_instance_uid"]) for study in indexed) == len(current)
    assert gateway.json("dead", "list") == []


def _instance_count(gateway: GatewayProcess, study: str) -> int:
    return sum(one["instance_count"] for one in gateway.json("studies", "show", study)["series"])


def _header(file: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        return None


def _bytes(file: Path) -> bytes:
    return file.read_bytes()


def _send_one(gateway: GatewayProcess, file: Path) -> int | None:
    """Send one file as it lies, in its own transfer syntax; None where the association did not survive it.

    A file that cannot be offered at all (no meta header, or no SOP class) counts as refused by the sender: 0x0110.
    """
    header = _header(file)
    meta = None if header is None else header.file_meta
    if meta is None or "TransferSyntaxUID" not in meta or "MediaStorageSOPClassUID" not in meta:
        return 0x0110
    entity = PromptEntity("ODDTEST")
    entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    association = entity.associate(LOOPBACK, gateway.dicom_port, ae_title="HYBRIDMED")
    if not association.is_established:
        return 0x0122  # rejected context: no storage SOP class
    try:
        status = association.send_c_store(file)
        return int(status.Status) if status else None
    except (ValueError, AttributeError, NameError):  # pynetdicom itself stumbles over the file and sends nothing
        return 0x0110
    finally:
        association.release()
