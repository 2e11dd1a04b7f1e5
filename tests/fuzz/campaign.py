"""The same inputs to both paths, compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.errors import CannotUnderstandError
from gateway.header import read_part10
from tests.fuzz.corpus import Seed
from tests.fuzz.mutation import Attempt, attempt, store_request
from tests.fuzz.peer import PATIENCE_S, attack
from tests.fuzz.target import Target
from tests.services.process import wait_until

LIMIT_S = 20.0
"""Of one input, on a busy machine."""
_LONG_PATIENCE_S = 5.0
_AT_ONCE = 16
ROUND = 200
"""Inputs between two looks at the clock, and two reports."""
GROWTH_MIB = 64
"""By which a process may grow, however many inputs it is sent."""
_SETTLE_S = 30
_MOST_LINES = 20
_LOADED = 5
"""Rounds."""


@dataclass
class Findings:
    """What came of a campaign."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """Path -> how many inputs ended how."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""
    grown_mib: dict[str, float] = field(default_factory=dict)
    accepted: dict[str, set[str]] = field(default_factory=dict)
    """Path -> digests of data sets that were answered with success."""
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    """Path -> the memory of the process after each round."""

    def count(self, path: str, outcome: str) -> None:
        """Count an input."""
        self.outcomes.setdefault(path, Counter())[outcome] += 1

    def weigh(self, path: str, memory_mib: float) -> None:
        """Keep the memory of a process after a round."""
        self.memory_mib.setdefault(path, []).append(round(memory_mib, 1))

    def judge_growth(self, path: str, before_mib: float, after_mib: float) -> None:
        """Note by how much a process grew, and that it must not; what a long run's first rounds load is no growth."""
        rounds = self.memory_mib.get(path, [])
        grown = after_mib - (rounds[_LOADED] if len(rounds) > 2 * _LOADED else before_mib)
        self.grown_mib[path] = round(grown, 1)
        if grown > GROWTH_MIB:
            self.faults.append(f"{path} path: memory grew by {grown:.0f} MiB")


Tell = Callable[[int, Findings], bool]
"""Hears after each round the number of the next input and what was found; says whether to go on."""


def run(targets: Sequence[Target], seeds: Sequence[Seed], run_seed: int, numbers: range, tell: Tell) -> Findings:
    """Send inputs to all targets, several at a time; a receiver that ends is the end."""
    findings = Findings()
    _warm_up(targets, seeds)
    before = {target.path: (target.memory_mib(), target.threads()) for target in targets}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(numbers.start, numbers.stop, ROUND):
            part = range(start, min(start + ROUND, numbers.stop))
            attempts = [attempt(number, run_seed, seeds) for number in part]
            for number, one, answers in zip(
                part, attempts, pool.map(partial(_answers, targets), attempts), strict=True
            ):
                _judge(number, one, answers, findings)
            if not all(target.is_alive for target in targets):
                findings.faults.append(f"inputs {part.start} to {part.stop - 1}: a receiver ended")
                return findings
            for target in targets:
                findings.weigh(target.path, target.memory_mib())
            if not tell(part.stop, findings):
                break
    for target in targets:
        _settle(target, *before[target.path], findings)
    return findings


def _answers(targets: Sequence[Target], one: Attempt) -> dict[str, str]:
    """Return what each path makes of an input; where they differ it may be our haste, so they are asked again."""
    answers: dict[str, str] = {}
    for patience_s in (PATIENCE_S, _LONG_PATIENCE_S):
        try:
            answers = {target.path: attack(target.port, one, LIMIT_S, patience_s) for target in targets}
        except OSError as error:
            return {target.path: f"unreachable: {type(error).__name__}" for target in targets}
        if one.kind == "service" or not _disagree(answers):
            break
    return answers


def _judge(number: int, one: Attempt, answers: dict[str, str], findings: Findings) -> None:
    for path, answer in answers.items():
        findings.count(path, answer if one.kind != "service" else f"{one.service} {answer}")
        if answer == "status 0000" and one.kept_digest is not None:
            findings.accepted.setdefault(path, set()).add(one.kept_digest)
        if answer == "hang":
            findings.faults.append(f"input {number} ({one.kind}): no end within {LIMIT_S:g} s, {path} path")
    if one.kind != "service" and _disagree(answers):  # what a service says depends on what it was asked before
        findings.faults.append(f"input {number} ({one.kind}): {answers}")


def _warm_up(targets: Sequence[Target], seeds: Sequence[Seed]) -> None:
    """Send a whole data set, which requests ask for, and a few broken ones, so that what is loaded once is loaded."""
    whole = Attempt("data set", seeds[0], store_request(seeds[0]), seeds[0].data, 16384)
    for target in targets:
        attack(target.port, whole, LIMIT_S)
        for number in range(8):
            attack(target.port, attempt(number, 0, seeds[:3]), LIMIT_S)


def _disagree(answers: dict[str, str]) -> bool:
    """Say whether the paths differ in what they make of an instance.

    An end without an answer agrees with everything: where a whole C-STORE is followed by rubbish, it is chance whether
    the instance is answered before the rubbish is read.
    """
    return len({answer for answer in answers.values() if answer.startswith("status")}) > 1


def _settle(target: Target, memory_mib: float, threads: int, findings: Findings) -> None:
    """Look whether a receiver is as it was: memory, threads, files."""
    try:
        wait_until(lambda: target.threads() <= threads, _SETTLE_S, "threads")
    except TimeoutError:
        findings.faults.append(f"{target.path} path: {target.threads()} threads, {threads} before")
    try:
        wait_until(lambda: target.half_written() == 0, _SETTLE_S, "half-written files")
    except TimeoutError:
        findings.faults.append(f"{target.path} path: {target.half_written()} half-written files are left")
    _compare(target, findings)
    findings.faults += [f"{target.path} path: {line[:500]}" for line in target.unforeseen()[:_MOST_LINES]]
    findings.judge_growth(target.path, memory_mib, target.memory_mib())


def _compare(target: Target, findings: Findings) -> None:
    """Look whether what was answered with success is in the index, and what is there lies on disk as it was sent."""
    try:
        wait_until(lambda: target.spooled() == 0, _SETTLE_S, "everything in the index")
    except TimeoutError:
        findings.faults.append(f"{target.path} path: {target.spooled()} files wait for the index")
    kept = target.kept()
    lost = findings.accepted.get(target.path, set()) - kept.keys()
    damaged = [digest for digest, file in kept.items() if _digest(file) != digest]
    for digests, what in (
        (sorted(lost), "answered with success and not in the index"),
        (damaged, "not on disk as it was sent"),
    ):
        findings.faults += [f"{target.path} path: data set {digest} {what}" for digest in digests[:_MOST_LINES]]


def _digest(file: Path) -> str:
    """Return the digest of a kept data set; '' where it cannot be read."""
    try:
        with file.open("rb") as stream:
            part10 = read_part10(stream)
            stream.seek(part10.data_set_offset)
            return hashlib.sha256(part10.transfer_syntax_uid.encode() + stream.read()).hexdigest()
    except (OSError, CannotUnderstandError):
        return ""
