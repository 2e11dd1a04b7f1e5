"""What is found in a study, in columns: for lists, filters and the order of the worklist.

Written from the summary in the transaction that makes a job done, so that neither is ever without the other. The
summary stays the whole truth; these rows are what queries look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gateway.job import State
from gateway.store.tables import finding, job, study

_NAME_LENGTH = 64


def record_findings(  # noqa: PLR0913 # a row's values, by name
    connection: Connection,
    *,
    study_instance_uid: str,
    bundle: str,
    job_id: str,
    summary: Any,
    is_rejected: bool = False,
) -> None:
    """Make a job's findings the current ones of its study and bundle, and the study's suspicion follow.

    Parameters
    ----------
    summary
        Of `gateway.report.summary`; what lacks `outcomes` has no finding.
    is_rejected
        Whether a person said that the result is wrong: then none of it is current.
    """
    same = (finding.c.study_instance_uid == study_instance_uid, finding.c.bundle == bundle, finding.c.is_current)
    connection.execute(sa.update(finding).where(*same).values(is_current=False))
    about = {"job_id": job_id, "study_instance_uid": study_instance_uid, "bundle": bundle}
    rows = [{**about, **row, "is_current": not is_rejected} for row in finding_rows(summary)]
    if rows:
        connection.execute(sa.insert(finding), rows)
    refresh_suspicion(connection, study_instance_uid)


def refresh_suspicion(connection: Connection, study_instance_uid: str) -> None:
    """Set a study's suspicion from the newest done job of each bundle; null where none has a say."""
    query = sa.select(job.c.bundle, job.c.summary, job.c.verification).where(
        job.c.study_instance_uid == study_instance_uid, job.c.state == State.DONE
    )
    newest = {row.bundle: row for row in connection.execute(query.order_by(job.c.revision))}
    values = [suspicion(row.summary, row.verification) for row in newest.values()]
    highest = max((value for value in values if value is not None), default=None)
    of_study = study.c.study_instance_uid == study_instance_uid
    connection.execute(sa.update(study).where(of_study).values(suspicion=highest))


def finding_rows(summary: Any) -> Iterator[dict[str, Any]]:
    """Yield the row of each finding of a summary."""
    for ordinal, outcome in enumerate(_outcomes(summary)):
        for each in outcome.get("findings", ()):
            yield {
                "ordinal": ordinal,
                "tracking_id": each["id"][:_NAME_LENGTH],
                "level": each["level"][:_NAME_LENGTH],
                "name": each["answer"][:_NAME_LENGTH],
                "probability": each["probability"],
                "is_positive": _is_positive(each, each["answer"]),
            }


def suspicion(summary: Any, verification: Mapping[str, Any] | None) -> float | None:
    """Return how suspicious a result is, 0 to 1; None where it says nothing of that.

    Of an algorithm: the highest probability of a positive class, also where the answer is another one, so that what
    was nearly found stands before what was not. Of a person: the algorithm's probability of the positive answers that
    the person left or gave; 0 where there is none; None where the result is rejected.
    """
    findings = [each for outcome in _outcomes(summary) for each in outcome.get("findings", ())]
    if not findings or (verification is not None and verification.get("action") == "reject"):
        return None
    if verification is not None:
        return max((each["probability"] for each in findings if _is_positive(each, each["answer"])), default=0.0)
    return max(
        (
            other["probability"]
            for each in findings
            for other in each["alternatives"]
            if _is_positive(each, other["name"])
        ),
        default=0.0,
    )


def _outcomes(summary: Any) -> list[Mapping[str, Any]]:
    listed = summary.get("outcomes", ()) if isinstance(summary, Mapping) else ()
    return [each for each in listed if each.get("evaluable")]


def _is_positive(found: Mapping[str, Any], name: str) -> bool:
    """Say whether a class is positive: as the summary tells, else (earlier versions) any but the level's first."""
    for position, each in enumerate(found["alternatives"]):
        if each["name"] == name:
            told = each.get("is_positive")
            return position > 0 if told is None else bool(told)
    return False
