"""What a document shows, as values: the same for HTML and PDF (pure)."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from PIL import Image

from gateway.report.document.told import Told
from gateway.report.document.words import LABELS
from gateway.report.figures import number, percent, spread
from gateway.report.wording import Key, Wording, closing_sentences, conclusion, unit_words
from inference.findings import Finding, Findings, Outcome

_OVERLAY = "overlay"
_QUALITY = 85
_DATE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a heading."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A document in one language; all texts are free of control characters."""

    tag: str
    title: str
    warning: str
    status: str
    is_withdrawn: bool
    about: tuple[tuple[str, str], ...]
    """Label and value, of patient and study; only those that have a value."""
    conclusion_heading: str
    conclusion: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[bytes, ...]
    """JPEG."""
    caption: str
    origin_heading: str
    origin: tuple[tuple[str, str], ...]
    replaced_note: str
    """What to say where the font lacks a character."""


def jpegs(told: Told) -> tuple[bytes, ...]:
    """Return the overlays as JPEG, a tenth of the size; none of what was withdrawn."""
    return () if told.is_withdrawn else tuple(_jpeg(each[_OVERLAY]) for each in told.pictures if _OVERLAY in each)


def make_page(told: Told, pictures: tuple[bytes, ...], wording: Wording) -> Page:
    """Return the page in one language; what was withdrawn shows no findings.

    Parameters
    ----------
    pictures
        As `jpegs` gives them.
    """
    label = LABELS[wording.tag]
    shown = () if told.is_withdrawn else told.outcomes
    closing = closing_sentences(told.now, told.earlier, wording)
    tables = (_findings(shown, told.corrected, wording), _measurements(shown, wording))
    return Page(
        tag=wording.tag,
        title=label["title"],
        warning=label["warning"],
        status=label[told.now.action if told.now is not None else "preliminary"],
        is_withdrawn=told.is_withdrawn,
        about=tuple((label[key], _clean(value)) for key, value in _about(told, label) if _clean(value)),
        conclusion_heading=label["conclusion"],
        conclusion=tuple(map(_clean, conclusion(shown, closing, told.corrected, wording).split("\n"))),
        tables=tuple(table for table in tables if table.rows),
        pictures=pictures,
        caption=label["picture"],
        origin_heading=label["origin"],
        origin=tuple((label[key], _clean(value)) for key, value in _origin(told) if value),
        replaced_note=label["replaced"],
    )


def _about(told: Told, label: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    study = told.study
    yield "patient", _person(study.patient_name)
    yield "patient-id", study.patient_id
    yield "birth", _date(study.patient_birth_date)
    yield "sex", label.get(study.patient_sex, study.patient_sex)
    yield "study", study.study_description
    yield "date", _date(study.study_date)
    yield "accession", study.accession_number
    yield "institution", told.order.institution
    yield "referrer", _person(study.referring_physician)


def _origin(told: Told) -> Iterator[tuple[str, str]]:
    for algorithm in dict.fromkeys(outcome.algorithm for outcome in told.outcomes):
        yield "algorithm", f"{algorithm.name} {algorithm.version}, {algorithm.manufacturer}"
        yield "weights", algorithm.weights_digest
    yield "series", ", ".join(dict.fromkeys(each.series_instance_uid or "" for each in told.outcomes))
    yield "made", told.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield "revision", str(told.revision)
    yield "job", told.job_id


def _findings(outcomes: Sequence[Outcome], corrected: Collection[Key], wording: Wording) -> Table:
    label = LABELS[wording.tag]
    rows = tuple(
        _finding(each, wording, is_corrected=(ordinal, each.tracking_id) in corrected)
        for ordinal, outcome in enumerate(outcomes)
        if isinstance(outcome, Findings)
        for each in outcome.findings
    )
    columns = tuple(label[key] for key in ("question", "answer", "probability", "uncertainty"))
    return Table(label["findings"], columns, rows)


def _finding(finding: Finding, wording: Wording, *, is_corrected: bool) -> tuple[str, ...]:
    question, answer = wording.term(finding.question.meaning), wording.term(finding.answer.code.meaning)
    if is_corrected:
        return _clean(question), _clean(answer), LABELS[wording.tag]["corrected"], ""
    share = spread([each.probability for each in finding.alternatives])
    uncertainty = "" if share is None else f"{percent(share):.0f} %"
    return _clean(question), _clean(answer), f"{percent(finding.answer.probability):.1f} %", uncertainty


def _measurements(outcomes: Sequence[Outcome], wording: Wording) -> Table:
    label = LABELS[wording.tag]
    rows = tuple(
        (
            _clean(wording.term(segment.label)),
            _clean(wording.term(each.quantity.meaning)),
            f"{number(each.value)} {unit_words(each.unit.value, wording)}"
            if math.isfinite(each.value)
            else label["no-number"],
        )
        for outcome in outcomes
        if isinstance(outcome, Findings)
        for segment in outcome.segments
        for each in segment.measurements
    )
    return Table(label["measurements"], tuple(label[key] for key in ("segment", "quantity", "value")), rows)


def _jpeg(png: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _clean(text: str) -> str:
    """Return text without control characters and lone surrogates, which neither HTML nor PDF can hold."""
    return "".join(char if unicodedata.category(char) not in {"Cc", "Cs"} else " " for char in text).strip()


def _person(name: str) -> str:
    """Return 'Doe^Jane^^Dr.=…' as 'Dr. Jane Doe', the other component groups after it."""
    groups = []
    for group in name.split("="):
        family, given, middle, prefix, suffix = [*(part.strip() for part in group.split("^")), *[""] * 5][:5]
        text = " ".join(part for part in (prefix, given, middle, family, suffix) if part)
        groups.append(text)
    return " · ".join(text for text in groups if text)


def _date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == _DATE_DIGITS and text.isdecimal() else text
