"""Known vulnerabilities of the packages that constraints.txt names: `make audit`, by pip-audit.

Asks the database of the Python Package Index, so it needs the internet. Exit status: 0 none is known, 1 some are, 3 the
database could not be asked, or does not know a package: then nothing, or not all, is checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NONE_KNOWN, SOME_KNOWN, NOT_CHECKED = 0, 1, 3
_ANSWER_S = 15
_LIMIT_S = 900
_FEW = 10


def main(arguments: Sequence[str]) -> int:
    """Ask about the packages of a file, constraints.txt unless another is named, and say what is known."""
    file = Path(arguments[0]) if arguments else CONSTRAINTS
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", str(_ANSWER_S)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        status, lines = NOT_CHECKED, [f"the database of vulnerabilities did not answer within {_LIMIT_S} s"]
    else:
        status, lines = judge(ended.stdout, ended.stderr)
    print("\n".join(lines))
    return status


def judge(printed: str, errors: str) -> tuple[int, list[str]]:
    """Return the exit status, and sentences, that what pip-audit printed amounts to."""
    try:
        packages: list[dict[str, Any]] = json.loads(printed)["dependencies"]
    except (ValueError, KeyError):
        last = errors.strip().splitlines()[-1:] or ["it printed nothing"]
        return NOT_CHECKED, [
            "audit: nothing was checked, for the database of vulnerabilities cannot be asked: run it where there is "
            f"internet ({last[0][:200]})"
        ]
    found = [line for package in packages for line in _told(package)]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        named = ", ".join(skipped[:_FEW]) + (" …" if len(skipped) > _FEW else "")
        found.append(
            f"audit: {len(skipped)} of {len(packages)} packages were not checked, for the database does not know them "
            f"or cannot be asked; run it where there is internet: {named}"
        )
    if any("vulns" in package and package["vulns"] for package in packages):
        return SOME_KNOWN, found
    if skipped:
        return NOT_CHECKED, found
    return NONE_KNOWN, [f"audit: no vulnerability of the {len(packages)} packages is known"]


def _told(package: dict[str, Any]) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {each['id']} {' '.join(each.get('aliases', []))}, "
        f"mended in {', '.join(each['fix_versions']) or 'no version'}"
        for each in package.get("vulns", [])
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
