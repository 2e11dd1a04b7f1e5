"""The model against what is there: lost, doubled, stuck."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from gateway.errors import CannotUnderstandError
from gateway.header import read_part10
from tests.acceptance.faults.ledger import Arrival, Ledger, SentStudy

SETTLE_S = 300.0
_OPEN = {
    "studies that still receive": "SELECT count(*) FROM study WHERE state = 'receiving'",
    "jobs that wait or run": "SELECT count(*) FROM job WHERE state IN ('queued', 'running')",
    "deliveries that wait": "SELECT count(*) FROM delivery WHERE state = 'waiting'",
    "unpublished messages": "SELECT count(*) FROM outbox WHERE published_at IS NULL",
    "files of removed studies": "SELECT count(*) FROM removal WHERE removed_at IS NULL",
}
_PAGE = 200


@dataclass
class Verdict:
    """What must not be."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    removed: int = 0
    """Studies that retention removed so far, which are accounted for by their results at the PACS."""

    @property
    def is_good(self) -> bool:
        """Whether there is nothing of it."""
        return not (self.lost or self.doubled or self.stuck)


class Keeper(Protocol):
    """What keeps instances."""

    ledger: Ledger
    engine: Engine
    """Of its database."""

    def stored(self, path: str) -> bytes | None:
        """Return a kept file by the path that its row names; None where there is none."""


class Judged(Keeper, Protocol):
    """What is held to its word: a whole gateway, on one host or on many."""

    def tend(self) -> None:
        """Do what a service manager does: start again what ended."""

    def under_way(self) -> Mapping[str, int]:
        """Return how much of what is not yet done, besides what the database says."""

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield the DiagnosticReports in FHIR."""


def judge(site: Judged) -> Verdict:
    """Wait until nothing is under way, and compare; nobody may send meanwhile."""
    verdict = Verdict(stuck=[f"{count} {what}" for what, count in _settled(site).items() if count])
    with site.engine.connect() as connection:
        facts = _Facts(connection)
    verdict.removed = len(facts.removed)
    studies = site.ledger.studies()
    _judge_instances(site, studies, facts, verdict)
    _judge_jobs(studies, facts, verdict)
    _judge_results(site, studies, facts, verdict)
    _judge_removed(studies, site.ledger.arrivals(), facts, verdict)
    _judge_reports(site, facts, verdict)
    return verdict


def judge_instances(keeper: Keeper) -> Verdict:
    """Compare what was received alone, where all of it has had the time to be indexed."""
    verdict = Verdict()
    with keeper.engine.connect() as connection:
        facts = _Facts(connection)
    _judge_instances(keeper, keeper.ledger.studies(), facts, verdict)
    return verdict


class _Facts:
    """What the database says."""

    def __init__(self, connection: Connection) -> None:
        self.instances: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(sa.text("SELECT * FROM instance")):
            self.instances[row.sop_instance_uid].append(row)
        self.studies = {row.study_instance_uid: row for row in connection.execute(sa.text("SELECT * FROM study"))}
        self.jobs: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(sa.text("SELECT * FROM job ORDER BY revision")):
            self.jobs[row.study_instance_uid].append(row)
        dicom = "SELECT * FROM artefact WHERE media_type = 'application/dicom' AND variant = ''"
        self.results = {row.sop_instance_uid: row for row in connection.execute(sa.text(dicom))}
        self.failed = connection.execute(sa.text("SELECT job_id, reason FROM delivery WHERE state = 'failed'")).all()
        cancelled = "SELECT job_id FROM delivery WHERE state = 'cancelled'"
        self.cancelled = set(connection.scalars(sa.text(cancelled)))
        removed = "SELECT study_instance_uid FROM audit_event WHERE kind = 'study-deleted'"
        self.removed = set(connection.scalars(sa.text(removed)))
        """Studies that retention removed; one may have come again since."""
        self.quarantined = connection.execute(sa.text("SELECT path, reason FROM quarantine")).all()

    def done(self) -> Iterator[Row[Any]]:
        """Yield the jobs that are done."""
        for jobs in self.jobs.values():
            yield from (job for job in jobs if job.state == "done")

    def latest(self) -> Mapping[str, str]:
        """Return the latest job that is done of each study."""
        return {job.study_instance_uid: job.id for job in self.done()}  # by ascending revision


def _settled(site: Judged) -> Mapping[str, int]:
    """Return what is still under way after a time in which nothing should be."""
    deadline = time.monotonic() + SETTLE_S
    while any((open_now := _under_way(site)).values()) and time.monotonic() < deadline:
        site.tend()
        time.sleep(0.5)
    return open_now


def _under_way(site: Judged) -> dict[str, int]:
    with site.engine.connect() as connection:
        counts = {what: int(connection.scalar(sa.text(query)) or 0) for what, query in _OPEN.items()}
    return {**counts, **({} if any(counts.values()) else site.under_way())}


def _judge_instances(site: Keeper, studies: Sequence[SentStudy], facts: _Facts, verdict: Verdict) -> None:
    """Every instance answered with success is indexed once and lies on disk as it was sent, unless it was removed."""
    for study in studies:
        for sop, digest in study.instances.items():
            rows = facts.instances[sop]
            if len(rows) > 1:
                verdict.doubled.append(f"instance {sop}: {len(rows)} rows")
            if sop not in study.acknowledged:
                continue
            if not rows and study.uid not in facts.removed:
                verdict.lost.append(f"instance {sop}: not in the index")
            elif rows and _data_set_digest(site.stored(rows[0].path)) != digest:
                verdict.lost.append(f"instance {sop}: not on disk as it was sent")
    verdict.lost += [f"quarantined: {row.path}: {row.reason}" for row in facts.quarantined]


def _judge_jobs(studies: Sequence[SentStudy], facts: _Facts, verdict: Verdict) -> None:
    """Every whole study has one result; a further one only where it came in pieces."""
    for study in studies:
        jobs = facts.jobs[study.uid]
        states = Counter(job.state for job in jobs)
        if states["dead"]:
            reasons = {job.reason for job in jobs if job.state == "dead"}
            verdict.lost.append(f"study {study.uid}: job given up: {'; '.join(map(str, reasons))}")
        if study.is_whole and not states["done"] and study.uid not in facts.removed:
            verdict.lost.append(f"study {study.uid}: no result; its jobs are {dict(states)}")
        if len(jobs) > study.most_revisions:
            at_most = f"at most {study.most_revisions} expected"
            verdict.doubled.append(f"study {study.uid}: {len(jobs)} jobs {dict(states)}, {at_most}")
        per_revision = Counter(job.study_revision for job in jobs)
        if any(count > 1 for count in per_revision.values()):
            verdict.doubled.append(f"study {study.uid}: more jobs than one for a revision: {dict(per_revision)}")


def _judge_results(site: Judged, studies: Sequence[SentStudy], facts: _Facts, verdict: Verdict) -> None:
    """Every committed object lies on disk and came to the PACS as it lies there; nothing else came.

    What a newer result replaced before its turn came is not sent any more.
    """
    arrivals = site.ledger.arrivals()
    replaced = facts.cancelled - set(facts.latest().values())
    for sop, result in facts.results.items():
        content = site.stored(result.path)
        if content is None or hashlib.sha256(content).hexdigest() != result.digest:
            verdict.lost.append(f"result {sop} ({result.kind}): not on disk as it was committed")
        elif sop not in arrivals and result.job_id in replaced:
            continue
        elif sop not in arrivals:
            verdict.lost.append(f"result {sop} ({result.kind}): never came to the PACS")
        elif {arrival.digest for arrival in arrivals[sop]} != {_data_set_digest(content)}:
            verdict.doubled.append(f"result {sop} ({result.kind}): came to the PACS in several versions")
    strangers = [
        sop for sop, each in arrivals.items() if sop not in facts.results and each[0].study_uid not in facts.removed
    ]
    verdict.doubled += [f"result {sop}: came to the PACS and was never committed" for sop in strangers]
    verdict.lost += [f"delivery of job {row.job_id}: failed: {row.reason}" for row in facts.failed]
    known = {study.uid for study in studies}
    verdict.doubled += [f"result for a study that nobody sent: {uid}" for uid in _studies_of(arrivals) - known]


def _judge_removed(
    studies: Sequence[SentStudy], arrivals: Mapping[str, Sequence[Arrival]], facts: _Facts, verdict: Verdict
) -> None:
    """Nothing unfinished was removed: of every removed study there came as many kinds of objects as of any other."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for each in arrivals.values():
        kinds[each[0].study_uid].add(each[0].sop_class_uid)
    kept = [kinds[study.uid] for study in studies if study.is_whole and study.uid not in facts.removed]
    expected = set.intersection(*kept) if kept else set()
    for uid in sorted(facts.removed):
        if not kinds[uid] or not expected <= kinds[uid]:
            verdict.lost.append(f"study {uid}: removed before all its results came to the PACS")


