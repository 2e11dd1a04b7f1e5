"""A Containerfile, read into its stages and instructions."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

_CONTINUED = re.compile(r"\\\n")
_COMMENT = re.compile(r"^\s*#.*\n?", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `RUN`, and what stands behind it."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as words: of a JSON list, or as a shell splits it."""
        return [str(word) for word in json.loads(self.rest)] if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(slots=True)
class Stage:
    """What stands between two `FROM`."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction | None:
        """Return the last instruction of a name."""
        return next((one for one in reversed(self.instructions) if one.name == name), None)


def read_stages(path: Path) -> dict[str, Stage]:
    """Return the stages by name, in their order; an `ARG` before the first `FROM` is put into the bases."""
    text = _CONTINUED.sub("", _COMMENT.sub("", path.read_text(encoding="utf-8")))
    defaults: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage_name = rest.partition(" AS ")
            current = Stage(stage_name, _VARIABLE.sub(lambda found: defaults[found[1]], base))
            stages[stage_name] = current
        elif current is None:
            key, _, value = rest.partition("=")
            defaults[key] = value
        else:
            current.instructions.append(Instruction(name, rest.strip()))
    return stages
