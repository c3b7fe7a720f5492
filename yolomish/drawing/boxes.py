"""Boxes and labels that can be read on any picture, from 20 px to thousands."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from yolomish.files import replace_file
from yolomish.types import GREY, Batch, Detections

SMALLEST_TEXT = 8  # px a letter is high; below it cannot be read
SYSTEM_FONTS = (  # with Chinese, Japanese and Korean: Linux, macOS, Windows
    *("NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc"),
    *("Arial Unicode.ttf", "PingFang.ttc", "AppleSDGothicNeo.ttc"),
    *("msyh.ttc", "YuGothM.ttc", "malgun.ttf"),
)
Colour = tuple[int, int, int]


class _Label(NamedTuple):
    """Where a label's text stands in image px, at a font size."""

    text: str
    size: int
    left: int
    top: int
    width: int
    height: int

    def covers(self, other: _Label) -> bool:
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height
            and other.top < self.top + self.height
        )


def class_colour(label: int) -> Colour:
    """A stable RGB colour of a class; neighbouring labels lie far apart on the hue circle (golden ratio)."""
    value = (0.95, 0.75)[label // 13 % 2]  # hues come close again after thirteen
    r, g, b = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85, value)
    return int(r * 255), int(g * 255), int(b * 255)


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str], *, line_width: int = 0
) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with boxes (N, 4) xyxy in its px, each with its text, if any, on a filled label.

    Later ones lie on top. ``line_width`` is in px, 0: by the picture's size. A label stands above its box, inside or
    below, where the picture has room and no other label stands; where there is no such place, it is shortened or left out,
    the topmost last.
    """
    canvas = np.ascontiguousarray(image.copy())
    h, w = canvas.shape[:2]
    thickness = line_width or max(1, round((h + w) / 450))
    text_size = max(SMALLEST_TEXT + 2, round((h + w) / 110))
    corners = [_inside(box, w, h) for box in boxes]
    placed: list[_Label | None] = []
    for (x0, y0, _, y1), text in reversed(list(zip(corners, texts, strict=True))):  # the topmost chooses first
        placed.append(_place(text, text_size, (x0, y0, y1), (w, h), [p for p in placed if p]))
    for (x0, y0, x1, y1), label in zip(corners, labels, strict=True):
        if min(h, w) >= 100:  # an edge in the ink's colour, so that the line shows on its own colour too
            cv2.rectangle(canvas, (x0, y0), (x1, y1), _ink(class_colour(label)), thickness + 2)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), class_colour(label), thickness)
    for place, label in zip(reversed(placed), labels, strict=True):
        if place:
            _write(canvas, place, class_colour(label))
    return canvas


def draw_detections(image: np.ndarray, detections: Detections, names: Sequence[str], *, line_width: int = 0) -> np.ndarray:
    """A copy of ``image`` (H, W, 3) uint8 RGB with detections in its px; the best is drawn last, on top."""
    labels = detections.labels.tolist()[::-1]
    texts = [f"{names[k]} {s:.2f}" for k, s in zip(labels, detections.scores.tolist()[::-1], strict=True)]
    return draw_boxes(image, detections.boxes.numpy()[::-1], labels, texts, line_width=line_width)


def _inside(box: np.ndarray, w: int, h: int) -> tuple[int, int, int, int]:
    """The box's outermost pixels."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    return min(max(x0, 0), w - 1), min(max(y0, 0), h - 1), min(max(x1 - 1, 0), w - 1), min(max(y1 - 1, 0), h - 1)


