"""A job's state as a procedure step state, and what the events of a workitem say (pure).

A procedure step never goes back (PS3.4 figure CC.1.1-1), a job does: one whose worker or performer fell silent, and a
dead one that an operator queues again, waits anew. Subscribers are then told SCHEDULED, which is the truth: somebody
may claim it. (PS3.4 CC.2.1.3 lets the SCP change the state where it finds the performer disabled.)
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any

from gateway.job import Priority, State

GLOBAL = "1.2.840.10008.5.1.4.34.5"
"""Well-known UID of the global subscription (PS3.4 CC.2.3.1)."""
FILTERED = "1.2.840.10008.5.1.4.34.5.1"
"""Well-known UID of the filtered global subscription (PS3.4 CC.2.3.3.1)."""
READY = "READY"
"""Input Readiness State of every workitem: a job is made once its study is complete."""
_REASON_LENGTH = 1024

Content = Mapping[str, Any]
"""DICOM JSON model (PS3.18 annex F)."""


class StepState(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class EventType(IntEnum):
    """Event Type ID (PS3.4 table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


_STEPS: Mapping[State, StepState] = {
    State.QUEUED: StepState.SCHEDULED,
    State.RUNNING: StepState.IN_PROGRESS,
    State.DONE: StepState.COMPLETED,
    State.DEAD: StepState.CANCELED,
    State.CANCELLED: StepState.CANCELED,
}
_PRIORITIES: Mapping[Priority, str] = {"stat": "HIGH", "routine": "MEDIUM"}


def step_state(state: State) -> StepState:
    """Return a job's state as that of its procedure step."""
    return _STEPS[state]


def job_states(state: str) -> tuple[State, ...]:
    """Return the states of jobs whose procedure step is in this state; none for an unknown one."""
    return tuple(job for job, step in _STEPS.items() if step == state)


def step_priority(priority: Priority) -> str:
    """Return a job's priority as Scheduled Procedure Step Priority (0074,1200)."""
    return _PRIORITIES[priority]


def job_priorities(priority: str) -> tuple[Priority, ...]:
    """Return the priorities of jobs that are shown as this one; none for LOW, which no job has."""
    return tuple(job for job, step in _PRIORITIES.items() if step == priority)


def state_report(state: State, reason: str | None) -> Content:
    """Return the event information of a UPS State Report (Event Type ID 1)."""
    step = step_state(state)
    report: dict[str, Any] = {
        "00404041": {"vr": "CS", "Value": [READY]},
        "00741000": {"vr": "CS", "Value": [step.value]},
    }
    if step is StepState.CANCELED and reason:
        report["00741238"] = {"vr": "LT", "Value": [reason[:_REASON_LENGTH]]}
    return report


def scp_restarted() -> Content:
    """Return the event information of an SCP Status Change (Event Type ID 4) after a restart that forgot nothing."""
    return {
        "00741242": {"vr": "CS", "Value": ["RESTARTED"]},
        "00741244": {"vr": "CS", "Value": ["WARM START"]},
        "00741246": {"vr": "CS", "Value": ["WARM START"]},
    }
