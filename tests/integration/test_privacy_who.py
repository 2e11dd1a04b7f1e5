"""From a pseudonym back to the patient: by the key alone, and told in the audit trail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from gateway.audit.event import decode
from gateway.audit.lines import LineFilter, list_lines
from gateway.cli.app import app
from gateway.errors import ConfigurationError, InvalidQueryError, NotFoundError
from gateway.exchange.deidentified import KeyedPseudonyms, deidentified, secret_key
from gateway.exchange.report import read_report
from gateway.privacy.deidentify import Deidentifier
from gateway.privacy.reidentify import Identity, identify
from gateway.store import Store
from gateway.store.tables import study
from tests.stores import add_study
from tests.unit.fhir import cases
from tests.unit.report.outcomes import write_xray
from tests.verifying import OUTCOME, files_of, take_in_all, work

ISSUER = "1.2.40"


@pytest.fixture
def who(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give the command, on the store of the test."""
    monkeypatch.setenv("HYBRIDMED_CONFIG", os.devnull)
    monkeypatch.setenv("HYBRIDMED_DATA_DIR", str(sqlite_store.data_dir))
    monkeypatch.setenv("USER", "curie")
    return lambda *arguments: CliRunner().invoke(app, ["privacy", "who", *arguments])


def test_what_left_leads_back(store: Store, tmp_path: Path) -> None:
    """Patient, study, series, image and result by what an object carries outside; whose they are, and no more."""
    folder = tmp_path / "source"
    folder.mkdir()
    (source,) = write_xray(folder)
    job_id = work(store, take_in_all(store, [source]), OUTCOME)
    with store.write() as connection:
        add_study(connection, "1.2.3.9", patient_id="T-1")
        add_study(connection, "1.2.3.10", patient_id="T-10")
    pseudonyms = KeyedPseudonyms(b"k" * 32)
    original = pydicom.dcmread(files_of(store, job_id)["seg"])
    uids = [str(original.StudyInstanceUID), str(original.SeriesInstanceUID), str(original.SOPInstanceUID)]
    sent = Deidentifier(pseudonyms).apply(original, is_own=True)

    with store.read() as connection:
        by_patient = identify(connection, sent.PatientID.lower(), pseudonyms)
        wanted = (sent.StudyInstanceUID, sent.SeriesInstanceUID, f"urn:oid:{sent.SOPInstanceUID}")
        by_uid = [identify(connection, uid, pseudonyms) for uid in wanted]
        of_image = identify(
            connection,
            sent.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID,
            pseudonyms,
        )
        with_another_key = identify(connection, sent.PatientID, KeyedPseudonyms(b"x" * 32))
        with pytest.raises(InvalidQueryError):
            identify(connection, "Doe^Jane", pseudonyms)

    assert by_patient == Identity("patient", "T-1", "T-1", "", ("1.2.3.9", uids[0]))
    assert [(each.of, each.original) for each in by_uid if each is not None] == list(
        zip(("study", "series", "instance"), uids, strict=True)
    )
    assert {(each.patient_id, each.study_instance_uids) for each in by_uid if each is not None} == {("T-1", (uids[0],))}
    assert of_image is not None
    assert (of_image.of, of_image.original) == ("instance", str(pydicom.dcmread(source).SOPInstanceUID))
    assert with_another_key is None


def test_a_report_that_left_by_fhir_leads_back(store: Store) -> None:
    """By the patient's pseudonym and by the id of each resource, a Patient without a number included."""
    pseudonyms = KeyedPseudonyms(b"k" * 32)
    for patient_id, uid in (("P-17", "1.2.3.1"), ("", "1.2.3.2")):
        of_patient = cases.study(
            patient_id=patient_id, patient_id_issuer=ISSUER if patient_id else "", study_instance_uid=uid
        )
        done = cases.finished(cases.pneumonia(), study=of_patient, bundle=f"of-{uid}")
        cases.commit(store, done)
        with store.write() as connection:
            row = sa.update(study).where(study.c.study_instance_uid == uid)
            connection.execute(row.values(patient_id=patient_id, patient_id_issuer=of_patient.patient_id_issuer))
        with store.read() as connection:
            sent = deidentified(read_report(connection, done.job.job_id), pseudonyms)
            pseudonym = sent.of_type("Patient")[0]["identifier"][0]["value"]
            found = [identify(connection, each, pseudonyms) for each in (pseudonym, sent.study_instance_uid)]
            of_report = identify(connection, sent.of_type("DiagnosticReport")[0]["id"], pseudonyms)

        assert [each and (each.patient_id, each.study_instance_uids) for each in (*found, of_report)] == [
            (patient_id, (uid,))
        ] * 3


def test_who_asked_for_which_stands_in_the_trail(sqlite_store: Store, who: Callable[..., Result]) -> None:
    """Found or not; the patient's id and issuer, and the studies, are all that is shown."""
    pseudonyms = KeyedPseudonyms(secret_key(sqlite_store.data_dir))
    with sqlite_store.write() as connection:
        add_study(connection, "1.2.3", patient_id="P1", patient_id_issuer=ISSUER, patient_name="Doe^Jane")
    pseudonym = pseudonyms.patient(f"urn:oid:{ISSUER}", "P1")

    found = who(pseudonym, "--json")
    unknown = who("0" * 20)

    with sqlite_store.read() as connection:
        lines = list_lines(connection, LineFilter(kind="security-alert"), limit=10)
    events = [decode(line.body) for line in lines]
    assert json.loads(found.stdout[found.stdout.index("{") :]) == {
        "of": "patient",
        "original": "P1",
        "patient_id": "P1",
        "patient_id_issuer": ISSUER,
        "study_instance_uids": ["1.2.3"],
    }
    assert "Doe" not in found.output
    assert isinstance(unknown.exception, NotFoundError)
    assert [(line.actor, line.patient_id, line.study_instance_uid) for line in lines] == [
        ("curie", "P1", "1.2.3"),
        ("curie", None, None),
    ]
    assert [event.entities[0].query for event in events] == [pseudonym, "0" * 20]
    assert [(event.types[0].value, event.reason) for event in events] == [
        ("reidentification", ""),
        ("reidentification", "nobody found"),
    ]


def test_without_the_key_nobody_is_found(sqlite_store: Store, who: Callable[..., Result], tmp_path: Path) -> None:
    """None is made by asking; one that is kept elsewhere is named."""
    with sqlite_store.write() as connection:
        add_study(connection, "1.2.3", patient_id="P1")
    kept = tmp_path / "kept"
    kept.write_text("6b" * 32)
    pseudonym = KeyedPseudonyms(b"k" * 32).patient("", "P1")

    refused = who(pseudonym)
    found = who(pseudonym, "--key", str(kept))

    assert isinstance(refused.exception, ConfigurationError)
    assert not (sqlite_store.data_dir / "pseudonym-key").exists()
    assert "P1" in found.stdout
