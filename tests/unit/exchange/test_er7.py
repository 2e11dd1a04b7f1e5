"""HL7 v2 text: whatever is written, another library reads it back."""

from __future__ import annotations

import hl7
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange.er7 import escaped, message, segment

HEAD = segment("MSH", "A", "B", "", "", "20260101", "", ("ORU", "R01", "ORU_R01"), "1", "P", "2.5.1")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40)


@given(text=TEXT)
def test_text_survives_another_library(text: str) -> None:
    """Separators and escape characters come back as they were, in a component among others."""
    read = hl7.parse(message([HEAD, segment("PID", "1", "", (text, "end"))]).decode())
    field = read["PID"][0][3][0]

    assert read.unescape(str(field[0])) == text
    assert str(field[1]) == "end"


def test_what_would_break_a_frame_or_a_segment() -> None:
    """No control character is left, a line break becomes one of HL7's."""
    assert escaped("a\rb\nc\r\nd") == r"a\.br\b\.br\c\.br\d"
    assert escaped("a\x0bb\x1cc\x00d") == "a b c d"