def _judge_reports(site: Judged, facts: _Facts, verdict: Verdict) -> None:
    """FHIR shows for every study one report, that of its latest result."""
    shown = Counter(map(_reported_job, site.reports()))
    for uid, job_id in facts.latest().items():
        count = shown.pop(job_id, 0)
        if count != 1:
            (verdict.lost if count == 0 else verdict.doubled).append(f"study {uid}: {count} reports in FHIR")
    verdict.doubled += [f"report in FHIR of job {job_id}, which is no study's latest result" for job_id in shown]


def list_reports(client: httpx.Client) -> Iterator[dict[str, Any]]:
    """Yield the DiagnosticReports of a gateway, page by page."""
    url = f"/fhir/DiagnosticReport?_count={_PAGE}&_elements=identifier"
    while url:
        bundle = client.get(url).raise_for_status().json()
        yield from (entry["resource"] for entry in bundle.get("entry", []))
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")


def _reported_job(report: Mapping[str, Any]) -> str:
    values = [each["value"] for each in report["identifier"]]
    return str(next(value for value in values if value.startswith("urn:uuid:"))).removeprefix("urn:uuid:")


def _studies_of(arrivals: Mapping[str, Sequence[Arrival]]) -> set[str]:
    return {arrival.study_uid for each in arrivals.values() for arrival in each}


def _data_set_digest(content: bytes | None) -> str:
    """Return the SHA-256 of the data set of a Part 10 file; '' where there is no such file, or it is none."""
    if content is None:
        return ""
    try:
        offset = read_part10(io.BytesIO(content)).data_set_offset
    except CannotUnderstandError:
        return ""
    return hashlib.sha256(content[offset:]).hexdigest()
