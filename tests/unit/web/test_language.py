"""The catalogues: complete in every language, and all of their texts in use."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest
from starlette.requests import Request

import gateway.web
from gateway.job import State
from gateway.store.worklist import WORK_STATES
from gateway.web.language import LANGUAGES, choose_language
from gateway.web.results import work_state

WEB = Path(gateway.web.__file__).parent
REPOSITORY = WEB.parents[1]
ENGLISH = LANGUAGES["en"].texts
MADE_UP = ("state.", "sex.", "reason.", "requested.", "artefact.", "done.", "error.", "theme.", "view.", "help.")
"""Beginnings of keys that are put together from data."""
INSERTED = re.compile(r"\{[%#].*?[%#]\}|\{\{.*?\}\}", re.DOTALL)
MARKUP = re.compile(r"<[^>]*>|&[a-z]+;", re.DOTALL)
SPOKEN = re.compile(r"""(?:aria-label|title|placeholder|alt)="([^"{]*[A-Za-z][^"{]*)\"""")


def asked(headers: dict[str, str]) -> Request:
    """Return a request with headers."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw})


@pytest.mark.parametrize("code", sorted(set(LANGUAGES) - {"en"}))
def test_every_text_is_there_in_every_language(code: str) -> None:
    """The same keys, none empty, and the same values to be put in."""
    texts = LANGUAGES[code].texts

    assert set(texts) == set(ENGLISH)
    assert all(text.strip() or key == "list.separator" for key, text in texts.items())
    for key, text in ENGLISH.items():
        assert fields(texts[key]) == fields(text), key


def test_every_text_that_a_page_asks_for_is_there() -> None:
    """Keys in templates and modules are in the catalogue, and nothing in the catalogue is left over."""
    sources = [path.read_text(encoding="utf-8") for path in WEB.rglob("*.html")]
    sources += [path.read_text(encoding="utf-8") for path in WEB.glob("*.py") if not path.name.startswith("texts_")]
    whole = "\n".join(sources)
    named = set(re.findall(r"""(?:\bt|\blanguage)\(\s*"([a-z][a-z0-9.-]*)"[,)]""", whole))
    counted = set(re.findall(r"""counted\(\s*"([a-z][a-z0-9.-]*)",""", whole))
    named |= {f"{key}.{number}" for key in counted for number in ("one", "other")}
    quoted = set(re.findall(r'"([a-z][a-z0-9.-]*\.[a-z0-9.-]+)"', whole))

    assert named <= set(ENGLISH)
    assert {key for key in set(ENGLISH) - named - quoted if not key.startswith(MADE_UP)} <= wait_texts()


def wait_texts() -> set[str]:
    """Return the texts whose key ends in a state."""
    return {key for key in ENGLISH if key.startswith(("study.wait.", "study.no-jobs."))}


def test_templates_hold_no_words_of_their_own() -> None:
    """Every word that a page says comes from a catalogue."""
    for path in WEB.rglob("*.html"):
        if path.name == "no_viewer.html":  # says it in both languages at once
            continue
        text = path.read_text(encoding="utf-8")
        words = re.findall(r"[A-Za-z]{2,}", MARKUP.sub(" ", INSERTED.sub("", text)).replace("hybridmed send PATH", ""))
        assert [word for word in words if word not in {"FHIR"}] == [], path.name
        assert SPOKEN.findall(text) == [], path.name


def test_every_state_of_a_job_has_a_name() -> None:
    """Whatever a job says, and whatever the filter offers, is in the catalogue."""
    shown = {work_state(state, reason, None) for state in State for reason in (None, "why")}
    shown |= {work_state(State.DONE, None, {"action": action}) for action in ("accept", "correct", "reject")}

    assert {f"state.{name}" for name in shown | set(WORK_STATES)} <= set(ENGLISH)


def test_every_reason_not_to_evaluate_has_a_heading() -> None:
    """Each code that inference gives is in the catalogue, so that every language has it."""
    codes = {"series.none"}
    for path in (REPOSITORY / "inference").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_refusal = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "NotEvaluableError"
            if is_refusal and node.args and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
                codes.add(node.args[0].value)  # type: ignore[attr-defined]

    assert {f"reason.{code}" for code in codes} <= set(ENGLISH)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "en"),
        ({"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh"),
        ({"Accept-Language": "en-GB,zh;q=0.9"}, "en"),
        ({"Accept-Language": "de, zh;q=0.2, en;q=0.7"}, "en"),
        ({"Accept-Language": "zh;q=0, fr"}, "en"),
        ({"Accept-Language": "zh;q=x, ,;;"}, "en"),
        ({"Accept-Language": "en", "Cookie": "hybridmed_language=zh"}, "zh"),
        ({"Accept-Language": "zh", "Cookie": "hybridmed_language=<script>"}, "zh"),
    ],
)
def test_the_browser_chooses_and_the_switch_wins(headers: dict[str, str], code: str) -> None:
    """The language liked best of those we have; a cookie that names one of ours comes first."""
    assert choose_language(asked(headers)).code == code


def test_terms_that_are_not_known_stay_as_they_are() -> None:
    """A model of the site's own brings words that no catalogue knows."""
    chinese = LANGUAGES["zh"]

    assert chinese.term("Viral pneumonia") == "病毒性肺炎"
    assert chinese.term("Glioma") == "Glioma"


def fields(text: str) -> set[str]:
    """Return the names of the values that go into a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}
