"""OHIF as a person uses it: a study opened, a series chosen, what the viewport shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator

from tests.browser import WatchedPage
from tests.services.process import wait_until

_OPEN_MS = 300_000
SHOW_S = 300
"""Seconds after which the viewer hangs: it takes a few, and a minute where other programs keep the computer busy."""
_SERIES = '[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]'
_INSTANCE = re.compile(r"I:\s*(\d+) \(")
_CANVAS = "canvas.cornerstone-canvas"
_SHADES = 10
"""Least standard deviation of the pixels of an image."""
_GREY = 12
"""Most difference of the channels of a grey pixel."""
_OVERLAY_AREA = 0.02
"""Least share of the viewport that an overlay colours."""
_EDGE_PX = 60
"""Around the viewport's edge lie texts and the scroll bar."""

_STILL_MS, _STILL_LOOKS = 300, 4

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Box:
    """Where the viewport lies on the page, in pixels."""

    left: float
    top: float
    width: float
    height: float

    def image_to_page(self, rows: int, columns: int) -> Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]:
        """Return what maps (row, column) of an image, fitted into the middle, to (y, x) of the page."""
        scale = min(self.height / rows, self.width / columns)
        top = self.top + (self.height - scale * rows) / 2
        left = self.left + (self.width - scale * columns) / 2
        return lambda row, column: (top + (row + 0.5) * scale, left + (column + 0.5) * scale)


class Ohif:
    """The viewer on a page.

    Parameters
    ----------
    site
        Root of the gateway's HTTP.
    watched
        The page.
    """

    def __init__(self, site: str, watched: WatchedPage) -> None:
        self._site = site
        self._watched = watched
        self._page = watched.page
        self._page.set_default_timeout(_OPEN_MS)

    def open(self, path: str) -> None:
        """Go to an address of the viewer; return when it lists the series and shows an image."""
        self._page.goto(self._site + path, timeout=_OPEN_MS)
        self._page.wait_for_selector(_SERIES, timeout=_OPEN_MS)
        self.wait_for_image()

    def series(self) -> list[str]:
        """Return the texts of the series that are listed."""
        self._page.wait_for_load_state("networkidle")
        return [_one_line(text) for text in self._page.locator(_SERIES).all_inner_texts()]

    def show(self, position: int) -> None:
        """Put a series, by its position in the list, into the viewport."""
        self._page.locator(_SERIES).nth(position).dblclick()
        self._page.wait_for_load_state("networkidle")

    def scroll(self, images: int) -> None:
        """Turn the mouse wheel over the viewport, an image a click."""
        box = self.box()
        self._page.mouse.move(box.left + box.width / 2, box.top + box.height / 2)
        for _ in range(abs(images)):
            before = self.instance_number()
            self._page.mouse.wheel(0, 100 if images > 0 else -100)
            wait_until(lambda before=before: self.instance_number() != before, SHOW_S, "the next image")

    def instance_number(self) -> int:
        """Return the Instance Number that the viewport names."""
        found: list[str] = []
        wait_until(lambda: found.extend(_INSTANCE.findall(_one_line(self.text()))) or bool(found), SHOW_S, "a number")
        return int(found[0])

    def text(self) -> str:
        """Return the text in the viewport."""
        return self._pane().inner_text()

    def box(self) -> Box:
        """Return where the viewport lies."""
        return self._box_of(self._page.locator(_CANVAS).first)

    def viewport(self) -> Picture:
        """Return the pixels of the viewport, without its edge."""
        box = self._box_of(self._pane())
        whole = self._watched.picture()
        top, left = int(box.top) + _EDGE_PX, int(box.left) + _EDGE_PX
        return whole[top : int(box.top + box.height) - _EDGE_PX, left : int(box.left + box.width) - _EDGE_PX]

    def wait_for_text(self, text: str) -> None:
        """Return when the viewport says this."""
        wait_until(lambda: text in self.text(), SHOW_S, f"{text!r} in the viewport")

    def wait_for_image(self) -> None:
        """Return when the viewport shows an image, and no text alone."""
        wait_until(lambda: self._has_image() and self.viewport().std() > _SHADES, SHOW_S, "an image in the viewport")

    def wait_for_colour(self) -> None:
        """Return when something coloured is laid over the grey image."""
        wait_until(lambda: coloured(self.viewport()).mean() > _OVERLAY_AREA, SHOW_S, "an overlay")

    def wait_until_still(self) -> None:
        """Return when nothing moves any more: a text may be written before the image that it speaks of is drawn."""
        seen = [self.viewport()]

        def is_still() -> bool:
            self._page.wait_for_timeout(_STILL_MS)
            seen.append(self.viewport())
            return all(np.array_equal(each, seen[-1]) for each in seen[-_STILL_LOOKS:]) and len(seen) >= _STILL_LOOKS

        wait_until(is_still, SHOW_S, "a picture that stays")

    def _has_image(self) -> bool:
        return self._page.locator(_CANVAS).count() > 0

    def _box_of(self, what: Locator) -> Box:
        found = what.bounding_box()
        assert found is not None
        return Box(found["x"], found["y"], found["width"], found["height"])

    def _pane(self) -> Locator:
        return self._page.locator('[data-cy="viewport-pane"]').first


def coloured(picture: Picture) -> NDArray[np.bool_]:
    """Return where a picture is not grey, (Y, X)."""
    values = picture.astype(int)
    return (values.max(axis=2) - values.min(axis=2)) > _GREY


def _one_line(text: str) -> str:
    return " ".join(text.split())
