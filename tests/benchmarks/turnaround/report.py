"""What was measured: medians over the repeats, the table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_STAGES = (
    ("study.routed", "dispatch"),
    ("job.claimed", "claim"),
    ("prepare_s", "prepare"),
    ("infer_s", "infer"),
    ("publish_s", "render"),
    ("release_s", "release"),
    ("deliver_s", "deliver"),
    ("complete_s", "complete"),
    ("commit_s", "commit"),
)


@dataclass(frozen=True)
class Run:
    """One study on its way, and the model by itself over the same files."""

    case: str
    end: str
    """What ended the wait for more instances: 'quiet' or 'count'."""
    turnaround_s: float
    """From the last C-STORE response to the last SR stored in the PACS, less the quiet period that was waited for."""
    all_stored_s: float
    """The same, to the last of all objects."""
    done_s: float
    """The same, to the job's end: pictures, documents and FHIR are there."""
    timeline: Mapping[str, float]
    read_s: float
    """Of the model by itself."""
    model_s: float
    load: float
    """Load average (1 min) before the run."""


@dataclass(frozen=True)
class Line:
    """Medians of the runs of one case."""

    case: str
    end: str
    runs: int
    turnaround_s: float
    all_stored_s: float
    done_s: float
    model_s: float
    read_s: float
    above_s: float
    """Turnaround less the time of the model by itself, run by run."""
    beside_s: float
    """Turnaround less the time that the model took within the gateway, run by run: free of the model's own ups and
    downs."""
    stages: Mapping[str, float]
    """Seconds: 'dispatch' after the end of the quiet period, 'claim' after the dispatch, then each stage's own."""
    load: float


def lines(runs: Sequence[Run], quiet_s: float) -> list[Line]:
    """Return a line for each case, in the order of the runs."""
    grouped: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.case, run.end].append(run)
    return [
        Line(
            case=case,
            end=end,
            runs=len(of_case),
            turnaround_s=_median(run.turnaround_s for run in of_case),
            all_stored_s=_median(run.all_stored_s for run in of_case),
            done_s=_median(run.done_s for run in of_case),
            model_s=_median(run.model_s for run in of_case),
            read_s=_median(run.read_s for run in of_case),
            above_s=_median(run.turnaround_s - run.model_s for run in of_case),
            beside_s=_median(run.turnaround_s - run.timeline["infer_s"] for run in of_case),
            stages=_stages(of_case, quiet_s if end == "quiet" else 0.0),
            load=_median(run.load for run in of_case),
        )
        for (case, end), of_case in grouped.items()
    ]


def table(found: Sequence[Line]) -> str:
    """Return the lines as text; all times in seconds."""
    names = [name for _, name in _STAGES]
    columns = ("model", "read", "to SR", "above", "beside", "to all", "done")
    head = f"{'case':16} {'wait':6}" + "".join(f" {name:>6}" for name in columns)
    rows = [head + " |" + "".join(f" {name:>8}" for name in names) + f" {'load':>5}"]
    for line in found:
        shown = "".join(f" {line.stages[name]:8.3f}" if name in line.stages else f" {'-':>8}" for name in names)
        rows.append(
            f"{line.case:16} {line.end:6} {line.model_s:6.2f} {line.read_s:6.2f} {line.turnaround_s:6.2f} "
            f"{line.above_s:6.2f} {line.beside_s:6.2f} {line.all_stored_s:6.2f} {line.done_s:6.2f} "
            f"|{shown} {line.load:5.1f}"
        )
    return "\n".join(rows)


def _stages(runs: Sequence[Run], quiet_s: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, name in _STAGES:
        values = [_stage(run.timeline, key, quiet_s) for run in runs if key in run.timeline]
        if values:
            found[name] = _median(values)
    return found


def _stage(timeline: Mapping[str, float], key: str, quiet_s: float) -> float:
    if key == "study.routed":
        return timeline[key] - quiet_s
    if key == "job.claimed":
        return timeline[key] - timeline["study.routed"]
    return timeline[key]


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
