"""Person names (PS3.5 6.2.1) folded for matching: case, accents, widths and padding make no difference."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 512
"""Characters of a folded name that are kept: PostgreSQL's index takes 2704 bytes, and a character may have four."""
_ACCENTS = re.compile("[\u0300-\u036f]")
_SPACES = re.compile(r"\s+")
WORD_STARTS = "=^ -"
"""What stands before a word in a folded name."""


def folded(name: str) -> str:
    """Return '=doe^jane=王^小东=' for 'Doe^Jane^^=王^小东'; '' for an empty name.

    Each component group stands between two '=', so that a pattern finds it wherever it is.
    """
    groups = [fold_group(group) for group in name.split("=")]
    while groups and not groups[-1]:
        groups.pop()
    return f"={'='.join(groups)}"[: LONGEST - 1] + "=" if groups else ""


def fold_group(group: str) -> str:
    """Return a component group in lower case without accents, padding and empty components at its end."""
    spread = unicodedata.normalize("NFKD", group.casefold())
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", spread)).casefold()
    return "^".join(_SPACES.sub(" ", part).strip() for part in plain.split("^")).rstrip("^")
