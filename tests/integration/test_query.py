"""C-FIND over real associations: what is found, what is refused, and how the answers look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_FIND_RQ
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import encode
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from gateway.calling import held_still
from gateway.store import Store, open_store
from gateway.store.schema import upgrade
from tests.querying import FIND_PATIENT, FIND_STUDY, answering, ask, asking, dcmtk, identifier
from tests.receiving import EXPLICIT, Running, associated, image, rows, send, sending, until
from tests.stores import add_instance, add_series, add_study

STUDY, SERIES = "1.2.3.1", "1.2.3.1.1"
CHINESE = "Wang^XiaoDong=王^小東"


def _sample() -> list[Dataset]:
    """Return the patients of pynetdicom's query tests, one with two series, and two whose names are not ASCII."""
    asked = Dataset()
    asked.RequestedProcedureID, asked.ScheduledProcedureStepID = "RP7", "SPS1"
    return [
        _one("1CT1", "CompressedSamples^CT1", STUDY, "20040119", Modality="CT"),
        _one("1CT1", "CompressedSamples^CT1", STUDY, "20040119", Modality="CT", SeriesInstanceUID=f"{STUDY}.2"),
        _one("4MR1", "CompressedSamples^MR1", "1.2.3.4", "20040826", Modality="MR", RequestAttributesSequence=[asked]),
        _one("8NM1", "CompressedSamples^NM1", "1.2.3.8", "20100101", Modality="NM"),
        _one("W1", CHINESE, "1.2.3.9", "20160601", Modality="CR", SpecificCharacterSet="ISO_IR 192"),
        _one("M1", "Müller^Jörg", "1.2.3.10", "", Modality="CR", SpecificCharacterSet="ISO_IR 100"),
    ]


