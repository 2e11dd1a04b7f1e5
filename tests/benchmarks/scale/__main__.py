"""Fill, measure, fill to ten times as much; a line for each size."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from pydicom.uid import generate_uid

from gateway.header import InstanceHeader, read_header
from gateway.store import Store, open_store, schema
from gateway.store.instances import ReceivedInstance, index_batch
from gateway.store.jobs import claim, create_job, next_candidates
from gateway.store.studies import get_study, list_series
from gateway.store.worklist import WorklistFilter, list_worklist
from tests import studies
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
    largest = parser.parse_args().largest
    server = postgres.obtain()
    try:
        with postgres.database(server.port) as url, tempfile.TemporaryDirectory() as folder:
            store = open_store(url, Path(folder))
            schema.upgrade(store)
            header = read_header(studies.find(Path(folder)).cxr[0])
            print(f"{'instances':>10} {'ingest/s':>9} {'study ms':>9} {'worklist ms':>12} {'job ms':>7}", flush=True)
            size, filled = 10_000, 0
            while size <= largest:
                _fill(store, filled + 1, size // _PER_STUDY)
                filled = size // _PER_STUDY
                _print_line(store, size, header)
                size *= 10
            store.close()
    finally:
        server.close()


def _fill(store: Store, first: int, last: int) -> None:
    with store.write() as connection:
        for statement in (_STUDIES, _SERIES, _INSTANCES, _JOBS):
            values = {"first": first, "last": last, "per_study": _PER_STUDY}
            needed = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(sa.text(statement), needed)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


def _print_line(store: Store, size: int, header: InstanceHeader) -> None:
    middle = f"1.2.826.{size // _PER_STUDY // 2}"
    batch_ms = _median_ms(lambda: _ingest(store, header), repeats=5)
    study_ms = _median_ms(lambda: _look_up(store, middle))
    worklist_ms = _median_ms(lambda: _worklist(store))
    job_ms = _median_ms(partial(_job, store, middle))
    rate = _BATCH / batch_ms * 1000
    print(f"{size:>10} {rate:>9.0f} {study_ms:>9.2f} {worklist_ms:>12.2f} {job_ms:>7.2f}", flush=True)


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


def _median_ms(action: Callable[[], object], repeats: int = _REPEATS) -> float:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


if __name__ == "__main__":
    main()
