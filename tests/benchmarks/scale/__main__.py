"""Fill a database, measure, and once more with ten times as much; a line for each size.

Studies have 100 instances, a job and a report each. Ingest is the indexing of 200 instances; a search asks for the
reports of one patient; a purge plan looks for studies beyond an age, of which there are none, or ten; the sum is that
of all sizes, which a rule by `max_gib` needs as well, as each look of retention tells it: older rows were counted
before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from pydicom.uid import generate_uid

from gateway.audit.chain import ChainKey
from gateway.config.retention import Retention
from gateway.header import InstanceHeader, read_header
from gateway.retention.purge import Purge
from gateway.store import Store, open_store, schema
from gateway.store.instances import ReceivedInstance, index_batch
from gateway.store.jobs import claim, create_job, next_candidates
from gateway.store.studies import get_study, list_series
from gateway.store.tables import study
from gateway.store.tally import count_on, kept_bytes
from gateway.store.worklist import WorklistFilter, list_worklist
from tests import studies
from tests.benchmarks.fhir.filling import REPORTS_PER_PATIENT, fill
from tests.fhir_plans import put_search
from tests.services import postgres

_PER_STUDY = 100
_BATCH = 200
_REPEATS = 20
_PAGE = 50
_STUDIES = """
INSERT INTO study (study_instance_uid, patient_id, patient_id_issuer, patient_name, patient_birth_date, patient_sex,
  accession_number, accession_issuer, study_id, study_date, study_time, timezone_offset, study_description,
  referring_physician, calling_ae, state, priority, revision, first_received_at, last_received_at, completed_at,
  patient_name_folded, suspicion)
SELECT '1.2.826.' || n, 'P' || n / 3, '', 'Made^Number' || n / 3, '19700101', 'F', 'A' || n, '', '',
  to_char(date '2020-01-01' + CAST(n % 2000 AS integer), 'YYYYMMDD'), '120000',
  '', 'made', '', 'CT1', 'routed', 'routine', 1,
  now() - n * interval '1 second', now() - n * interval '1 second', now(), 'made number' || n / 3, (n % 100) / 100.0
FROM generate_series(CAST(:first AS bigint), :last) AS n
"""
_SERIES = """
INSERT INTO series (study_instance_uid, series_instance_uid, modality, body_part, series_description, series_date,
  series_time)
SELECT '1.2.826.' || n, '1.2.826.' || n || '.' || s, 'CT', 'CHEST', 'made', '', ''
FROM generate_series(CAST(:first AS bigint), :last) AS n, generate_series(1, 2) AS s
"""
_INSTANCES = """
INSERT INTO instance (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, study_instance_uid,
  series_instance_uid, instance_number, path, size_bytes, is_current, study_revision, association_id, calling_ae,
  received_at)
SELECT '1.2.826.' || n || '.' || i % 2 + 1 || '.' || i, md5(n || '.' || i), '1.2.840.10008.5.1.4.1.1.2',
  '1.2.840.10008.1.2.1', '1.2.826.' || n, '1.2.826.' || n || '.' || i % 2 + 1, i, 'instances/' || n || '-' || i, 524288,
  true, 1, 'a', 'CT1', now()
FROM generate_series(CAST(:first AS bigint), :last) AS n, generate_series(1, :per_study) AS i
"""
_JOBS = """
INSERT INTO job (id, study_instance_uid, study_revision, bundle, revision, state, priority, destinations, attempts,
  available_at, requested_by, created_at, finished_at)
SELECT gen_random_uuid()::text, '1.2.826.' || n, 1, 'made', 1, 'done', 'routine', '[]', 1, now(), 'dispatch', now(),
  now()
