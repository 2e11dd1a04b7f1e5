"""Broken input over real connections, a few hundred of it: the short form of `python -m tests.fuzz`."""

from contextlib import ExitStack
from pathlib import Path

from tests.fuzz import campaign, corpus, target

_INPUTS = 240


def test_broken_input_ends_in_an_answer_or_an_abort_over_both_paths(tmp_path: Path) -> None:
    """Data sets, commands, PDUs and requests for associations: no crash, no hang, no growth, one verdict of both."""
    with ExitStack() as stack:
        targets = [stack.enter_context(target.running(tmp_path / path, path)) for path in ("fast", "stock")]
        findings = campaign.run(targets, corpus.seeds(None), 7, range(_INPUTS), lambda _next, _findings: True)

    assert findings.faults == []
    for outcomes in findings.outcomes.values():
        assert sum(outcomes.values()) == _INPUTS
        assert outcomes["status 0000"] > 0
        assert outcomes["status C000"] > 0
        assert outcomes["aborted"] > 0
