"""A page as PDF (A4), its font embedded: Latin, Greek, Cyrillic, simplified Chinese. The same page, the same bytes."""

from __future__ import annotations

import io
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from gateway.report.document.page import Page
from gateway.report.document.page import Table as Rows

rl_config.useA85 = 0  # pictures as they are: as text they are a quarter larger, and turning them into it takes longest

_FONT: Final = "HybridMedReport"
_FONT_FILE: Final = Path(__file__).resolve().parents[1] / "fonts" / "NotoSansSC-Regular.ttf"
_INSTEAD: Final = "〓"
"""The geta mark, which printers set where a character is missing."""
_MARGIN: Final = 18 * mm
_PADDING: Final = 6
"""Of a frame, by reportlab."""
_WIDTH: Final = A4[0] - 2 * _MARGIN - 2 * _PADDING
_LABEL_WIDTH: Final = 42 * mm
_HIGHEST_PICTURE: Final = 150 * mm
_SETTING: Final = threading.Lock()
"""reportlab holds fonts, and what each document uses of them, for the whole process."""
_GREY, _RED, _LINE = HexColor("#4b5563"), HexColor("#9a3412"), HexColor("#d1d5db")


def pdf_document(page: Page) -> bytes:
    """Return a page as PDF; characters that the font lacks are shown as a mark, and the page says so."""
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=page.title,
        author="HybridMed Gateway",
        lang=page.tag,
        invariant=1,
    )
    with _SETTING:
        document.build(_Setter(page.tag).story(page))
    return buffer.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    """Register the font; return the characters that it has."""
    font = TTFont(_FONT, _FONT_FILE)
    pdfmetrics.registerFont(font)
    return frozenset(font.face.charToGlyph)


class _Setter:
    """Sets the parts of one document."""

    def __init__(self, tag: str) -> None:
        self._known = _glyphs()
        self._wrap = "CJK" if tag == "zh" else None
        self._has_replaced = False

    def story(self, page: Page) -> list[Flowable]:
        """Return the parts in the order of reading."""
        parts: list[Flowable] = [
            self._text(page.title, size=18),
            self._text(page.status, size=11, color=_RED if page.is_withdrawn else None),
            Spacer(0, 2 * mm),
            self._boxed(page.warning),
            Spacer(0, 3 * mm),
            self._pairs(page.about),
            self._heading(page.conclusion_heading),
            *(self._text(each) for each in page.conclusion),
        ]
        for table in page.tables:
            parts += [self._heading(table.heading), self._table(table)]
        for picture in page.pictures:
            parts.append(KeepTogether([Spacer(0, 4 * mm), _image(picture), self._text(page.caption, color=_GREY)]))
        parts += [self._heading(page.origin_heading), self._pairs(page.origin, size=8)]
        if self._has_replaced:
            parts.append(self._text(page.replaced_note, size=8, color=_GREY))
        return parts

    def _text(self, text: str, *, size: float = 10, color: Any = None) -> Paragraph:
        style = ParagraphStyle(f"s{size}", fontName=_FONT, fontSize=size, leading=1.4 * size, wordWrap=self._wrap)
        if color is not None:
            style.textColor = color
        return Paragraph(escape(self._shown(text)), style)

    def _heading(self, text: str) -> Paragraph:
        style = ParagraphStyle("h", fontName=_FONT, fontSize=12, leading=16, spaceBefore=4 * mm, keepWithNext=True)
        return Paragraph(escape(self._shown(text)), style)

    def _boxed(self, text: str) -> Table:
        style = [("BOX", (0, 0), (-1, -1), 1.2, _RED)]
        return Table([[self._text(text, color=_RED)]], colWidths=[_WIDTH], style=TableStyle(style))

    def _pairs(self, pairs: tuple[tuple[str, str], ...], *, size: float = 10) -> Flowable:
        if not pairs:
            return Spacer(0, 0)
        cells = [
            [self._text(label, size=size, color=_GREY), self._text(value, size=size, color=None)]
            for label, value in pairs
        ]
        # Split within a row: a description or a list of series may be longer than a page.
        widths = [_LABEL_WIDTH, _WIDTH - _LABEL_WIDTH]
        return Table(cells, colWidths=widths, style=TableStyle(_PLAIN), splitInRow=1)

    def _table(self, table: Rows) -> Table:
        head = [self._text(each, color=_GREY) for each in table.columns]
        cells = [head, *([self._text(each) for each in row] for row in table.rows)]
        style = TableStyle([*_PLAIN, ("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE)])
        return Table(cells, colWidths=[_WIDTH / len(head)] * len(head), repeatRows=1, splitInRow=1, style=style)

    def _shown(self, text: str) -> str:
        kept = "".join(char if ord(char) in self._known else _INSTEAD for char in text)
        self._has_replaced |= kept != text
        return kept


_PLAIN: Final = [
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 1.5),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
]


def _image(picture: bytes) -> Image:
    made = Image(io.BytesIO(picture))
    scale = min(_WIDTH / made.imageWidth, _HIGHEST_PICTURE / made.imageHeight)
    made.drawWidth, made.drawHeight = made.imageWidth * scale, made.imageHeight * scale
    made.hAlign = "LEFT"
    return made
