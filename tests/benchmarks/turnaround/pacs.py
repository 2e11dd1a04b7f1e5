"""Orthanc, watched: when the objects of a study were stored in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.services.orthanc import Orthanc


@dataclass(frozen=True)
class Stored:
    """An object that came."""

    study_instance_uid: str
    modality: str
    at: float
    """Seconds since 1970, at most a look late."""


class Watch:
    """Reads Orthanc's list of changes.

    Parameters
    ----------
    pacs
        An Orthanc that runs.
    """

    def __init__(self, pacs: Orthanc) -> None:
        self._client = httpx.Client(base_url=pacs.http_url, timeout=30, trust_env=False)
        self._seen = int(self._get("/changes?last")["Last"])

    def news(self) -> list[Stored]:
        """Return what came since the last look."""
        changes = self._get(f"/changes?since={self._seen}&limit=1000")
        at = time.time()
        self._seen = int(changes["Last"])
        stored = []
        for change in changes["Changes"]:
            if change["ChangeType"] == "NewInstance":
                tags = self._get(f"/instances/{change['ID']}/simplified-tags")
                stored.append(Stored(tags["StudyInstanceUID"], tags["Modality"], at))
        return stored

    def _get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()
