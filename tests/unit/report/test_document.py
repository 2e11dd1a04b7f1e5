"""A result becomes HTML and PDF in both languages: what they show, what they leave out, what they survive."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import pypdf
import pytest
from PIL import Image

from gateway.report.document import Told
from gateway.report.document.render import render_documents
from tests.unit.fhir import cases

JOB = "5f3c0000-0000-4000-8000-000000000000"


@cache
def png() -> bytes:
    """Return a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(buffer, format="PNG")
    return buffer.getvalue()


def told(**values: Any) -> Told:
    """Return a result with pneumonia; `values` replace fields."""
    made = Told(JOB, 1, cases.study(), [cases.pneumonia()], [{"overlay": png()}], cases.NOW, cases.ORDER)
    return replace(made, **values)


def texts(what: Told) -> dict[str, str]:
    """Return the text of each document by kind."""
    return {kind: _text(media_type, content) for kind, (media_type, content) in render_documents(what).items()}


def _text(media_type: str, content: bytes) -> str:
    if media_type == "text/html":
        return content.decode()
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)


def test_patient_findings_and_measurements_are_shown_in_both_languages() -> None:
    """Names, answers with probabilities, values with units, the algorithm, and that nobody verified it."""
    shown = texts(told())

    assert sorted(shown) == ["document-html-en", "document-html-zh", "document-pdf-en", "document-pdf-zh"]
    for text in shown.values():
        for each in (
            "Dr. Anna Maria Müller",
            "1970-02-14",
            "97.0 %",
            "1234.5 mL",
            "cxr-pneumonia 1.0.0",
            "ab" * 32,
            JOB,
        ):
            assert each in text.replace("\n", "") or each in text
    for kind in ("document-html-en", "document-pdf-en"):
        assert "Bacterial pneumonia" in shown[kind]
        assert "not verified by a person" in shown[kind]
    for kind in ("document-html-zh", "document-pdf-zh"):
        assert "细菌性肺炎" in shown[kind]
        assert "未经人工核实" in shown[kind]


def test_the_picture_is_in_the_document() -> None:
    """Nothing is fetched from elsewhere, and nothing runs."""
    documents = render_documents(told())
    html = documents["document-html-en"][1].decode()
    pages = pypdf.PdfReader(io.BytesIO(documents["document-pdf-en"][1])).pages

    assert "data:image/jpeg;base64," in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert [each.image.size for page in pages for each in page.images if each.image is not None] == [(40, 30)]


def test_what_was_withdrawn_is_not_shown() -> None:
    """A rejected result keeps patient and reason, and loses findings and picture."""
    shown = texts(told(now=cases.word("reject", cases.NOW)))

    for text in shown.values():
        assert "Bacterial" not in text
        assert "细菌" not in text
        assert "1234.5" not in text
        assert "data:image" not in text
        assert "Marie Curie" in text
    assert "Withdrawn: do not use" in shown["document-pdf-en"]


def test_a_corrected_answer_has_no_probability() -> None:
    """The algorithm's number is not the person's."""
    text = texts(told(now=cases.word("correct", cases.NOW), corrected={(0, "fine")}))["document-html-en"]

    assert "corrected by a person" in text
    assert "90.0 %" not in text
    assert "Verified, with corrections" in text


@pytest.mark.parametrize(
    "name", ["X" * 1000, "\x00\x1b[31m <script>&amp;</b>\ud800", "Łoś^Ż=山田^太郎=やまだ", "𠮷^𠮷", "^^"]
)
def test_any_name_can_be_written(name: str) -> None:
    """Long, hostile and foreign names; a character that the font lacks is marked, and the page says so."""
    shown = texts(told(study=cases.study(patient_name=name, study_description=name)))

    assert "<script>" not in shown["document-html-en"]
    assert ("this font lacks" in shown["document-pdf-en"]) == ("𠮷" in name)


def test_values_longer_than_a_page_go_on_on_the_next() -> None:
    """Many series, and a description without end, lose nothing and stop no job."""
    uids = [f"{cases.STUDY_UID}.{10**12 + number}" for number in range(150)]
    outcomes = [replace(cases.pneumonia(), series_instance_uid=uid, findings=(), segments=()) for uid in uids]
    study = cases.study(study_description="Thorax and more. " * 400)

    shown = texts(told(outcomes=outcomes, pictures=[{}] * len(uids), study=study))["document-pdf-en"]

    assert shown.replace("\n", " ").count("Thorax and more.") == 400
    assert [uid for uid in uids if uid not in shown.replace("\n", "")] == []


def test_a_name_in_a_table_may_be_longer_than_a_page() -> None:
    """A bundle's label of 4,000 characters, in a column of a third of the width."""
    first = cases.pneumonia().findings[0]
    answer = replace(first.answer, code=replace(first.answer.code, meaning="Long " * 800))
    finding = replace(first, answer=answer)

    shown = texts(told(outcomes=[replace(cases.pneumonia(), findings=(finding,))]))["document-pdf-en"]

    assert shown.count("Long") >= 800


def test_the_same_result_gives_the_same_bytes() -> None:
    """A retry writes the same files, also while other threads write theirs."""
    once = render_documents(told())

    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _each: render_documents(told()), range(16)))

    assert all(each == once for each in again)
