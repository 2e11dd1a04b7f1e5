"""multipart/related in pieces of any size, whole and broken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.web.dicomweb.multipart import (
    HEADER_LIMIT,
    MultipartError,
    MultipartReader,
    PartBegins,
    PartData,
    PartEnds,
    parse_media_type,
)

Parts = list[tuple[dict[str, str], bytes]]
_BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r\n", b"--", b"BB", b"\r\n--B", b"-", b"\r", b"x"]), max_size=12).map(b"".join),
).filter(lambda one: b"\r\n--BB" not in b"\r\n" + one)


def read(pieces: list[bytes], part_limit: int = 100) -> tuple[Parts, bool]:
    """Feed pieces; give the parts and whether the message is complete."""
    reader = MultipartReader(b"BB", part_limit)
    whole: Parts = []
    for piece in pieces:
        for event in reader.feed(piece):
            match event:
                case PartBegins():
                    whole.append((dict(event.headers), b""))
                case PartData():
                    whole[-1] = (whole[-1][0], whole[-1][1] + event.data)
                case PartEnds():
                    assert whole
    return whole, reader.is_complete


def cut(message: bytes, places: list[int]) -> list[bytes]:
    """Cut a message at places."""
    bounds = sorted({0, len(message), *(place % (len(message) + 1) for place in places)})
    return [message[start:end] for start, end in pairwise(bounds)]


@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(_BODIES, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=40),
    padding=st.sampled_from([b"", b" ", b"\t \t"]),
    has_header=st.booleans(),
)
def test_parts_come_whole_however_they_are_cut(
    bodies: list[bytes], places: list[int], padding: bytes, has_header: bool
) -> None:
    """Whatever the pieces, padding, and line ends and dashes in the bodies: the parts are what was sent."""
    header = b"Content-Type: application/dicom\r\n" if has_header else b""
    message = b"preamble\r\n"
    message += b"".join(b"--BB" + padding + b"\r\n" + header + b"\r\n" + one + b"\r\n" for one in bodies)
    message += b"--BB--\r\nepilogue"

    found, is_complete = read(cut(message, places))

    assert is_complete
    assert [one for _, one in found] == bodies
    assert all(headers == ({"content-type": "application/dicom"} if has_header else {}) for headers, _ in found)


@settings(max_examples=60, deadline=None)
@given(garbage=st.binary(max_size=3000), places=st.lists(st.integers(0, 10_000), max_size=10))
def test_garbage_is_refused_or_incomplete(garbage: bytes, places: list[int]) -> None:
    """No bytes raise anything else, nor make a complete message without a closing boundary."""
    try:
        _, is_complete = read(cut(garbage, places))
    except MultipartError:
        return
    assert not is_complete or b"--BB--" in garbage


@settings(max_examples=60, deadline=None)
@given(places=st.lists(st.integers(0, 20_000), max_size=10))
def test_a_giant_header_is_refused(places: list[int]) -> None:
    """A part's header beyond the bound ends it, however it is cut."""
    message = b"--BB\r\nX: " + b"a" * (HEADER_LIMIT + 10) + b"\r\n\r\n\r\n--BB--"
    with pytest.raises(MultipartError, match="header of part 1 is longer"):
        read(cut(message, places))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"x" * 5000, "boundary does not come"),
        (b"--BBx\r\n\r\n", "neither a line end"),
        (b"--BB" + b" " * 300, "neither a line end"),
        (b"--BB\r\nno colon\r\n\r\n", "name: value"),
        (b"--BB\r\nA: b\r\n folded\r\n\r\n", "name: value"),
        (b"--BB\r\n\r\n\r\n" * 6 + b"--BB--", "more than 5 parts"),
    ],
)
def test_what_breaks_the_rules_is_refused_with_a_sentence(message: bytes, reason: str) -> None:
    """Each breach has its own sentence."""
    with pytest.raises(MultipartError, match=reason):
        read([message], part_limit=5)


def test_memory_holds_no_more_than_the_last_piece() -> None:
    """What was given out is not kept."""
    reader = MultipartReader(b"BB")
    list(reader.feed(b"--BB\r\n\r\n"))
    for _ in range(50):
        given_out = sum(len(event.data) for event in reader.feed(bytes(1 << 16)) if isinstance(event, PartData))
        assert given_out >= (1 << 16) - 6

    assert len(reader._held) < 16


@pytest.mark.parametrize("boundary", [b"", b"a" * 201, b"a\r\n", b"ends in space ", "ä".encode()])
def test_a_boundary_outside_the_standard_is_refused(boundary: bytes) -> None:
    """Neither empty nor endless, and of the characters of RFC 2046 5.1.1."""
    with pytest.raises(MultipartError):
        MultipartReader(boundary)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'multipart/related; type="application/dicom"; boundary="a b"',
            ("multipart/related", "application/dicom", "a b"),
        ),
        ("Multipart/Related;TYPE=application/dicom;Boundary=x", ("multipart/related", "application/dicom", "x")),
        ("", ("text/plain", None, None)),
        ("a\r\nb: c", ("text/plain", None, None)),
    ],
)
def test_media_types_are_read_with_and_without_quotes(text: str, expected: tuple[str, str | None, str | None]) -> None:
    """Names in any case; what is none is no error here."""
    media_type, parameters = parse_media_type(text)

    assert (media_type, parameters.get("type"), parameters.get("boundary")) == expected