def _one(patient_id: str, name: str, study_uid: str, date: str, **changes: object) -> Dataset:
    given = {"PatientID": patient_id, "PatientName": name, "StudyDate": date, **changes}
    return image(study_uid, **given)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Give a receiver that holds the sample."""
    folder = tmp_path_factory.mktemp("query")
    store = open_store(f"sqlite:///{folder / 'hybridmed.db'}", folder)
    upgrade(store)
    images = [sending(each) for each in _sample()]
    with answering(store) as running:
        with associated(running.port, images) as association:
            for each in images:
                answer = send(association, each)
                assert answer is not None
                assert answer.status == 0
        until(lambda: len(rows(store)) == len(images), "all indexed")
        yield running
    store.close()


@pytest.mark.parametrize(
    ("level", "keys", "patients"),
    [
        ("PATIENT", {"PatientID": ""}, ["1CT1", "4MR1", "8NM1", "M1", "W1"]),
        ("PATIENT", {"PatientID": "4MR1"}, ["4MR1"]),
        ("PATIENT", {"PatientID": "none"}, []),
        ("PATIENT", {"PatientName": "*"}, ["1CT1", "4MR1", "8NM1", "M1", "W1"]),
        ("PATIENT", {"PatientName": "CompressedSamples^CT1"}, ["1CT1"]),
        ("PATIENT", {"PatientName": "CompressedSamples*"}, ["1CT1", "4MR1", "8NM1"]),
        ("PATIENT", {"PatientName": "CompressedSamples^??1"}, ["1CT1", "4MR1", "8NM1"]),
        ("PATIENT", {"PatientName": "compressedsamples^m*"}, ["4MR1"]),
        ("PATIENT", {"PatientName": "王*", "SpecificCharacterSet": "ISO_IR 192"}, ["W1"]),
        ("STUDY", {"StudyDate": "20000101-20200101"}, ["1CT1", "4MR1", "8NM1", "W1"]),
        ("STUDY", {"StudyDate": "20000101-20150101"}, ["1CT1", "4MR1", "8NM1"]),
        ("STUDY", {"StudyDate": "20000101-20010101"}, []),
        ("STUDY", {"StudyDate": "20150101-"}, ["W1"]),
        ("STUDY", {"StudyDate": "20200101-"}, []),
        ("STUDY", {"StudyDate": "-20100101"}, ["1CT1", "4MR1", "8NM1"]),
        ("STUDY", {"StudyDate": "20040826"}, ["4MR1"]),
        ("STUDY", {"ModalitiesInStudy": "MR"}, ["4MR1"]),
        ("STUDY", {"StudyInstanceUID": ["1.2.3.4", "1.2.3.8", "1.2.3.77"]}, ["4MR1", "8NM1"]),
        ("STUDY", {"PatientID": "4MR1", "StudyDate": "2004*"}, None),
        ("STUDY", {"StudyDate": "-"}, None),
        ("STUDY", {"StudyInstanceUID": "1.2.*"}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_the_query_cases_of_qrscp(
    served: Running, level: str, keys: dict[str, object], patients: list[str] | None
) -> None:
    """Single values, wildcards, ranges, lists and universal matching find these patients; None: refused with C000."""
    model = FIND_PATIENT if level == "PATIENT" else FIND_STUDY
    wanted = identifier(level, **{"PatientID": "", **keys})

    with asking(served.port, [model]) as association:
        found = ask(association, model, wanted)

    assert found.status == (0xC000 if patients is None else 0)
    assert bool(found.comment) == (patients is None)
    assert sorted(answer.PatientID for answer in found.answers) == (patients or [])


@pytest.mark.parametrize(
    ("model", "level", "keys", "count"),
    [
        (FIND_PATIENT, "STUDY", {"PatientID": "1CT1"}, 1),
        (FIND_PATIENT, "SERIES", {"PatientID": "1CT1", "StudyInstanceUID": STUDY}, 2),
        (FIND_PATIENT, "SERIES", {"PatientID": "4MR1", "StudyInstanceUID": STUDY}, 0),
        (FIND_STUDY, "SERIES", {"StudyInstanceUID": STUDY}, 2),
        (FIND_STUDY, "IMAGE", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}, 1),
        (FIND_STUDY, "PATIENT", {"PatientID": "1CT1"}, None),
        (FIND_STUDY, "FRAME", {"StudyInstanceUID": STUDY}, None),
        (FIND_STUDY, "", {"StudyInstanceUID": STUDY}, None),
        (FIND_PATIENT, "STUDY", {"PatientID": ""}, None),
        (FIND_PATIENT, "STUDY", {"PatientID": "1CT*"}, None),
        (FIND_STUDY, "SERIES", {"SeriesInstanceUID": SERIES}, None),
        (FIND_STUDY, "SERIES", {"StudyInstanceUID": [STUDY, "1.2.3.4"]}, None),
        (FIND_STUDY, "IMAGE", {"StudyInstanceUID": STUDY}, None),
    ],
)
def test_keys_of_higher_levels_are_single_values(
    served: Running, model: str, level: str, keys: dict[str, object], count: int | None
) -> None:
    """Unique keys lead down the levels; where one is missing or manifold, or the level is none: A900 and why."""
    with asking(served.port, [model]) as association:
        found = ask(association, model, identifier(level, **keys))

    assert found.status == (0xA900 if count is None else 0)
    assert len(found.answers) == (count or 0)
    assert bool(found.comment) == (count is None)


def test_relational_queries_are_negotiated(served: Running) -> None:
    """With relational queries granted, a series is found without its study; so are names by words, and moments."""
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid = FIND_STUDY
    asked.service_class_application_information = b"\1\1\1\1"

    with asking(served.port, [FIND_STUDY], ext_neg=[asked]) as association:
        granted = association.acceptor.sop_class_extended[FIND_STUDY]
        series = ask(association, FIND_STUDY, identifier("SERIES", SeriesInstanceUID=f"{STUDY}.2"))
        by_word = ask(association, FIND_STUDY, identifier("STUDY", PatientName="xiaodong", PatientID=""))

    assert granted == b"\1\1\1\0"
    assert [answer.StudyInstanceUID for answer in series.answers] == [STUDY]
    assert [answer.PatientID for answer in by_word.answers] == ["W1"]


@pytest.mark.parametrize(("is_combined", "patients"), [(False, []), (True, ["4MR1"])])
def test_ranges_of_date_and_time_are_one_only_where_negotiated(
    served: Running, is_combined: bool, patients: list[str]
) -> None:
    """From the evening of the day before to the morning of the day after: midnight between them lies in both as one."""
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid = FIND_STUDY
    asked.service_class_application_information = bytes([0, is_combined])
    keys = {"StudyDate": "20040825-20040827", "StudyTime": "200000-220000", "PatientID": ""}

    with asking(served.port, [FIND_STUDY], ext_neg=[asked]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", **keys))

    assert [answer.PatientID for answer in found.answers] == patients


def test_more_requests_than_negotiated_end_the_association(served: Running) -> None:
    """A peer that asks on and on without hearing the answers is aborted, before its questions fill the memory."""
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 2, UID(FIND_STUDY)
    wanted = identifier("STUDY", PatientID="", StudyInstanceUID=[f"1.{number}" for number in range(2000)])
    request.Identifier = BytesIO(encode(wanted, is_implicit_vr=True, is_little_endian=True) or b"")
    message, encoded = C_FIND_RQ(), b""
    message.primitive_to_message(request)
    for part in message.encode_msg(1, 16384):
        pdu = P_DATA_TF()
        pdu.from_primitive(part)
        encoded += pdu.encode()

    with asking(served.port, {FIND_STUDY: ["1.2.840.10008.1.2"]}) as association:
        with suppress(OSError):  # it may be aborted already
            association.dul.socket.socket.sendall(encoded * 100)  # type: ignore[union-attr]
        until(lambda: not association.is_established, "aborted")
    with asking(served.port, [FIND_STUDY]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", PatientID="4MR1"))

    assert len(found.answers) == 1


def test_an_answer_holds_the_keys_asked_for_and_where_to_retrieve_from(served: Running) -> None:
    """Asked-for keys, unique keys, level, Retrieve AE Title and ONLINE; nothing that was not asked for."""
    keys = {"StudyInstanceUID": STUDY, "StudyDate": "", "NumberOfStudyRelatedSeries": "", "ModalitiesInStudy": ""}

    with asking(served.port, [FIND_STUDY]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", **keys))

    (answer,) = found.answers
    assert found.pending == [0xFF00]
    assert {element.keyword: element.value for element in answer} == {
        "SpecificCharacterSet": "ISO_IR 192",
        "StudyDate": "20040119",
        "QueryRetrieveLevel": "STUDY",
        "RetrieveAETitle": "HYBRIDMED",
        "InstanceAvailability": "ONLINE",
        "ModalitiesInStudy": "CT",
        "StudyInstanceUID": STUDY,
        "NumberOfStudyRelatedSeries": 2,
    }


def test_request_attributes_are_matched_and_returned_in_their_sequence(served: Running) -> None:
    """A key within Request Attributes Sequence finds the series that has it, and comes back in the sequence."""
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP7", ""
    wanted = identifier("SERIES", StudyInstanceUID="1.2.3.4", RequestAttributesSequence=[item])
    other = Dataset()
    other.RequestedProcedureID = "RP8"

    with asking(served.port, [FIND_STUDY]) as association:
        (answer,) = ask(association, FIND_STUDY, wanted).answers
        wanted.RequestAttributesSequence = [other]
        none = ask(association, FIND_STUDY, wanted)

    (found,) = answer.RequestAttributesSequence
    assert (found.RequestedProcedureID, found.ScheduledProcedureStepID) == ("RP7", "SPS1")
    assert (none.status, none.answers) == (0, [])


@pytest.mark.parametrize("keys", [{"InstitutionName": ""}, {"NumberOfStudyRelatedInstances": "2"}])
def test_a_key_that_is_not_kept_or_not_matched_is_told(served: Running, keys: dict[str, str]) -> None:
    """FF01 instead of FF00 where an optional key is not kept here, or is given a value that nothing is matched with."""
    with asking(served.port, [FIND_STUDY]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID=STUDY, **keys))

    assert found.pending == [0xFF01]


@pytest.mark.parametrize(
    ("patient", "requested", "charset", "name"),
    [
        ("W1", None, "ISO_IR 192", CHINESE),
        ("W1", "ISO_IR 100", "ISO_IR 192", CHINESE),
        ("M1", None, "ISO_IR 192", "Müller^Jörg"),
        ("M1", "ISO_IR 100", "ISO_IR 100", "Müller^Jörg"),
        ("M1", "ISO_IR 144", "ISO_IR 192", "Müller^Jörg"),
    ],
)
def test_names_come_in_a_character_set_that_can_say_them(
    served: Running, patient: str, requested: str | None, charset: str, name: str
) -> None:
    """The character set of the query where it fits the answer, UTF-8 otherwise."""
    wanted = identifier("STUDY", PatientID=patient, PatientName="")
    if requested is not None:
        wanted.SpecificCharacterSet = requested

    with asking(served.port, [FIND_STUDY]) as association:
        (answer,) = ask(association, FIND_STUDY, wanted).answers

    assert (answer.SpecificCharacterSet, str(answer.PatientName)) == (charset, name)


def test_findscu_of_dcmtk_reads_the_answers(served: Running) -> None:
    """The findscu of dcmtk, in Study Root and Patient Root, sees a study, a series and an image."""
    to = ["-v", "-aec", "HYBRIDMED", "127.0.0.1", str(served.port)]

    study = dcmtk("findscu", "-S", *to, *_keys(QueryRetrieveLevel="STUDY", PatientName="comp*^mr1", PatientID=""))
    series = dcmtk("findscu", "-P", *to, *_keys(QueryRetrieveLevel="SERIES", PatientID="1CT1", StudyInstanceUID=STUDY))

    assert "4MR1" in study
    assert series.count("Find Response:") == 2
    assert "Success" in series


def _keys(**keys: str) -> list[str]:
    return [part for name, value in keys.items() for part in ("-k", f"{name}={value}")]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Give a store with 600 studies of one image each, for tests that only read."""
    folder = tmp_path_factory.mktemp("many")
    store = open_store(f"sqlite:///{folder / 'hybridmed.db'}", folder)
    upgrade(store)
    with store.write() as connection:
        for number in range(600):
            uid = f"1.2.9.{number}"
            add_study(connection, uid, patient_id=f"P{number % 7}", study_date=f"2026{1 + number % 12:02}01")
            add_series(connection, uid, f"{uid}.1")
            add_instance(connection, uid, f"{uid}.1", f"{uid}.1.1")
    yield store
    store.close()