FROM generate_series(CAST(:first AS bigint), :last) AS n
"""


def main() -> None:
    """Print how long each thing takes at each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000, help="Instances at the end.")
    parser.add_argument("--json", type=Path, help="File for the figures.")
    arguments = parser.parse_args()
    server = postgres.obtain()
    lines = []
    try:
        print(" ".join(f"{name:>{len(name)}}" for name in ("instances", *_COLUMNS)), flush=True)
        size = 10_000
        while size <= arguments.largest:
            with postgres.database(server.port) as url, tempfile.TemporaryDirectory() as folder:
                store = open_store(url, Path(folder))
                schema.upgrade(store)
                began = time.perf_counter()
                _fill(store, size // _PER_STUDY)
                figures = _measured(store, size, Path(folder))
                store.close()
            shown = (f"{figures[name]:>{len(name)}.{digits}f}" for name, digits in _COLUMNS.items())
            print(f"{size:>{len('instances')}} " + " ".join(shown), flush=True)
            lines.append({"instances": size, "took_s": round(time.perf_counter() - began), **figures})
            size *= 10
    finally:
        server.close()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")


def _fill(store: Store, count: int) -> None:
    """Write as many studies, with all that belongs to them."""
    with store.write() as connection:
        for statement in (_STUDIES, _SERIES, _INSTANCES, _JOBS):
            values = {"first": 1, "last": count, "per_study": _PER_STUDY}
            needed = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(sa.text(statement), needed)
    fill(store, count)  # and brings the planner's statistics of the whole database up to date


def _measured(store: Store, size: int, folder: Path) -> dict[str, float]:
    """Return the figures of `_COLUMNS`, medians in ms but for the rate of ingest."""
    count = size // _PER_STUDY
    middle, header = f"1.2.826.{count // 2}", read_header(studies.find(folder).cxr[0])
    batch_ms = _median_ms(lambda: _ingest(store, header), repeats=5)
    Purge(store, Retention(max_gib=1), ChainKey()).count(threading.Event())
    patient = f"pat-{count // 2 // REPORTS_PER_PATIENT}"
    return {
        "ingest/s": _BATCH / batch_ms * 1000,
        "study ms": _median_ms(lambda: _look_up(store, middle)),
        "worklist ms": _median_ms(lambda: _worklist(store)),
        "job ms": _median_ms(partial(_job, store, middle)),
        "search ms": _median_ms(lambda: put_search(store, f"DiagnosticReport?subject=Patient/{patient}")),
        "purge none ms": _median_ms(lambda: _plan(store, 0), repeats=5),
        "purge ten ms": _median_ms(lambda: _plan(store, 10), repeats=5),
        "sum ms": _median_ms(lambda: _sum(store), repeats=3),
    }


_COLUMNS = {
    "ingest/s": 0,
    "study ms": 2,
    "worklist ms": 2,
    "job ms": 2,
    "search ms": 2,
    "purge none ms": 2,
    "purge ten ms": 2,
    "sum ms": 1,
}
"""Figures, and the digits behind the point."""


def _ingest(store: Store, header: InstanceHeader) -> None:
    """Index a batch of new instances of two new studies, as a receiver does."""
    uids = [(generate_uid(), generate_uid()) for _ in range(2)]
    received = []
    for number in range(_BATCH):
        study_uid, series_uid = uids[number % 2]
        own = replace(
            header,
            sop_instance_uid=generate_uid(),
            study_instance_uid=study_uid,
            series_instance_uid=series_uid,
            instance_number=number,
        )
        path = f"instances/{own.sop_instance_uid}"
        now = datetime.now(UTC)
        received.append(ReceivedInstance(own, own.sop_instance_uid, path, 1, "a", "CT1", now))
    with store.write() as connection:
        index_batch(connection, received, datetime.now(UTC))


def _look_up(store: Store, uid: str) -> None:
    with store.read() as connection:
        get_study(connection, uid)
        list_series(connection, uid)


def _worklist(store: Store) -> None:
    with store.read() as connection:
        list_worklist(connection, WorklistFilter(), limit=_PAGE)


def _job(store: Store, uid: str) -> None:
    """Make a job, find it as a worker does, claim it."""
    now = datetime.now(UTC)
    with store.write() as connection:
        made = {"study_instance_uid": uid, "study_revision": 1, "bundle": "made", "priority": "routine", "now": now}
        create_job(connection, **made, destinations=(), requested_by="dispatch")
    with store.write() as connection:
        found = next_candidates(connection, datetime.now(UTC), limit=1)
        claim(connection, found[0], "benchmark", datetime.now(UTC), 60)
        connection.execute(sa.text("UPDATE job SET state = 'done' WHERE id = :id"), {"id": found[0]})


def _plan(store: Store, going: int) -> None:
    """Plan what goes for its age at a moment when so many studies do; they came a second apart (`_STUDIES`)."""
    with store.read() as connection:
        oldest = connection.scalar(sa.select(sa.func.min(study.c.last_received_at)))
    assert oldest is not None
    now = oldest + timedelta(days=1, seconds=going - 0.5)
    found = Purge(store, Retention(max_age_days=1, keep_unverified=False), ChainKey()).plan(now)
    assert len(found) == going


def _sum(store: Store) -> None:
    """Tell how much is kept, as each look of retention does."""
    with store.write() as connection:
        count_on(connection)
    with store.read() as connection:
        kept_bytes(connection)


def _median_ms(action: Callable[[], object], repeats: int = _REPEATS) -> float:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


if __name__ == "__main__":
    main()
