"""`/worklist`: studies in the order of their urgency. Filters and page stand in the address."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, get_args
from urllib.parse import urlencode

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from gateway.store import Store
from gateway.store.studies import StudyRow
from gateway.store.tables import finding
from gateway.store.worklist import (
    PRIORS_LIMIT,
    WORK_STATES,
    WorklistFilter,
    WorklistJob,
    WorklistStudy,
    WorkState,
    count_priors,
    count_worklist,
    known_findings,
    known_modalities,
    list_worklist,
    modalities_of,
    newest_jobs,
)
from gateway.web.language import Language, choose_language
from gateway.web.rendering import Renderer, age_months, is_told_in_months
from gateway.web.results import FoundClass, first_measurements, found_classes, most_urgent, reason_text, work_state

PAGE_LENGTH: Final = 50
LAST_PAGE: Final = 400
_COUNT_LIMIT = 10_000
_TEXT_LIMIT = 200
_WORDS_LIMIT = 8
_NAME_LIMIT = 64
_OPTIONS_S = 30.0
_PAGE_DIGITS = 6
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})", re.ASCII)
_SEPARATORS = re.compile(r"[\s,^=\x00]+")
_COLUMNS: Mapping[str, str] = {"name": "patient_name", "id": "patient_id", "accession": "accession_number"}


@dataclass(frozen=True, slots=True)
class ResultLine:
    """The newest job of one bundle over one study."""

    bundle: str
    revision: int
    state: str
    reason: str
    classes: tuple[FoundClass, ...]
    measurements: tuple[tuple[str, float, str], ...]


@dataclass(frozen=True, slots=True)
class StudyLine:
    """A line of the list."""

    study: StudyRow
    suspicion: float | None
    age: str
    modalities: tuple[str, ...]
    state: str
    reasons: tuple[str, ...]
    results: tuple[ResultLine, ...]
    priors: int
    has_more_priors: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for."""

    which: WorklistFilter
    page: int
    fields: Mapping[str, str]
    """Filters as they stand in the form; those left out are ''."""

    @property
    def has_filter(self) -> bool:
        """Whether any filter is set."""
        return any(self.fields.values())

    def address(self, **changes: str | int) -> str:
        """Return the address of this list with other values."""
        values = {name: value for name, value in {**self.fields, **changes}.items() if value}
        return "/worklist" + (f"?{urlencode(values)}" if values else "")


class Worklist:
    """The list's page.

    Parameters
    ----------
    store
        Where studies and results lie.
    renderer
        Templates.
    """

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._options = _Options(store)

    def show(self, request: Request) -> Response:
        """`/worklist?q=&state=&modality=&finding=&from=&to=&page=`."""
        asked = parse_address(request.query_params, self._renderer.site.shows)
        language = choose_language(request)
        with self._store.read() as connection:
            offset = (asked.page - 1) * PAGE_LENGTH
            listed = list_worklist(connection, asked.which, limit=PAGE_LENGTH + 1, offset=offset)
            count = count_worklist(connection, asked.which, _COUNT_LIMIT + 1)
            lines = study_lines(connection, language, listed[:PAGE_LENGTH])
        modalities, findings = self._options.get()
        values = {
            "lines": lines,
            "asked": asked,
            "count": count,
            "count_limit": _COUNT_LIMIT,
            "has_more": len(listed) > PAGE_LENGTH and asked.page < LAST_PAGE,
            "is_cut": len(listed) > PAGE_LENGTH and asked.page == LAST_PAGE,
            "first": offset + 1,
            "states": WORK_STATES,
            "modalities": _with(modalities, asked.fields["modality"]),
            "findings": _with(findings, asked.fields["finding"]),
            "today": datetime.now(UTC).astimezone().date(),
        }
        return self._renderer.page(request, "worklist.html", values)


def parse_address(query: Mapping[str, str], shows: Sequence[str]) -> Asked:
    """Return what an address asks for; what makes no sense is left out.

    Parameters
    ----------
    shows
        Which of a patient's details the site shows: the text is not searched for in the others.
    """
    text = query.get("q", "").strip()[:_TEXT_LIMIT]
    state: WorkState | None = next((each for each in get_args(WorkState) if each == query.get("state")), None)
    first, last = _date(query.get("from", "")), _date(query.get("to", ""))
    modality, name = (query.get(key, "").replace("\x00", "")[:_NAME_LIMIT] for key in ("modality", "finding"))
    which = WorklistFilter(
        state=state,
        modality=modality or None,
        finding=name or None,
        dated_from="".join(first) or None,
        dated_to="".join(last) or None,
        words=tuple(word for word in _SEPARATORS.split(text) if word)[:_WORDS_LIMIT],
        searched=(*(column for key, column in _COLUMNS.items() if key in shows), "study_description"),
    )
    fields = {"q": text, "state": state or "", "modality": modality, "finding": name}
    return Asked(which, _page(query.get("page", "1")), fields | {"from": "-".join(first), "to": "-".join(last)})


