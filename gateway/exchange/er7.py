r"""HL7 v2 in its usual encoding, ER7 (HL7 v2.5.1 chapter 2.5 to 2.7): fields -> a message.

Written here in full: the libraries that build messages take text such as `\T\` for an escape sequence that is there
already, and send other words than they were given. The tests read every message with two of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final, TypeAlias

Component: TypeAlias = str
Value: TypeAlias = str | tuple[Component, ...] | list[tuple[Component, ...]]
"""Text; a tuple of components; a list of repetitions."""
_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_SEPARATORS: Final = "^~\\&"
_LONGEST = 32_000
"""Characters of one text: more than any receiver shows, and less than 64 KiB in UTF-8 and escaped, mostly."""


def escaped(text: str) -> str:
    r"""Return text as it stands in a field: separators escaped, no control characters, line breaks as `\.br\`."""
    lines = text[:_LONGEST].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\\.br\\".join(_printable(line).translate(_ESCAPES) for line in lines)


def segment(name: str, *fields: Value) -> str:
    """Return a segment; MSH begins with the separators, which count as its first two fields (2.14.9)."""
    values = [_field(field) for field in fields]
    head = f"MSH|{_SEPARATORS}" if name == "MSH" else name
    return "|".join([head, *values]).rstrip("|")


def message(segments: Sequence[str]) -> bytes:
    """Return a message in UTF-8: each segment ends with a carriage return."""
    return "".join(f"{each}\r" for each in segments).encode()


def _field(value: Value) -> str:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, tuple):
        return "^".join(map(escaped, value)).rstrip("^")
    return "~".join(_field(each) for each in value)


def _printable(line: str) -> str:
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cs"} else char for char in line)
