"""Artefacts and FHIR resources of a job: its objects first (`released`), everything else with its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import Claim, State
from gateway.store import jobs
from gateway.store.deliveries import create_deliveries
from gateway.store.findings import record_findings
from gateway.store.released import has_released, is_released
from gateway.store.tables import artefact, fhir_change, fhir_index, fhir_resource, fhir_subscription, job

DICOM = "application/dicom"
_STAMPED = ("versionId", "lastUpdated")
_HIDDEN = "-"
"""Before the type of index rows that no search finds."""


@dataclass(frozen=True, slots=True)
class NewArtefact:
    """One file of a job's results, written and synced before its row."""

    kind: str
    """'sr-findings', 'sr-measurements', 'seg', 'heatmap-<class>'; pictures: 'picture-<name>'; 'document-pdf-en'."""
    ordinal: int
    """Which outcome of the job."""
    variant: str
    """'' or the rendering options that differ by destination, for example 'seg=LABELMAP'."""
    media_type: str
    study_instance_uid: str
    series_instance_uid: str | None
    sop_class_uid: str | None
    sop_instance_uid: str | None
    path: str
    """Relative to the data folder."""
    digest: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    size_bytes: int
    modality: str | None = None
    """This and what follows: as in the object, for queries; None for a picture."""
    series_number: int | None = None
    series_description: str | None = None
    series_date: str | None = None
    series_time: str | None = None
    instance_number: int | None = None
    number_of_frames: int | None = None
    rows: int | None = None
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One value of one search parameter (FHIR R4 search)."""

    parameter: str
    system: str | None = None
    """Token: system; reference: resource type."""
    value: str | None = None
    """Token: code; reference: id; string: folded."""
    low: datetime | None = None
    """Date: start of the period that the value means."""
    high: datetime | None = None
    number: float | None = None
    """Quantity; system and value are those of its unit."""
    text: str | None = None
    """Token, reference: what it is called, folded; string: as it stands."""
    other_system: str | None = None
    """Composite: as system and value, of its second part."""
    other_value: str | None = None


@dataclass(frozen=True, slots=True)
class FhirVersion:
    """A resource as it should stand from now on.

    The store gives it the next version number and writes `meta.versionId` and `meta.lastUpdated` into the body;
    where nothing else differs from the current version, nothing is written.
    """

    type: str
    resource_id: str
    study_instance_uid: str | None
    body: bytes
    """JSON in UTF-8; `meta.versionId` and `meta.lastUpdated` may be absent and are overwritten."""
    index: Sequence[IndexEntry] = ()


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The latest revision with results before a job's own."""

    job_id: str
    revision: int
    is_reported: bool = True
    """Whether this one or one before it was done, and is told in FHIR: of one that was given up, objects alone are."""


def predecessor(connection: Connection, claim: Claim) -> Predecessor | None:
    """Return the latest revision of the same study and bundle before this one whose results are out."""
    earlier = (
        job.c.study_instance_uid == claim.study_instance_uid,
        job.c.bundle == claim.bundle,
        job.c.revision < claim.revision,
    )
    given_up = sa.and_(job.c.state.in_((State.DEAD, State.CANCELLED)), has_released(job))
    query = sa.select(job.c.id, job.c.revision).where(*earlier, sa.or_(job.c.state == State.DONE, given_up))
    row = connection.execute(query.order_by(job.c.revision.desc()).limit(1)).first()
    if row is None:
        return None
    done = connection.scalar(sa.select(job.c.id).where(*earlier, job.c.state == State.DONE).limit(1))
    return Predecessor(row.id, row.revision, done is not None)


def forgive_attempt(connection: Connection, claim: Claim) -> None:
    """Take back the count of a try that was given up before it began; called after the job was released."""
    statement = sa.update(job).where(job.c.id == claim.job_id, job.c.state == State.QUEUED, job.c.attempts > 0)
    connection.execute(statement.values(attempts=job.c.attempts - 1))


def count_device_loss(connection: Connection, claim: Claim) -> None:
    """Note that a job was on the device when that was lost; called after the job was released."""
    statement = sa.update(job).where(job.c.id == claim.job_id, job.c.state == State.QUEUED)
    connection.execute(statement.values(device_losses=job.c.device_losses + 1))


def release_objects(  # noqa: PLR0913 # what is out before the rest, by name
    connection: Connection,
    claim: Claim,
    now: datetime,
    *,
    algorithm: Mapping[str, Any],
    summary: Mapping[str, Any],
    artefacts: Sequence[NewArtefact],
    deliveries: Sequence[str],
) -> bool:
    """Commit a running job's DICOM objects and their deliveries; False, with nothing written, where the lease is lost.

    May be called again: what is out stays as it is.

    Parameters
    ----------
    algorithm, summary
        What the objects say, for the next try, should this one not come to its end.
    artefacts
        Files, already on disk.
    deliveries
        Names of the destinations that get these objects.
    """
    if not jobs.hold(connection, claim):
        return False
    if not is_released(connection, claim.job_id):
        said = {"algorithm": algorithm, "summary": summary}
        connection.execute(sa.update(job).where(job.c.id == claim.job_id).values(**said))
        add_artefacts(connection, claim.job_id, artefacts, now)
        create_deliveries(connection, claim.job_id, deliveries, now)
    return True


