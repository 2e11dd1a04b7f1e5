"""Words of our own in an object whose text is a source's: the character set that holds both (PS3.5 6.1).

An item could declare a set of its own, but dcmtk and what is built on it read names by that of the whole object.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

_UTF_8 = "ISO_IR 192"


def make_room(dataset: Dataset, texts: Sequence[str]) -> bool:
    """Let an object be written in a character set that holds these texts too; False where none can be had.

    Where the declared set has no such characters, the object turns to UTF-8. Of ASCII that changes not a byte; other
    text is decoded by the declared set and encoded anew, if it can be without a loss.
    """
    declared = dataset.get("SpecificCharacterSet")
    if all(_can_encode(text, declared) for text in texts):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            dataset.decode()
        except (UserWarning, UnicodeError, LookupError):
            return False
    dataset.SpecificCharacterSet = _UTF_8
    return True


def in_ascii(text: str) -> str:
    """Return text with a question mark for each character that ASCII lacks."""
    return text.encode("ascii", "replace").decode("ascii")


def _can_encode(text: str, declared: object) -> bool:
    """Say whether the declared set has all characters; of several sets together only ASCII is taken for granted."""
    encoding = python_encoding.get(declared, "ascii") if isinstance(declared, str) and declared else "ascii"
    try:
        text.encode(encoding)
    except UnicodeError:
        return False
    return True
