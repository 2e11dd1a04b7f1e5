"""The papers of `deploy/`: their fenced blocks, and which page is which other in Chinese."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.deployment import DEPLOY

_FENCE = re.compile(r"^```(?P<tag>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_CHINESE = ".zh"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    tag: str
    """What stands behind the fence: `sh`, `sh systemd`, `toml`."""
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line that is a command; comments are none."""
        return [words for line in self.text.splitlines() if (words := shlex.split(line, comments=True))]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return all papers."""
    return sorted(DEPLOY.glob("*.md"))


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, match.start()) + 1, match["tag"].strip(), match["text"])
        for match in _FENCE.finditer(text)
    ]


def in_chinese(page: Path) -> Path:
    """Return where a page stands in Chinese, whether or not it does."""
    return page.with_name(f"{page.stem}{_CHINESE}{page.suffix}")


def translated() -> Iterator[tuple[Path, Path]]:
    """Yield each page that stands in both languages, English first."""
    for page in pages():
        if not page.stem.endswith(_CHINESE) and in_chinese(page).exists():
            yield page, in_chinese(page)
