"""Text of data sets to `str` (PS3.5 chapter 6.1): single and multi-byte sets, with and without code extensions.

Bytes that do not belong to the declared set become U+FFFD: a wrong character set is no reason to lose an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

_ESCAPE = 0x1B
_FRAGMENTS = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
_RESETTING = re.compile(rb"[\\^=\r\n\t\f]")  # PS3.5 6.1.2.5.3: the first set is active again behind these
_LONG_ESCAPES = (b"\x1b$(", b"\x1b$)")
_DEFAULT = "iso8859"


def _plain(term: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", term.upper())


_UNDECLARED = _plain("")


@cache
def _codecs() -> Mapping[str, str]:
    from pydicom.charset import python_encoding  # noqa: PLC0415 # half a second, which `studies list` need not wait for

    return {_plain(term): codec for term, codec in python_encoding.items()}


@cache
def _codecs_of_escapes() -> Mapping[bytes, str]:
    from pydicom.charset import CODES_TO_ENCODINGS  # noqa: PLC0415 # the same

    return CODES_TO_ENCODINGS


def codecs_of(specific_character_set: bytes) -> tuple[str, ...]:
    """Return codecs for the values of Specific Character Set (0008,0005), the likes of 'ISO IR 100' included."""
    terms = [_plain(term) for term in specific_character_set.decode("ascii", "replace").split("\\")]
    known = tuple(_codecs().get(term, _DEFAULT) for term in terms)
    return () if terms == [_UNDECLARED] else known


def decode_text(value: bytes, codecs: tuple[str, ...]) -> str:
    """Decode a value; where no character set is declared, UTF-8 is tried before Latin-1."""
    if _ESCAPE not in value:
        if codecs:
            return value.decode(codecs[0], "replace")
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode(_DEFAULT)
    first = codecs[0] if codecs else _DEFAULT
    return "".join(_decode_fragment(fragment, first) for fragment in _FRAGMENTS.findall(value))


def _decode_fragment(fragment: bytes, first: str) -> str:
    if fragment[0] != _ESCAPE:
        return fragment.decode(first, "replace")
    length = 4 if fragment.startswith(_LONG_ESCAPES) else 3
    codec = _codecs_of_escapes().get(fragment[:length])
    if codec is None:
        return fragment[length:].decode(first, "replace")
    if codec.startswith("iso2022"):  # these codecs of Python want the escape sequence
        return fragment.decode(codec, "replace")
    text = fragment[length:]
    reset = _RESETTING.search(text)
    end = reset.start() if reset is not None else len(text)
    return text[:end].decode(codec, "replace") + text[end:].decode(first, "replace")