def test_many_answers_come_page_by_page_each_once(many: Store) -> None:
    """600 studies in pages of 70: each one once."""
    with answering(many, page=70) as running, asking(running.port, [FIND_STUDY]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID=""))

    assert found.status == 0
    assert len(found.answers) == len({answer.StudyInstanceUID for answer in found.answers}) == 600
    assert running.counters["hybridmed_find_answers_total"] == 600
    assert running.counters['hybridmed_finds_total{status="0000"}'] == 1


def test_more_matches_than_the_limit_end_with_a700(many: Store) -> None:
    """The limit's number of answers, then A700 with a comment that says what to do; a narrower query is answered."""
    with answering(many, find_limit=200) as running, asking(running.port, [FIND_STUDY]) as association:
        broad = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID=""))
        narrow = ask(association, FIND_STUDY, identifier("STUDY", PatientID="P3", StudyInstanceUID=""))

    assert (broad.status, len(broad.answers)) == (0xA700, 200)
    assert broad.comment == "more than 200 matches: ask more precisely"
    assert (narrow.status, len(narrow.answers)) == (0, 86)


def test_a_query_can_be_cancelled(many: Store) -> None:
    """C-CANCEL after the first answer ends a query of 600 with FE00, and the association goes on."""
    with answering(many, page=20) as running, asking(running.port, [FIND_STUDY]) as association:
        statuses = []
        for status, _ in association.send_c_find(identifier("STUDY", StudyInstanceUID=""), FIND_STUDY, msg_id=7):
            if not statuses:
                association.send_c_cancel(7, query_model=FIND_STUDY)
            statuses.append(status.Status)
        after = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID="1.2.9.5"))

    assert statuses[-1] == 0xFE00
    assert len(statuses) < 600
    assert len(after.answers) == 1


