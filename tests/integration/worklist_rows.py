"""Rows as receiver, dispatcher, worker and reviewer leave them, for what is seen on the worklist."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gateway.store import Store
from gateway.store.tables import finding, job
from tests.stores import NOON, add_series, add_study

PROBABILITY = 0.97
ALGORITHM = {"name": "cxr-pneumonia", "version": "1.0.0", "manufacturer": "x", "weights_digest": "ab" * 32}


def add_job(connection: sa.Connection, study_uid: str, bundle: str = "cxr-pneumonia", **values: Any) -> str:
    """Insert a job that is done; `values` replace columns. Return its id."""
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "study_instance_uid": study_uid,
        "study_revision": 1,
        "bundle": bundle,
        "revision": 1,
        "state": "done",
        "priority": "routine",
        "destinations": [],
        "attempts": 1,
        "available_at": NOON,
        "requested_by": "dispatch",
        "algorithm": ALGORITHM,
        "created_at": NOON,
        "finished_at": NOON,
    }
    connection.execute(sa.insert(job).values(**row | values))
    return str((row | values)["id"])


def add_finding(connection: sa.Connection, study_uid: str, job_id: str, name: str, **values: Any) -> None:
    """Insert a current, positive answer; `values` replace columns."""
    row = {"job_id": job_id, "study_instance_uid": study_uid, "bundle": "cxr-pneumonia", "ordinal": 0}
    row |= {"tracking_id": "coarse", "level": "coarse", "name": name, "probability": PROBABILITY}
    connection.execute(sa.insert(finding).values(**row | {"is_positive": True, "is_current": True} | values))


def add_images(connection: sa.Connection, study_uid: str, modality: str = "DX", **values: Any) -> None:
    """Insert a study with one series; `values` replace columns of the study."""
    add_study(connection, study_uid, **values)
    add_series(connection, study_uid, f"{study_uid}.1", modality)


def found_pneumonia(probability: float = PROBABILITY, *, area: float | None = None) -> Mapping[str, Any]:
    """Return a summary with pneumonia at a probability and, where an area is given, with a left lung."""
    classes = [
        ("normal", "17621005", "Normal", 1 - probability),
        ("pneumonia", "233604007", "Pneumonia", probability),
    ]
    answer = max(classes, key=lambda each: each[3])
    finding_row = {
        "id": "coarse",
        "parent_id": None,
        "level": "coarse",
        "question": {"value": "RID5350", "scheme": "RADLEX", "meaning": "pneumonia"},
        "answer": answer[0],
        "probability": answer[3],
        "alternatives": [
            {"name": name, "code": {"value": code, "scheme": "SCT", "meaning": meaning}, "probability": share}
            for name, code, meaning, share in classes
        ],
        "site": None,
        "label_set": {"names": [name for name, *_ in classes], "coverage": 0.9},
    }
    quantity = {"value": "42798000", "scheme": "SCT", "meaning": "Area"}
    segment = {
        "id": "lung-left",
        "number": 1,
        "label": "Left lung",
        "type": {"value": "44029006", "scheme": "SCT", "meaning": "Left lung"},
        "laterality": None,
        "measurements": [{"quantity": quantity, "value": area, "unit": "cm2"}],
    }
    segments = [] if area is None else [segment]
    outcome = {"evaluable": True, "series_instance_uid": "1.2.3", "findings": [finding_row], "segments": segments}
    return {"text": "pneumonia", "outcomes": [outcome]}


def not_evaluable(code: str = "projection", reason: str = "The view is LL.") -> Mapping[str, Any]:
    """Return a summary that says nothing, with the reason."""
    outcome = {"evaluable": False, "series_instance_uid": "1.2.3", "code": code, "reason": reason}
    return {"text": reason, "outcomes": [outcome]}


def verified(action: str = "accept", at: datetime = NOON) -> Mapping[str, Any]:
    """Return what a verification leaves in its job."""
    said = {"action": action, "observer": "Grey^Meredith", "organisation": "Seattle Grace", "comment": "agreed"}
    return {**said, "verified_at": at.isoformat(), "corrections": []}


def suspicious(store: Store, uid: str = "1.2", probability: float = 0.97, **values: object) -> str:
    """Put in a study with pneumonia; return the id of its job."""
    with store.write() as connection:
        add_images(connection, uid, suspicion=probability, **values)
        job_id = add_job(connection, uid, summary=found_pneumonia(probability, area=100.0))
        add_finding(connection, uid, job_id, "pneumonia", probability=probability)
    return job_id
