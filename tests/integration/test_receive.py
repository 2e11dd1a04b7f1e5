"""Receiving over real associations: what is kept, what is refused, and how."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.uid import generate_uid
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context

from gateway.association import Limits
from gateway.store import Store
from gateway.store.tables import association, study
from tests.receiving import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Sending,
    as_it_lies,
    associated,
    encoded,
    image,
    kept_files,
    over,
    receiving,
    rows,
    send,
    send_one,
    sending,
    spooled_files,
    until,
)
from tests.studies import RealData

BIG_ENDIAN = "1.2.840.10008.1.2.2"


@pytest.fixture(params=["fast", "stock"], autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file holds for both paths."""
    with over(request.param):
        yield


def test_a_real_study_sent_by_storescu_is_kept_and_indexed(store: Store, real_data: RealData) -> None:
    """A CT series from dcmtk's storescu: a file and a row for each slice, one study, nothing left in the spool."""
    files = real_data.studies()["ct-philips"]

    with receiving(store) as running:
        subprocess.run(
            ["storescu", "-aec", "HYBRIDMED", "127.0.0.1", str(running.port), *map(str, files)], check=True, timeout=120
        )
    with store.read() as connection:
        studies = connection.execute(sa.select(study)).all()
        ended = connection.execute(sa.select(association.c.outcome)).scalars().all()

    assert len(rows(store)) == len(kept_files(store)) == len(files)
    assert [(row.state, row.revision) for row in studies] == [("receiving", 1)]
    assert studies[0].patient_name == str(pydicom.dcmread(files[0], stop_before_pixels=True).PatientName)
    assert ended == ["released"]
    assert spooled_files(store) == []


def test_dcmsend_is_served(local_store: Store, real_data: RealData) -> None:
    """A study from dcmtk's dcmsend arrives whole, two associations long."""
    files = real_data.studies()["mr"]

    with receiving(local_store) as running:
        for part in (files[::2], files[1::2]):
            command = ["dcmsend", "-aec", "HYBRIDMED", "127.0.0.1", str(running.port), *map(str, part)]
            subprocess.run(command, check=True, timeout=120)

    assert len(rows(local_store)) == len(files)
    assert len({row.association_id for row in rows(local_store)}) == 2


def test_every_odd_file_is_kept_or_refused_and_the_books_balance(store: Store, real_data: RealData) -> None:
    """Odd files, sent byte for byte: what was answered with success is on disk and in the index, and nothing else."""
    odd = [as_it_lies(path) for path in real_data.studies()["odd"] if _is_an_object(path)]
    accepted: set[str] = set()
    refused = 0

    with receiving(store) as running:
        for one in odd:
            answer = send_one(running.port, one)
            assert answer is not None
            if answer.status == 0:
                accepted.add(hashlib.sha256(one.transfer_syntax_uid.encode() + one.data).hexdigest())
            else:
                assert answer.status in {0xA900, 0xC000}
                assert answer.comment
                refused += 1

    assert len(accepted) > refused
    assert {row.digest for row in rows(store)} == {path.stem for path in kept_files(store)} == accepted
    assert spooled_files(store) == []


def _is_an_object(path: Path) -> bool:
    try:
        data_set = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        as_it_lies(path)
    except (AttributeError, ValueError, NotImplementedError, pydicom.errors.InvalidDicomError, UserWarning):
        return False
    return "SOPClassUID" in data_set and "MediaStorageDirectory" not in data_set.SOPClassUID.keyword


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_bytes_are_kept_as_sent(local_store: Store, syntax: str) -> None:
    """The data set in the kept file is the one that was sent, and the file meta says how it came."""
    one = sending(image(), syntax)

    with receiving(local_store) as running:
        answer = send_one(running.port, one, calling_ae="MODALITY")
    path = kept_files(local_store)[0]
    meta = pydicom.dcmread(path).file_meta

    assert answer is not None
    assert answer.status == 0
    assert path.read_bytes().endswith(one.data)
    assert meta.TransferSyntaxUID == syntax
    assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("MODALITY", "HYBRIDMED")
    assert meta.MediaStorageSOPInstanceUID == one.sop_instance_uid
    assert path.stem == hashlib.sha256(syntax.encode() + one.data).hexdigest()


