"""Pictures for people: the source image in grey with segments or heat maps in colour, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from gateway.report.source import SourceSeries, read_source
from inference.findings import Algorithm, Findings, HeatMap, Segment, SourceFrame

WARNING = "NOT FOR DIAGNOSIS"
_PERCENTILES = (0.5, 99.5)
_FILL = 0.25
"""Opacity of a segment's area."""
_HEAT = 0.55
"""Opacity of a heat map at weight 1."""
_LONGEST_PX = 1024
_MONTAGE = 9
_COLUMNS = 3
_HEAT_STOPS = np.array([[0, 0, 96], [0, 96, 255], [0, 224, 128], [255, 224, 0], [224, 0, 0]], dtype=np.float32)

Rgb = NDArray[np.uint8]
"""(Y, X, 3) uint8."""


def render_pictures(outcome: Findings, sources: Sequence[Path]) -> Mapping[str, bytes]:
    """Return PNG pictures by name: 'overlay' where there are segments or findings, 'heatmap-<class>' per heat map.

    The overlay of a volume is a montage of planes spread over the segments' extent.

    Raises
    ------
    NotFoundError
        The evaluated series is not among `sources`.
    """
    source = read_source(sources, outcome.series_instance_uid)
    tiles = [_overlay(source, outcome, plane) for plane in _shown_planes(outcome)]
    names = ", ".join(segment.label for segment in outcome.segments)
    pictures = {"overlay": _png(labelled(_montage(tiles), outcome.algorithm, names))}
    for kind, heat_map in heat_map_kinds(outcome.heat_maps):
        blended = fit(blend_heat(grey_plane(source, heat_map.frame), heat_map.weight), _LONGEST_PX)
        pictures[kind] = _png(labelled(blended, outcome.algorithm, f"Grad-CAM: {heat_map.class_name}"))
    return pictures


def heat_map_kinds(heat_maps: Sequence[HeatMap]) -> list[tuple[str, HeatMap]]:
    """Return each heat map with its kind, 'heatmap-<class>'; equal classes of several levels get the level too."""
    kinds: dict[str, HeatMap] = {}
    for heat_map in heat_maps:
        kind = f"heatmap-{heat_map.class_name}"
        if kind in kinds:
            kind = f"heatmap-{heat_map.level}-{heat_map.class_name}"
        position = 2
        stem = kind
        while kind in kinds:
            kind = f"{stem}-{position}"
            position += 1
        kinds[kind] = heat_map
    return list(kinds.items())


def grey_plane(source: SourceSeries, frame: SourceFrame) -> NDArray[np.uint8]:
    """Return one source plane as shown on a screen.

    Returns
    -------
    (Y, X) uint8, black to white; windowed by the image's own window or, without one, over its percentiles. Kept with
    the source: a heat map and two pictures show the same plane.
    """
    if frame not in source.shown:
        source.shown[frame] = _grey_plane(source, frame)
    return source.shown[frame]


def _grey_plane(source: SourceSeries, frame: SourceFrame) -> NDArray[np.uint8]:
    dataset = pydicom.dcmread(source.paths[source.header(frame).SOPInstanceUID])
    index = (frame.frame_number or 1) - 1 if int(dataset.get("NumberOfFrames") or 1) > 1 else 0
    pixels = pixel_array(dataset, index=index)
    if pixels.ndim == 3:  # noqa: PLR2004 - a colour image: (Y, X, 3)
        mean: NDArray[np.uint8] = pixels.astype(np.float32).mean(axis=-1).astype(np.uint8)  # (Y, X)
        return mean
    values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)  # (Y, X)
    low, high = _window(dataset, values)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 1.0 - grey
    levels: NDArray[np.uint8] = (grey * 255.0 + 0.5).astype(np.uint8)  # (Y, X)
    return levels


def blend_heat(grey: NDArray[np.uint8], weight: NDArray[np.float32]) -> Rgb:
    """Return the image with a heat map over it.

    Parameters
    ----------
    grey
        (Y, X) uint8.
    weight
        (Y, X) float32, 0..1; its square root sets the opacity, its value the colour, blue to red.
    """
    w = np.clip(np.nan_to_num(weight.astype(np.float32)), 0.0, 1.0)  # (Y, X)
    blended: Rgb = _heat_table()[(w * 255).astype(np.uint8), grey]  # (Y, X, 3)
    return blended