def commit_results(  # noqa: PLR0913 # what a finished job leaves behind, by name
    connection: Connection,
    claim: Claim,
    now: datetime,
    *,
    algorithm: Mapping[str, Any],
    summary: Mapping[str, Any],
    reason: str | None,
    artefacts: Sequence[NewArtefact],
    resources: Sequence[FhirVersion],
    deliveries: Sequence[str],
) -> bool:
    """Make a job done, with everything that follows from it; False, with nothing written, where the lease is lost.

    Parameters
    ----------
    algorithm
        Name, version and weights digest of what ran.
    summary
        Findings without voxels, for lists.
    reason
        Why the study was not evaluable; None otherwise.
    artefacts
        Files, already on disk; those that are out are left as they are.
    resources
        FHIR resources as they should stand.
    deliveries
        Names of the destinations that get a delivery, those that have theirs among them.
    """
    if not jobs.finish(connection, claim, now, algorithm=algorithm, summary=summary, reason=reason):
        return False
    released = {each.path for each in list_artefacts(connection, claim.job_id)}
    add_artefacts(connection, claim.job_id, [each for each in artefacts if each.path not in released], now)
    write_resources(connection, resources, now, job_id=claim.job_id)
    create_deliveries(connection, claim.job_id, deliveries, now)
    study_uid, bundle = claim.study_instance_uid, claim.bundle
    record_findings(connection, study_instance_uid=study_uid, bundle=bundle, job_id=claim.job_id, summary=summary)
    return True


def add_artefacts(connection: Connection, job_id: str, artefacts: Sequence[NewArtefact], now: datetime) -> None:
    """Insert the rows of a job's files."""
    if artefacts:
        rows = [{**asdict(each), "job_id": job_id, "created_at": now} for each in artefacts]
        connection.execute(sa.insert(artefact), rows)


def list_artefacts(connection: Connection, job_id: str) -> list[NewArtefact]:
    """Return a job's artefacts in the order they were written."""
    columns = [artefact.c[name] for name in NewArtefact.__slots__]
    query = sa.select(*columns).where(artefact.c.job_id == job_id).order_by(artefact.c.id)
    return [NewArtefact(**row._mapping) for row in connection.execute(query)]


def settled_files(connection: Connection, job_ids: Sequence[str]) -> dict[str, set[str]]:
    """Return, for those of the jobs that neither wait nor run, the paths that their artefacts name."""
    moving = (State.QUEUED, State.RUNNING)
    held = connection.scalars(sa.select(job.c.id).where(job.c.id.in_(job_ids), job.c.state.in_(moving)))
    files: dict[str, set[str]] = {job_id: set() for job_id in set(job_ids).difference(held)}
    query = sa.select(artefact.c.job_id, artefact.c.path).where(artefact.c.job_id.in_(files))
    for row in connection.execute(query):
        files[row.job_id].add(row.path)
    return files


def write_resources(
    connection: Connection, resources: Sequence[FhirVersion], now: datetime, *, job_id: str | None
) -> int:
    """Make each resource the current version, earlier ones staying; return how many differed from what stood.

    FHIR instants are written to the millisecond (R4 2.24.0.1), and the row says the same time as the body.
    """
    instant = now.replace(microsecond=now.microsecond // 1000 * 1000)
    lock_resources(connection, [(resource.type, resource.resource_id) for resource in resources])
    return sum(_write_resource(connection, resource, instant, job_id) for resource in resources)


def lock_resources(connection: Connection, resources: Sequence[tuple[str, str]]) -> None:
    """Let writers of one resource, given by type and id, wait for each other: studies share their Patient.

    Taken in the order of the lock numbers, so that two transactions never wait for one another in a circle.
    """
    if connection.dialect.name != "postgresql":
        return
    names = (f"{resource_type}/{resource_id}" for resource_type, resource_id in resources)
    numbers = {int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True) for name in names}
    for number in sorted(numbers):
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


def _write_resource(connection: Connection, resource: FhirVersion, instant: datetime, job_id: str | None) -> bool:
    is_this = (fhir_resource.c.type == resource.type, fhir_resource.c.resource_id == resource.resource_id)
    query = sa.select(fhir_resource.c.version, fhir_resource.c.is_current, fhir_resource.c.body).where(*is_this)
    latest = connection.execute(query.order_by(fhir_resource.c.version.desc()).limit(1)).first()
    if latest is not None and latest.is_current and _content(latest.body) == _content(resource.body):
        return False
    version = 1 if latest is None else latest.version + 1
    _set_aside(connection, resource.type, resource.resource_id)
    row = {
        "type": resource.type,
        "resource_id": resource.resource_id,
        "version": version,
        "is_current": True,
        "last_updated": instant,
        "study_instance_uid": resource.study_instance_uid,
        "job_id": job_id,
        "body": stamped(resource.body, version, instant),
    }
    inserted = connection.execute(sa.insert(fhir_resource).returning(fhir_resource.c.id), row)
    resource_pk = inserted.scalar_one()
    _write_index(connection, resource_pk, resource)
    # For subscribers: in this transaction, so that no version that is committed goes untold, whatever its number.
    connection.execute(sa.insert(fhir_change).values(resource_pk=resource_pk, type=resource.type))
    return True