def test_every_storage_class_and_transfer_syntax_is_negotiated(local_store: Store) -> None:
    """All Storage SOP classes, a private one, all transfer syntaxes; the first proposed is the one accepted."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts] + ["1.2.3.4.5"]
    proposals = [build_context(one, [syntax]) for one in (CT,) for syntax in ALL_TRANSFER_SYNTAXES]
    proposals += [build_context(one, [ALL_TRANSFER_SYNTAXES[7], IMPLICIT]) for one in classes if one != CT]

    with receiving(local_store, private_storage_classes=("1.2.3.4.5",)) as running:
        for start in range(0, len(proposals), 128):
            part = proposals[start : start + 128]
            negotiated = AE().associate("127.0.0.1", running.port, contexts=part, ae_title="HYBRIDMED")
            accepted = {context.context_id: context.transfer_syntax[0] for context in negotiated.accepted_contexts}
            negotiated.release()

            assert accepted == {2 * n + 1: context.transfer_syntax[0] for n, context in enumerate(part)}


def test_an_unconfigured_private_class_is_not_negotiated(local_store: Store) -> None:
    """A private SOP class that nobody configured gets no presentation context."""
    private = Sending("1.2.3.4.5", generate_uid(), EXPLICIT, b"")

    with receiving(local_store) as running:
        assert send_one(running.port, private) is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"SOPInstanceUID": generate_uid()}, 0xA900),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, 0xA900),
        ({"StudyInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": ""}, 0xC000),
        ({"StudyInstanceUID": "1." + "2" * 64}, 0xC000),
        ({"SOPInstanceUID": None}, 0xC000),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_data_set_that_is_not_what_the_command_said_is_refused(
    local_store: Store, change: dict[str, str | None], status: int
) -> None:
    """Other or missing UIDs: the right status with a comment, a counter, and nothing kept."""
    honest = sending(image())
    changed = image(**change)
    if "SOPInstanceUID" not in change:
        changed.SOPInstanceUID = honest.sop_instance_uid
    lie = Sending(honest.sop_class_uid, honest.sop_instance_uid, EXPLICIT, encoded(changed))

    with receiving(local_store) as running:
        answer = send_one(running.port, lie)
        counters = running.counters

    assert answer is not None
    assert answer.status == status
    assert 0 < len(answer.comment) <= 64
    assert counters[f'hybridmed_instances_refused_total{{status="{status:04X}"}}'] == 1
    assert rows(local_store) == []
    assert kept_files(local_store) == spooled_files(local_store) == []


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, b"nonsense " * 900])
def test_rubbish_is_not_understood(local_store: Store, data: bytes) -> None:
    """Bytes that are no data set get C000, and the association goes on."""
    good = sending(image())

    with receiving(local_store) as running, associated(running.port, [good]) as open_association:
        refused = send(open_association, Sending(CT, generate_uid(), EXPLICIT, data or b"\x00"))
        kept = send(open_association, good)

    assert refused is not None
    assert kept is not None
    assert (refused.status, kept.status) == (0xC000, 0)
    assert len(rows(local_store)) == 1


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_refused_between_others_leaves_no_open_file(local_store: Store) -> None:
    """A UID that is none is refused before the instance has its file; the file opened ahead is the next one's."""
    goods = [sending(image()) for _ in range(4)]
    bad = Sending(CT, "1.2.3.x", EXPLICIT, goods[0].data)

    with receiving(local_store) as running, associated(running.port, goods) as open_association:
        statuses = [getattr(send(open_association, one), "status", None) for good in goods for one in (good, bad)]
        until(lambda: len(rows(local_store)) == len(goods), "indexed")
        open_ahead = list((local_store.data_dir / "incoming").rglob("*.part"))

    assert statuses == [0, 0xC000] * len(goods)
    assert len(open_ahead) == 1
    assert list((local_store.data_dir / "incoming").rglob("*.part")) == []


