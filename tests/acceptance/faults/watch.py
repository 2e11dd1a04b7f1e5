"""Whether a fault is seen (/readyz, /metrics, doctor), and whether it is over."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.faults.site import RESERVE_MIB, Site

OVER_WITHIN_S = 60.0
"""After the end of a fault everything is ready again within this time, on a computer that does nothing else."""
_LOOK_S = 15.0
_POLL_S = 0.4
_DOCTORS_NAMES = {
    "disk": ("data folder",),
    "database": ("database",),
    "broker": ("broker",),
    "role dispatch": ("role dispatch",),
    # A peer that answers C-ECHO and no C-STORE is told by the role.
    "deliveries": ("destination", "role deliver"),
}
"""Part of /readyz -> how the doctor's names for it begin."""
Sample = tuple[str, dict[str, str], float]


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a fault was seen; None where nobody looked."""

    readyz: bool
    metrics: bool
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
        said = self.ready()
        if not said:
            return "/readyz does not answer"
        parts = {name: part for name, part in said["parts"].items() if part["state"] != "ready"}
        roles = [role for role in ("receive", "dispatch", "work", "deliver", "web") if not self._site.pids(role)]
        return "; ".join(
            [*(f"{name}: {part['reason']}" for name, part in parts.items()), *(f"no process {role}" for role in roles)]
        )

    def look_for(self, part: str, within_s: float, *, asks_doctor: bool) -> Sight:
        """Look until a part shows that it is not ready, and the metrics too; then ask the doctor once."""
        deadline = time.monotonic() + within_s
        in_readyz = in_metrics = False
        while not (in_readyz and in_metrics) and time.monotonic() < deadline:
            shown = self.ready().get("parts", {}).get(part)
            in_readyz = in_readyz or (shown is not None and shown["state"] != "ready")
            in_metrics = in_metrics or self._is_in_metrics(part)
            time.sleep(_POLL_S)
        return Sight(in_readyz, in_metrics, self._doctor_says(part) if asks_doctor else None)

    def _doctor_says(self, part: str) -> bool:
        ended = self._site.gateway.cli("doctor", "--json")
        try:
            checks = json.loads(ended.stdout)
        except ValueError:
            return False
        return any(check["part"].startswith(_DOCTORS_NAMES[part]) and check["verdict"] != "ok" for check in checks)

    def _is_in_metrics(self, part: str) -> bool:
        try:
            text = self._client.get("/metrics").text
        except httpx.HTTPError:
            return False
        samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
        return any(_tells(sample, part) for sample in samples)


def _tells(sample: Sample, part: str) -> bool:
    """Say whether a sample is what an alert on this part would look at."""
    name, labels, value = sample
    if name == "hybridmed_role_up" and value == 0:
        return True
    match part:
        case "database":
            return name == "hybridmed_database_up" and value == 0
        case "disk":
            is_short = name == "hybridmed_disk_free_bytes" and value < RESERVE_MIB << 20
            return is_short or (name == "hybridmed_disk_writable" and value == 0)
        case "broker":
            return name == "hybridmed_outbox_unpublished" and value > 0
        case "deliveries":
            return name == "hybridmed_deliveries" and labels.get("state") == "waiting" and value > 0
        case _:
            return False