def study_lines(connection: Connection, language: Language, listed: Sequence[WorklistStudy]) -> list[StudyLine]:
    """Return the lines of studies, in their order."""
    uids = [each.study.study_instance_uid for each in listed]
    jobs, modalities = newest_jobs(connection, uids), modalities_of(connection, uids)
    priors, positive = count_priors(connection, uids), _positive(connection, uids)
    lines = []
    for each in listed:
        uid = each.study.study_instance_uid
        results = tuple(_result(language, one, positive.get((uid, one.bundle), {})) for one in jobs.get(uid, ()))
        state, reasons = _study_state(each.study, results)
        lines.append(
            StudyLine(
                study=each.study,
                suspicion=each.suspicion,
                age=age_text(language, each.study),
                modalities=tuple(modalities.get(uid, ())),
                state=state,
                reasons=reasons,
                results=results,
                priors=priors.get(uid, 0),
                has_more_priors=priors.get(uid, 0) == PRIORS_LIMIT,
            )
        )
    return lines


def age_text(language: Language, study: StudyRow) -> str:
    """Return the patient's age at the study; '' where it is not known."""
    months = age_months(study.patient_birth_date, study.study_date)
    if months is None:
        return ""
    return language("age.months", n=months) if is_told_in_months(months) else language("age.years", n=months // 12)


def _result(language: Language, job: WorklistJob, positive: Mapping[tuple[int, str], bool]) -> ResultLine:
    return ResultLine(
        bundle=job.bundle,
        revision=job.revision,
        state=work_state(job.state, job.reason, job.verification),
        reason=reason_text(language, job.reason, job.summary),
        classes=tuple(found_classes(job.summary, positive)),
        measurements=tuple(first_measurements(job.summary)),
    )


def _study_state(study: StudyRow, results: Sequence[ResultLine]) -> tuple[str, tuple[str, ...]]:
    """Return the state that a study shows, and why it has no finding."""
    if study.state == "receiving":
        return "receiving", ()
    if not results:
        return study.state, (study.state_reason,) if study.state_reason else ()
    state = most_urgent([result.state for result in results])
    reasons = [result.reason for result in results if result.state == state and result.reason]
    return state, tuple(dict.fromkeys(reasons))


def _positive(connection: Connection, uids: Sequence[str]) -> dict[tuple[str, str], dict[tuple[int, str], bool]]:
    query = sa.select(finding).where(finding.c.study_instance_uid.in_(uids), finding.c.is_current)
    found: dict[tuple[str, str], dict[tuple[int, str], bool]] = {}
    for row in connection.execute(query):
        of_job = found.setdefault((row.study_instance_uid, row.bundle), {})
        of_job[row.ordinal, row.tracking_id] = row.is_positive
    return found


class _Options:
    """What the filters offer, read anew every half minute: it changes seldom, and is asked for with every page."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read_at = -_OPTIONS_S
        self._options: tuple[list[str], list[str]] = ([], [])

    def get(self) -> tuple[list[str], list[str]]:
        """Return modalities and names of findings."""
        with self._lock:
            # Empty options are not kept: the first study would otherwise have no filter for a while.
            if time.monotonic() - self._read_at >= _OPTIONS_S or not all(self._options):
                with self._store.read() as connection:
                    self._options = known_modalities(connection), known_findings(connection)
                self._read_at = time.monotonic()
            return self._options


def _with(options: Sequence[str], chosen: str) -> list[str]:
    """Return the options with the one that is chosen, which may be gone from the list meanwhile."""
    return [*options, chosen] if chosen and chosen not in options else list(options)


def _page(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= _PAGE_DIGITS
    return min(max(int(text), 1), LAST_PAGE) if is_number else 1


def _date(text: str) -> tuple[str, ...]:
    """Return year, month and day; nothing where the text is no date."""
    match = _DATE.fullmatch(text)
    return match.groups() if match else ()