_OPENED = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("encoded", "status"),
    [
        (b"\x08\x00\x52\x00CS\xff\xffSTUDY", 0),
        (b"\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x13\x00IS\x04\x00abcd", 0),
        (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + _OPENED * 20000, 0xC000),
        (bytes(range(256)) * 10, 0xA900),
        (b"\x10\x00\x10\x00PN\x04\x00Doe ", 0xA900),
    ],
    ids=["length beyond the end", "no number", "20,000 sequences deep", "rubbish", "no level"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_strange_identifier_is_answered_and_the_association_stands(
    served: Running, encoded: bytes, status: int
) -> None:
    """What can be read is read, what cannot is refused; the next query over the same association is served."""
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 3, 2, UID(FIND_STUDY)
    request.Identifier = BytesIO(encoded)

    with asking(served.port, {FIND_STUDY: [EXPLICIT]}) as association:
        context_id = association.accepted_contexts[0].context_id or 0
        with held_still(association):
            association.dimse.send_msg(request, context_id)
            statuses = [_next_status(association)]
            while statuses[-1] in (0xFF00, 0xFF01):
                statuses.append(_next_status(association))
        after = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID=STUDY))

    assert statuses[-1] == status
    assert (after.status, len(after.answers)) == (0, 1)


def _next_status(association: Association) -> int:
    _, answer = association.dimse.get_msg(block=True)
    assert isinstance(answer, C_FIND)
    assert answer.Status is not None
    return answer.Status


def test_no_database_is_told(local_store: Store, tmp_path: Path) -> None:
    """Where the schema is missing, a query is answered with A700 and a sentence, and the association stands."""
    empty = open_store(f"sqlite:///{tmp_path / 'empty.db'}", tmp_path)

    with answering(empty) as running, asking(running.port, [FIND_STUDY]) as association:
        found = ask(association, FIND_STUDY, identifier("STUDY", StudyInstanceUID=""))
        is_up = association.is_established
    empty.close()

    assert (found.status, found.comment, is_up) == (0xA700, "the database does not answer", True)