@pytest.mark.parametrize(
    "limits",
    [Limits(reserve_bytes=1 << 60, drain_s=1), Limits(reserve_bytes=0, max_instance_bytes=1000, drain_s=1)],
    ids=["reserve", "size"],
)
def test_no_room_is_answered_with_out_of_resources(local_store: Store, limits: Limits) -> None:
    """A disk under its reserve, or an instance over the limit: A700, read to its end, nothing left."""
    large = sending(image(BitsAllocated=8, PixelData=b"\0" * 300_000))

    with receiving(local_store, limits) as running:
        answer = send_one(running.port, large)

    assert answer is not None
    assert answer.status == 0xA700
    assert kept_files(local_store) == spooled_files(local_store) == []


def test_strangers_are_rejected(local_store: Store) -> None:
    """A calling AE that is not allowed, or another called AE: the association is rejected and counted."""
    with receiving(local_store, allowed_aes=("CT1",)) as running:
        ae = AE("STRANGER")
        stranger = ae.associate("127.0.0.1", running.port, contexts=[build_context(CT)], ae_title="HYBRIDMED")
        misdialled = AE("CT1").associate("127.0.0.1", running.port, contexts=[build_context(CT)], ae_title="OTHER")
        welcome = send_one(running.port, sending(image()))
        counters = running.counters

    assert stranger.is_rejected
    assert misdialled.is_rejected
    assert (stranger.acceptor.primitive.result_source, stranger.acceptor.primitive.diagnostic) == (1, 3)
    assert counters['hybridmed_associations_rejected_total{reason="calling AE"}'] == 1
    assert counters['hybridmed_associations_rejected_total{reason="called AE"}'] == 1
    assert welcome is not None


def test_too_many_associations_are_rejected_for_now(local_store: Store) -> None:
    """One association over the limit is rejected as 'local limit exceeded', which says: try again."""
    one = sending(image())

    with (
        receiving(local_store, Limits(max_associations=1, reserve_bytes=0)) as running,
        associated(running.port, [one]),
        associated(running.port, [one]) as second,
    ):
        answer = second.acceptor.primitive

    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)


def test_a_repeated_instance_changes_nothing_but_other_bytes_do(store: Store) -> None:
    """The same bytes twice: one row. Other bytes under the same UID: both kept, the latter current."""
    first = image()
    repeated = sending(first)
    first.PatientName = "Doe^Janet"
    changed = sending(first)

    with receiving(store) as running:
        answers = [send_one(running.port, one) for one in (repeated, repeated, changed)]

    assert [answer.status for answer in answers if answer is not None] == [0, 0, 0]
    assert [row.is_current for row in rows(store)] == [False, True]
    assert len(kept_files(store)) == 2
    with store.read() as connection:
        assert connection.execute(sa.select(study.c.patient_name, study.c.revision)).all() == [("Doe^Janet", 1)]


def test_receiving_goes_on_while_the_database_is_away(store: Store) -> None:
    """With the database away instances are taken, and the role says that it is degraded; then they are indexed."""
    present = store.engine
    store.engine = sa.create_engine(
        "postgresql+psycopg://postgres@127.0.0.1:1/none", connect_args={"connect_timeout": 1}
    )

    with receiving(store) as running:
        answer = send_one(running.port, sending(image()))
        until(lambda: "database" in running.heartbeat._degraded, "the role is degraded")
        store.engine = present
        until(lambda: len(rows(store)) == 1, "the instance is indexed")
        until(lambda: not running.heartbeat._degraded, "the role has recovered")

    assert answer is not None
    assert answer.status == 0
    assert spooled_files(store) == []