def _ink(colour: Colour) -> Colour:
    return (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 120 else (255, 255, 255)


def _place(text: str, size: int, box: tuple[int, int, int], room: tuple[int, int], others: Sequence[_Label]) -> _Label | None:
    (x0, y0, y1), (w, h) = box, room
    choices: list[_Label] = []
    for shorter, font_size in ((text, size), (text.rsplit(" ", 1)[0], size), (text.rsplit(" ", 1)[0], SMALLEST_TEXT)):
        if not shorter:
            continue
        height, width = _text_mask(shorter, font_size).shape
        if width > w or height > h // 2:
            continue
        left = min(x0, w - width)
        tops = [top for top in (y0 - height, y0, y1 + 1) if 0 <= top <= h - height] or [min(y0, h - height)]
        choices += [_Label(shorter, font_size, left, top, width, height) for top in tops]
    return next((c for c in choices if not any(c.covers(o) for o in others)), None)


def _write(canvas: np.ndarray, place: _Label, colour: Colour) -> None:
    mask = _text_mask(place.text, place.size)[..., None]
    text = (np.array(colour) * (1 - mask) + np.array(_ink(colour)) * mask).astype(np.uint8)
    canvas[place.top : place.top + place.height, place.left : place.left + place.width] = text


@lru_cache(maxsize=512)
def _text_mask(text: str, size: int) -> np.ndarray:
    """How much of each pixel of a label (height, width) is ink, float32 0..1, with a margin around the text."""
    margin = max(1, size // 6)
    text = "".join(letter if letter.isprintable() else " " for letter in text[:200])  # a line break cannot be laid out
    runs = [(font, "".join(letters)) for font, letters in groupby(text, lambda letter: _font_with(letter, size))]
    metrics = [font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (size, size // 4) for font, _ in runs]
    ascent, descent = (max(column) for column in zip(*metrics, strict=True)) if metrics else (size, size // 4)
    width = round(sum(font.getlength(run) for font, run in runs))
    picture = Image.new("L", (max(1, width) + 2 * margin, ascent + descent + margin), 0)
    pen, x = ImageDraw.Draw(picture), float(margin)
    for (font, run), (own_ascent, _) in zip(runs, metrics, strict=True):
        pen.text((x, margin // 2 + ascent - own_ascent), run, fill=255, font=font)
        x += font.getlength(run)
    mask: np.ndarray = np.asarray(picture, dtype=np.float32) / 255
    return mask


@lru_cache(maxsize=4096)
def _font_with(letter: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The first font here that has ``letter``: DejaVu Sans, which comes with matplotlib and has most alphabets, else one of
    the system's; where none has it, the first."""
    first = None
    for name in (_own_font(), *SYSTEM_FONTS):
        font = _font(name, size)
        # what a font lacks, it draws as it draws the character that does not exist
        if font and (letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))):
            return font
        first = first or font
    return first or ImageFont.load_default()


@lru_cache
def _own_font() -> str:
    spec = find_spec("matplotlib")  # its fonts, without the second that importing it takes
    return str(Path(spec.origin or "").parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans-Bold.ttf") if spec else ""


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)  # looks through the system's folders for a bare name
    except OSError:
        return None


def draw_batch(batch: Batch, names: Sequence[str], path: Path, *, most: int = 16) -> None:
    """Write the first ``most`` images of a training batch in a square grid with their boxes and names, as a picture."""
    drawn = []
    for i, image in enumerate(batch.images[:most].permute(0, 2, 3, 1).cpu().numpy()):
        targets = batch.targets[batch.targets[:, 0] == i]
        labels = targets[:, 1].int().tolist()
        # a copy: never draw on the batch itself, it is trained on next
        drawn.append(draw_boxes(image, targets[:, 2:].numpy(), labels, [names[label] for label in labels]))
    save_sheet(drawn, path)


def save_sheet(images: Sequence[np.ndarray], path: Path) -> None:
    """Write images (H, W, 3) uint8 RGB of one size in a square grid as a picture."""
    side = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / side)
    height, width = images[0].shape[:2]
    sheet = np.full((rows * height, side * width, 3), GREY, np.uint8)
    for i, image in enumerate(images):
        top, left = i // side * height, i % side * width
        sheet[top : top + height, left : left + width] = image
    replace_file(path, lambda temporary: cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)))
