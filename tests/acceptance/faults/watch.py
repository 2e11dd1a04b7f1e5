"""Whether a fault is seen (/readyz, /metrics, doctor), and whether it is over."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.faults.sign import SILENT, Sample, Sign, matches
from tests.acceptance.faults.site import ROLES, Site

OVER_WITHIN_S = 60.0
"""After the end of a fault everything is ready again within this time, on a computer that does nothing else."""
_LOOK_S = 15.0
_POLL_S = 0.4


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a fault was seen; None where nobody looked."""

    readyz: bool | None
    metrics: bool | None
    doctor: bool | None


class Watch:
    """Looks at a gateway through its own doors; a context manager around its connections.

    Parameters
    ----------
    site
        What is looked at.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client = httpx.Client(base_url=site.gateway.url, timeout=_LOOK_S, trust_env=False)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def ready(self) -> dict[str, Any]:
        """Return what /readyz says; empty where nobody answers."""
        try:
            return dict(self._client.get("/readyz").json())
        except (httpx.HTTPError, ValueError):
            return {}

    def is_over(self) -> bool:
        """Say whether everything is ready and every role runs."""
        self._site.tend()
        return self.ready().get("state") == "ready" and self._site.is_whole()

    def wait_until_over(self, within_s: float) -> float | None:
        """Return after how many seconds everything is ready; None where it is not in time."""
        began = time.monotonic()
        while not self.is_over():
            if time.monotonic() - began > within_s:
                return None
            time.sleep(_POLL_S)
        return time.monotonic() - began

    def why_not(self) -> str:
        """Return what is not ready."""
        roles = [role for role in ROLES if not self._site.pids(role)]
        return "; ".join([*self._not_ready(), *(f"no process {role}" for role in roles)])

    def samples(self) -> list[Sample]:
        """Return what /metrics says; empty where nobody answers."""
        try:
            text = self._client.get("/metrics").raise_for_status().text
        except httpx.HTTPError:
            return []
        families = text_string_to_metric_families(text)
        return [(each.name, each.labels, each.value) for family in families for each in family.samples]

    def look_for(self, sign: Sign, before: Sequence[Sample], within_s: float, *, asks_doctor: bool) -> Sight:
        """Look until /readyz and /metrics show the sign; then ask the doctor once.

        Parameters
        ----------
        before
            What /metrics said before the fault.
        """
        deadline = time.monotonic() + within_s
        in_readyz = in_metrics = False
        while not (in_readyz and in_metrics) and time.monotonic() < deadline:
            in_readyz = in_readyz or sign.ready is None or matches(sign.ready, self._not_ready())
            in_metrics = in_metrics or sign.metric is None or sign.metric(before, self.samples())
            time.sleep(_POLL_S)
        doctor = self._doctor_says(sign.doctor) if asks_doctor and sign.doctor is not None else None
        return Sight(None if sign.ready is None else in_readyz, None if sign.metric is None else in_metrics, doctor)

    def _not_ready(self) -> list[str]:
        """Return what /readyz shows as not ready, a line for each part."""
        said = self.ready()
        if not said:
            return [f"/readyz {SILENT}"]
        return [f"{name}: {part['reason']}" for name, part in said["parts"].items() if part["state"] != "ready"]

    def _doctor_says(self, pattern: str) -> bool:
        ended = self._site.gateway.cli("doctor", "--json")
        try:
            checks = json.loads(ended.stdout)
        except ValueError:
            return False
        return matches(pattern, [f"{each['part']}: {each['found']}" for each in checks if each["verdict"] != "ok"])
