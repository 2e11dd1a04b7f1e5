"""Inputs sent to the server, several at a time; answers judged."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.fuzz.campaign import LIMIT_S, ROUND, Findings, Tell
from tests.fuzz.web.mutation import Attempt, attempt, encoded
from tests.fuzz.web.peer import Answer, ask, get
from tests.fuzz.web.requests import Request, seeds
from tests.fuzz.web.target import WebTarget
from tests.services.process import wait_until

PATH = "web"
_AT_ONCE = 8
_WARM_UP = 240
_MOST_THREADS = 120
"""The server's pools have their bounds; none of them grows with what is asked."""
_MOST_DECODERS = 2
"""So many processes that decode wait for more, each with what it loads once and no more."""
_MOST_DECODER_MIB = 192
_SETTLE_S = 30
_OK, _SERVER_ERROR, _NOT_IMPLEMENTED = range(200, 300), 500, 501
_MOST_LINES = 20


def run(target: WebTarget, run_seed: int, numbers: range, tell: Tell) -> Findings:
    """Send inputs, several at a time; a server that ends is the end."""
    findings = Findings()
    whole = seeds(target.known)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answer = partial(_answers, target.port)
        _warm_up(pool, answer, whole)
        before_mib = target.memory_mib()
        for start in range(numbers.start, numbers.stop, ROUND):
            part = range(start, min(start + ROUND, numbers.stop))
            attempts = [_made(run_seed, whole, number) for number in part]
            for number, one, answers in zip(part, attempts, pool.map(answer, attempts), strict=True):
                _judge(number, one, answers, findings)
            if not target.is_alive:
                findings.faults.append(f"inputs {part.start} to {part.stop - 1}: the server ended")
                return findings
            findings.weigh(PATH, target.memory_mib())
            if not tell(part.stop, findings):
                break
    _settle(target, before_mib, findings)
    return findings


def _warm_up(pool: ThreadPoolExecutor, answer: Callable[[Attempt], list[Answer]], whole: list[Request]) -> None:
    """Ask for everything once, whole and broken, so that what is loaded once is loaded."""
    chance = random.Random(0)
    sound = [Attempt("body", one.method, encoded(one, chance), is_sound=True) for one in whole]
    for _ in pool.map(answer, [*sound, *(_made(0, whole, number) for number in range(_WARM_UP))]):
        continue


def _made(run_seed: int, whole: list[Request], number: int) -> Attempt:
    return attempt(number, run_seed, whole)


def _answers(port: int, one: Attempt) -> list[Answer]:
    """Return the answer to an input, and to what is read afterwards."""
    try:
        answers = [ask(port, one.method, one.data, LIMIT_S, is_sound=one.is_sound)]
        if answers[0].status in _OK:
            answers += [ask(port, "GET", get(path), LIMIT_S) for path in one.follows]
    except OSError as error:
        return [Answer(f"unreachable: {type(error).__name__}")]
    return answers


def _judge(number: int, one: Attempt, answers: list[Answer], findings: Findings) -> None:
    findings.count(PATH, answers[0].outcome)
    for place, answer in enumerate(answers):
        about = f"input {number} ({one.kind}, {one.name}{f', then {one.follows[place - 1]}' if place else ''})"
        if answer.outcome == "hang":
            findings.faults.append(f"{about}: no answer within {LIMIT_S:g} s")
        elif answer.outcome.startswith("unreachable") or (answer.outcome == "closed" and (one.is_sound or place)):
            findings.faults.append(f"{about}: no answer, {answer.outcome}")
        elif answer.status >= _SERVER_ERROR and answer.status != _NOT_IMPLEMENTED:
            findings.faults.append(f"{about}: {answer.outcome}")
        elif not answer.has_reason:
            findings.faults.append(f"{about}: {answer.outcome} without a reason")


def _settle(target: WebTarget, before_mib: float, findings: Findings) -> None:
    """Look whether the server is as it was: memory, threads, files, log."""
    try:
        wait_until(lambda: target.half_written() == 0, _SETTLE_S, "half-written files")
    except TimeoutError:
        findings.faults.append(f"{PATH}: {target.half_written()} half-written files are left")
    if (threads := target.threads()) > _MOST_THREADS:
        findings.faults.append(f"{PATH}: {threads} threads")
    try:
        wait_until(lambda: len(target.decoders_mib()) <= _MOST_DECODERS, _SETTLE_S, "processes that decode")
    except TimeoutError:
        findings.faults.append(f"{PATH}: {len(target.decoders_mib())} processes that decode are left")
    if (largest := max(target.decoders_mib(), default=0)) > _MOST_DECODER_MIB:
        findings.faults.append(f"{PATH}: a process that decodes holds {largest:.0f} MiB")
    findings.faults += [f"{PATH}: {line[:500]}" for line in target.unforeseen()[:_MOST_LINES]]
    findings.judge_growth(PATH, before_mib, target.memory_mib())
