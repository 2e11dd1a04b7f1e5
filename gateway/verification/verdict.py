"""What a person says of a result, and how it is kept in the job's row (pure)."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from gateway.errors import GatewayError

Action = Literal["accept", "reject", "correct"]
ACTIONS: tuple[Action, ...] = get_args(Action)
_NAME_LENGTH = 64
"""Of a PN component group and of an LO (PS3.5 6.2)."""
_COMMENT_LENGTH = 2000
_MOST_COMPONENTS = 5
_KEY_PARTS = 3
_NOT_STATED = "not stated"
"""Verifying Organization (0040,A027) may not be empty."""


class VerdictError(GatewayError):
    """A field of a verification is missing or wrong; the message says which, and what was expected."""

    exit_code = 2
    http_status = 422


@dataclass(frozen=True, slots=True)
class Observer:
    """Who says it."""

    name: str
    """PN with at least one caret: 'Family^Given'."""
    organisation: str

    @property
    def display(self) -> str:
        """The name as people write it: 'Dr. Given Family'."""
        parts = [*self.name.split("=")[0].split("^"), "", "", "", ""]
        family, given, middle, prefix, suffix = parts[:_MOST_COMPONENTS]
        return " ".join(part for part in (prefix, given, middle, family, suffix) if part)


@dataclass(frozen=True, slots=True)
class Corrections:
    """What is to be otherwise."""

    answers: Mapping[tuple[int, str], str]
    """Ordinal of the outcome and tracking identifier of the finding -> name of the class."""
    removed: frozenset[tuple[int, int]]
    """Ordinal of the outcome and number of the segment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was asked for: one person's word on one job's results."""

    job_id: str
    action: Action
    observer: Observer
    comment: str
    corrections: Corrections

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: the same form, submitted twice, is known by it."""
        content = [self.job_id, self.action, self.observer.name, self.observer.organisation, self.comment]
        content += sorted(f"{ordinal}:{name}={answer}" for (ordinal, name), answer in self.corrections.answers.items())
        content += sorted(f"{ordinal}:{number}" for ordinal, number in self.corrections.removed)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Verification:
    """A verdict that was given; kept as JSON in `job.verification`."""

    action: Action
    observer: str
    """PN with caret."""
    organisation: str
    comment: str
    verified_at: datetime
    verified_job_id: str
    """The job whose results were looked at."""
    digest: str
    """`Verdict.digest`."""
    corrections: tuple[Mapping[str, Any], ...] = ()
    """What was changed, for people: `{"ordinal", "id", "answer", "was", "probability"}`, or `{…, "segment",
    "is_removed"}`."""

    @property
    def who(self) -> Observer:
        """The person."""
        return Observer(self.observer, self.organisation)

    def as_json(self) -> dict[str, Any]:
        """Return what the row keeps."""
        return {
            "action": self.action,
            "observer": self.observer,
            "organisation": self.organisation,
            "comment": self.comment,
            "verified_at": self.verified_at.isoformat(),
            "verified_job_id": self.verified_job_id,
            "digest": self.digest,
            "corrections": [dict(each) for each in self.corrections],
        }


def read_verification(content: Mapping[str, Any]) -> Verification:
    """Return what a row keeps."""
    return Verification(
        action=content["action"],
        observer=content["observer"],
        organisation=content["organisation"],
        comment=content["comment"],
        verified_at=datetime.fromisoformat(content["verified_at"]),
        verified_job_id=content["verified_job_id"],
        digest=content["digest"],
        corrections=tuple(content["corrections"]),
    )


def read_verdict(fields: Mapping[str, str]) -> Verdict:
    """Return the verdict that the fields of a form spell.

    Parameters
    ----------
    fields
        `job_id`, `action` (accept, reject, correct), `observer`, and, if wanted, `organisation`, `comment`,
        `class:<ordinal>:<tracking id>` = class name, `remove:<ordinal>:<segment number>` = 1. Others are passed over.

    Raises
    ------
    VerdictError
        A field is missing or wrong.
    """
    action = fields.get("action", "").strip()
    if action not in ACTIONS:
        raise VerdictError(f"action is one of {', '.join(ACTIONS)}")
    job_id = _text(fields.get("job_id", ""), _NAME_LENGTH, "job_id")
    if not job_id:
        raise VerdictError("job_id is missing: it says which results are meant")
    return Verdict(
        job_id=job_id,
        action=next(each for each in ACTIONS if each == action),
        observer=Observer(person_name(fields.get("observer", "")), _organisation(fields.get("organisation", ""))),
        comment=_text(fields.get("comment", ""), _COMMENT_LENGTH, "comment", lines=True),
        corrections=_corrections(fields),
    )


def person_name(text: str) -> str:
    """Return a name as a PN: with carets it stays, 'Family, Given' and 'Family Given' get theirs.

    Raises
    ------
    VerdictError
        It is empty, or too long.
    """
    name = _text(text, _NAME_LENGTH, "observer")
    if "^" in name:
        if name.count("^") >= _MOST_COMPONENTS:
            raise VerdictError("observer: a person name has at most 5 components")
        parts = [part.strip() for part in name.split("^")]
    else:
        family, _, given = name.partition(",") if "," in name else name.partition(" ")
        parts = [family.strip(), given.strip()]
    if not any(parts):
        raise VerdictError("observer is missing: write the name of the person who verifies, as 'Family Given'")
    return "^".join(parts)


def _organisation(text: str) -> str:
    return _text(text, _NAME_LENGTH, "organisation") or _NOT_STATED


def _text(text: str, longest: int, field: str, *, lines: bool = False) -> str:
    """Return text without what DICOM forbids in it: control characters, backslashes and, in names, '='."""
    kept = "".join(
        char if (lines and char == "\n") or unicodedata.category(char) not in {"Cc", "Cs"} else " " for char in text
    )
    cleaned = kept.strip() if lines else " ".join(kept.replace("\\", "/").replace("=", " ").split())
    if len(cleaned) > longest:
        raise VerdictError(f"{field} has {len(cleaned)} characters; at most {longest} are kept")
    return cleaned


def _corrections(fields: Mapping[str, str]) -> Corrections:
    answers: dict[tuple[int, str], str] = {}
    removed: set[tuple[int, int]] = set()
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind not in {"class", "remove"}:
            continue
        ordinal, _, of = rest.partition(":")
        if not _is_number(ordinal) or not of or (kind == "remove" and not _is_number(of)):
            raise VerdictError(f"{name[:_NAME_LENGTH]!r}: expected class:<ordinal>:<id> or remove:<ordinal>:<number>")
        if kind == "class" and value:
            answers[int(ordinal), of] = value
        elif kind == "remove" and value not in {"", "0"}:
            removed.add((int(ordinal), int(of)))
    return Corrections(answers, frozenset(removed))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _KEY_PARTS
