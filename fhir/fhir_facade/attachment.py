"""A result file -> Attachment and the id of its Binary: bytes stay in the file, FHIR says where and what they are."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from fhir_facade.resource import Json, present
from gateway.store.results import DICOM, NewArtefact

ReadFile: TypeAlias = Callable[[NewArtefact], bytes | None]
"""Gives the bytes of a result file; None where it is gone."""
_BINARY_ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9a-f]{16})")
_DIGEST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class FileName:
    """What names one result file: the job that made it, and how its SHA-256 begins."""

    job_id: str
    digest_start: str


def binary_id(job_id: str, artefact: NewArtefact) -> str:
    """Return the id of the Binary; other bytes have another id, so a Binary never changes."""
    return f"{job_id}.{artefact.digest[:_DIGEST_DIGITS]}"


def read_binary_id(text: str) -> FileName | None:
    """Return what an id names; None where it is no id of a Binary."""
    match = _BINARY_ID.fullmatch(text)
    return None if match is None else FileName(match[1], match[2])


def is_served(artefact: NewArtefact) -> bool:
    """Say whether a result file is had as a Binary: pictures and documents are, DICOM objects by DICOMweb."""
    return artefact.media_type != DICOM


def attachment(job_id: str, artefact: NewArtefact, read: ReadFile, *, title: str, created: str) -> Json:
    """Return the Attachment; its address is relative to this FHIR server, its hash SHA-1 (R4 datatypes, Attachment)."""
    content = read(artefact)
    digest = hashlib.sha1(content, usedforsecurity=False).digest() if content is not None else None
    return present(
        {
            "contentType": artefact.media_type,
            "language": language_of(artefact),
            "url": f"Binary/{binary_id(job_id, artefact)}",
            "size": artefact.size_bytes,
            "hash": base64.b64encode(digest).decode() if digest else None,
            "title": title,
            "creation": created,
        }
    )


def language_of(artefact: NewArtefact) -> str | None:
    """Return the language of a document, the last part of its kind; None for a picture."""
    return artefact.kind.rpartition("-")[2] if artefact.kind.startswith("document-") else None