@cache
def _heat_table() -> NDArray[np.uint8]:
    """Return (256, 256, 3) uint8: the colour of each weight over each grey."""
    w = np.linspace(0.0, 1.0, 256, dtype=np.float32)
    levels = np.linspace(0.0, 1.0, len(_HEAT_STOPS))
    color = np.stack([np.interp(w, levels, _HEAT_STOPS[:, c]) for c in range(3)], axis=-1)  # (256, 3)
    opacity = (_HEAT * np.sqrt(w))[:, np.newaxis, np.newaxis]  # (256, 1, 1)
    grey = np.arange(256, dtype=np.float32)[np.newaxis, :, np.newaxis]  # (1, 256, 1)
    table: NDArray[np.uint8] = (grey * (1.0 - opacity) + color[:, np.newaxis] * opacity).astype(np.uint8)
    return table


def fit(rgb: Rgb, longest_px: int) -> Rgb:
    """Return the image with its longest side between half of `longest_px` and `longest_px`."""
    longest = max(rgb.shape[:2])
    if longest > longest_px:
        scale = longest_px / longest
    elif longest < longest_px // 2:
        scale = (longest_px // 2) / longest
    else:
        return rgb
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def labelled(rgb: Rgb, algorithm: Algorithm, caption: str) -> Rgb:
    """Return the image with the warning, the algorithm and a caption burned in, white on black bands."""
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    warning = f"{WARNING} - {algorithm.name} {algorithm.version}"
    for text, is_at_bottom in ((warning, False), (caption, True)):
        font = _fitting_font(draw, text, image.width)
        band = int(draw.textbbox((0, 0), text, font=font)[3] + 8)
        top = image.height - band if is_at_bottom else 0
        draw.rectangle((0, top, image.width, top + band), fill=(0, 0, 0))
        draw.text((6, top + 3), text, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def _window(dataset: Dataset, values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the grey limits: the first linear window (PS3.3 C.11.2.1.2), else percentiles."""
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is not None and width is not None and width > 1:
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)


def _first(value: object) -> float | None:
    if isinstance(value, MultiValue):
        value = value[0] if len(value) else None
    return float(value) if isinstance(value, int | float) else None


def _shown_planes(outcome: Findings) -> list[int]:
    """Return the planes of the montage, evenly over the planes that hold segments."""
    held = np.zeros(len(outcome.frames), dtype=bool)  # (Z,)
    for segment in outcome.segments:
        held |= segment.mask.any(axis=(1, 2))
    planes = np.flatnonzero(held) if held.any() else np.arange(len(outcome.frames))
    count = min(_MONTAGE, len(planes))
    return [int(planes[k]) for k in np.linspace(0, len(planes) - 1, count).round().astype(int)]


def _overlay(source: SourceSeries, outcome: Findings, plane: int) -> Rgb:
    grey = grey_plane(source, outcome.frames[plane])
    rgb = np.repeat(grey[..., np.newaxis], 3, axis=-1).astype(np.float32)  # (Y, X, 3)
    thickness = max(1, max(grey.shape) // 400)
    for segment in outcome.segments:
        mask = segment.mask[plane]  # (Y, X)
        color = _color(segment)
        rgb[mask] = rgb[mask] * (1.0 - _FILL) + color * _FILL
        rgb[_contour(mask, thickness)] = color
    return fit(rgb.astype(np.uint8), _LONGEST_PX)


def _color(segment: Segment) -> NDArray[np.float32]:
    """Return the display colour as (3,) float32 RGB, 0..255."""
    return np.asarray(hd.color.CIELabColor(*segment.color_lab).to_rgb(clip=True), dtype=np.float32)


def _contour(mask: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Return the inner rim of a (Y, X) mask, `thickness` pixels wide."""
    inner = np.pad(mask, 1)
    for _ in range(thickness):
        inner[1:-1, 1:-1] = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return mask & ~inner[1:-1, 1:-1]


def _montage(tiles: Sequence[Rgb]) -> Rgb:
    """Return equal tiles in rows of three; a single one as it is."""
    if len(tiles) == 1:
        return tiles[0]
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.zeros((rows * height, min(_COLUMNS, len(tiles)) * width, 3), dtype=np.uint8)
    for position, tile in enumerate(tiles):
        y, x = position // _COLUMNS * height, position % _COLUMNS * width
        sheet[y : y + height, x : x + width] = tile
    return fit(sheet, 2 * _LONGEST_PX)


def _png(rgb: Rgb) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", compress_level=1)  # the result waits for it
    return buffer.getvalue()


def _fitting_font(draw: ImageDraw.ImageDraw, text: str, width_px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the largest font, at most a 32nd of the width, in which the text fits."""
    size = max(10, width_px // 32)
    font = ImageFont.load_default(size)
    while size > 6 and draw.textlength(text, font=font) > width_px - 12:  # noqa: PLR2004 - legible at all
        size -= 1
        font = ImageFont.load_default(size)
    return font
