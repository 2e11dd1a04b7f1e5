"""What the gateway's log tells of the way of one study: when it was dispatched, claimed, done, delivered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

_STAGES = ("prepare_s", "infer_s", "publish_s", "release_s", "complete_s", "commit_s")
_EVENTS = frozenset({"study.routed", "job.claimed", "job.released", "job.done", "delivery.done"})


def read(log: Path, offset: int, study_instance_uid: str, last_response_at: float) -> Mapping[str, float]:
    """Return seconds after the last response, by event, and the seconds of each stage of the job.

    Parameters
    ----------
    offset
        Length of the log when the study was sent: only one study is under way.
    """
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    told: dict[str, float] = {}
    for line in lines:
        event = _parse(line)
        name = event.get("event")
        if name == "study.routed" and event["study_instance_uid"] != study_instance_uid:
            raise RuntimeError("another study is under way")
        if name in _EVENTS:
            told[name] = datetime.fromisoformat(event["timestamp"]).timestamp() - last_response_at
        if name == "job.done":
            told |= {stage: event[stage] for stage in _STAGES if stage in event}
        if name == "delivery.done":
            told |= {"deliver_s": event["took_s"], "objects": event["objects"]}
    return told


def _parse(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
