"""Break inputs and send them to a receiver over both paths; exit code 1 where one was not borne."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.fuzz import campaign, corpus, target

_TELL_EVERY = 1000


def main() -> int:
    """Run, print the outcomes as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=1, help="the same seed breaks the same way")
    parser.add_argument("--first", type=int, default=0, help="number of the first input, to repeat one")
    parser.add_argument("--odd", type=Path, help="a folder of odd files to begin with, such as that of pydicom-data")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, ExitStack() as stack:
        targets = [stack.enter_context(target.running(Path(folder) / path, path)) for path in ("fast", "stock")]
        numbers = range(arguments.first, arguments.first + arguments.count)
        findings = campaign.run(targets, corpus.seeds(arguments.odd), arguments.seed, numbers, _tell)
    said = {
        "seed": arguments.seed,
        "inputs": arguments.count,
        "took_s": round(time.monotonic() - began, 1),
        "outcomes": {path: dict(sorted(counts.items())) for path, counts in findings.outcomes.items()},
        "grown_mib": findings.grown_mib,
        "faults": findings.faults,
    }
    print(json.dumps(said, indent=2))
    return 1 if findings.faults else 0


def _tell(done: int) -> None:
    if done % _TELL_EVERY == 0:
        print(f"{done} inputs", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