def _set_aside(connection: Connection, resource_type: str, resource_id: str, heir: int | None = None) -> None:
    """Make the current version one of the past, which no search finds.

    Parameters
    ----------
    heir
        Number of the version that says it is gone: what it was found by is kept under that, hidden, until the
        subscribers who had asked for it are told (`restore_index`). None: those rows go.
    """
    is_current = (
        fhir_resource.c.type == resource_type,
        fhir_resource.c.resource_id == resource_id,
        fhir_resource.c.is_current,
    )
    replaced = sa.select(fhir_resource.c.id).where(*is_current).scalar_subquery()
    rows = fhir_index.c.resource_pk == replaced
    if heir is None:
        connection.execute(sa.delete(fhir_index).where(rows))
    else:
        hidden = {"resource_pk": heir, "type": f"{_HIDDEN}{resource_type}"}
        connection.execute(sa.update(fhir_index).where(rows).values(**hidden))
    connection.execute(sa.update(fhir_resource).where(*is_current).values(is_current=False))


def delete_resource(connection: Connection, resource_type: str, resource_id: str, now: datetime) -> bool:
    """Make a resource gone: reads answer 410, its history stays, subscribers are told; False where there is none."""
    lock_resources(connection, [(resource_type, resource_id)])
    is_this = (fhir_resource.c.type == resource_type, fhir_resource.c.resource_id == resource_id)
    version = connection.scalar(sa.select(fhir_resource.c.version).where(*is_this, fhir_resource.c.is_current))
    if version is None:
        return False
    row = {"type": resource_type, "resource_id": resource_id, "version": version + 1, "body": b""}
    row |= {
        "is_current": False,
        "is_deleted": True,
        "last_updated": now.replace(microsecond=now.microsecond // 1000 * 1000),
    }
    gone = connection.execute(sa.insert(fhir_resource).returning(fhir_resource.c.id), row).scalar_one()
    listening = sa.select(fhir_subscription.c.resource_id).where(
        fhir_subscription.c.resource_type == resource_type,
        fhir_subscription.c.topic.is_not(None),
        fhir_subscription.c.status != "off",
    )
    is_awaited = connection.scalar(listening.limit(1)) is not None
    _set_aside(connection, resource_type, resource_id, gone if is_awaited else None)
    connection.execute(sa.insert(fhir_change).values(resource_pk=gone, type=resource_type))
    return True


def restore_index(connection: Connection, gone: Sequence[int]) -> None:
    """Show again by what resources were found that are gone, given by the numbers of the versions that say so.

    For the time of a transaction that ends with `drop_index`: nobody else may find them.
    """
    shown = sa.func.substr(fhir_index.c.type, len(_HIDDEN) + 1)
    hidden = (fhir_index.c.resource_pk.in_(gone), fhir_index.c.type.startswith(_HIDDEN))
    connection.execute(sa.update(fhir_index).where(*hidden).values(type=shown))


def drop_index(connection: Connection, gone: Sequence[int]) -> None:
    """Forget by what resources were found that are gone."""
    connection.execute(sa.delete(fhir_index).where(fhir_index.c.resource_pk.in_(gone)))


def _write_index(connection: Connection, resource_pk: int, resource: FhirVersion) -> None:
    rows = [{**asdict(entry), "resource_pk": resource_pk, "type": resource.type} for entry in resource.index]
    if rows:
        connection.execute(sa.insert(fhir_index), rows)


def stamped(body: bytes, version: int, instant: datetime) -> bytes:
    """Return the body with its version and time in `meta`; decimals keep their digits (R4 2.24.0.1)."""
    resource = _parse(body)
    meta = {**resource.get("meta", {})}
    meta["versionId"] = str(version)
    meta["lastUpdated"] = instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {name: resource.pop(name) for name in ("resourceType", "id") if name in resource}
    return orjson.dumps(head | {"meta": meta} | {name: resource[name] for name in resource if name != "meta"})


def _content(body: bytes) -> bytes:
    """Return what a new version must differ in."""
    resource = _parse(body)
    meta = {name: value for name, value in resource.pop("meta", {}).items() if name not in _STAMPED}
    return orjson.dumps(resource | ({"meta": meta} if meta else {}), option=orjson.OPT_SORT_KEYS)


def _parse(body: bytes) -> dict[str, Any]:
    """Parse JSON; a decimal stays the text that it was, so that 0.90 does not become 0.9."""
    resource: dict[str, Any] = json.loads(body, parse_float=lambda digits: orjson.Fragment(digits.encode()))
    return resource
