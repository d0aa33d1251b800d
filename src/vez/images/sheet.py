"""A contact sheet of crops: every picture with the boxes drawn on it, its training pictures beside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from vez.config import CropName
from vez.images.crop import Cut, apply

# Told apart by people who do not see red and green (Okabe & Ito, "Color Universal Design", 2008).
COLOURS: Final[dict[CropName, str]] = {"full": "#0072b2", "upper": "#e69f00", "lower": "#009e73"}
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
WIDTH: Final = 1600  # of a sheet, in pixels
_TALL: Final = 164  # a picture's greatest height in pixels, its greatest width half as much again: two blocks a row
_GAP: Final = 8
_LINE: Final = 16
_LETTERS: Final = 12


@dataclass(frozen=True)
class Block:
    """What belongs together on a sheet: one picture and its training pictures, small, each with its label."""

    name: str
    pictures: tuple[tuple[Image.Image, str, str], ...]  # picture, label, colour of its frame

    @property
    def width(self) -> int:
        """In pixels, with the gap behind each picture."""
        return sum(picture.width + _GAP for picture, _, _ in self.pictures)

    @property
    def height(self) -> int:
        """In pixels, with its name and its labels."""
        return 2 * _LINE + max(picture.height for picture, _, _ in self.pictures)


def contact_sheet(entries: Iterable[tuple[str, Image.Image, Sequence[Cut]]], *, width: int = WIDTH) -> Image.Image:
    """A white RGB picture, ``width`` pixels wide and as tall as it takes; an entry is (name, upright picture, cuts)."""
    return arrange([block_of(*entry, width=width) for entry in entries], width=width)


def arrange(blocks: Iterable[Block], *, width: int = WIDTH) -> Image.Image:
    """A white RGB picture, ``width`` pixels wide and as tall as it takes, with blocks made for that width."""
    font = ImageFont.load_default(_LETTERS)
    placed: list[tuple[int, int, Block]] = []
    x, y, row = _GAP, _GAP, 0
    for block in blocks:
        if x > _GAP and x + block.width > width:
            x, y, row = _GAP, y + row + _GAP, 0
        placed.append((x, y, block))
        x, row = x + block.width + 2 * _GAP, max(row, block.height)
    sheet = Image.new("RGB", (width, y + row + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for x, y, block in placed:
        _write(pen, (x, y), block.name, block.width - _GAP, font, "black")
        for picture, label, colour in block.pictures:
            sheet.paste(picture, (x, y + _LINE))
            _write(pen, (x, y + _LINE + picture.height + 1), label, picture.width, font, colour)
            x += picture.width + _GAP
    return sheet


def block_of(name: str, image: Image.Image, cuts: Sequence[Cut], *, width: int = WIDTH) -> Block:
    """A picture and its training pictures as they stand on a sheet of ``width`` pixels; small copies, so that the
    picture itself need not be kept.

    Under a training picture stand its crop and size; an enlarged one says so. What is wider than the sheet is made
    smaller.
    """
    tall, most, font = _TALL, width - 2 * _GAP, ImageFont.load_default(_LETTERS)
    while True:
        original = _with_boxes(image, cuts, tall, font)
        training = [
            (_fitted(apply(image, cut), tall), f"{cut.crop} {cut.size[0]} x {cut.size[1]}{_enlarged(cut)}", cut)
            for cut in cuts
        ]
        pictures = [(original, f"{image.width} x {image.height}", "black")]
        pictures += [(picture, label, COLOURS[cut.crop]) for picture, label, cut in training]
        block = Block(name, tuple(pictures))
        if block.width <= most or tall <= _LINE:
            return block
        tall = max(_LINE, tall * most // (block.width + _GAP))


def _enlarged(cut: Cut) -> str:
    scale = max(cut.size[0] / (cut.box[2] - cut.box[0]), cut.size[1] / (cut.box[3] - cut.box[1]))
    return (f", enlarged {scale:.1f}x" if scale > 1.05 else "") + (f", by {cut.boxed}" if cut.boxed != "auto" else "")


def _with_boxes(image: Image.Image, cuts: Sequence[Cut], tall: int, font: Font) -> Image.Image:
    small = _fitted(image, tall)
    scale = small.width / image.width, small.height / image.height
    pen = ImageDraw.Draw(small)
    for nth, cut in enumerate(cuts):
        left, top, right, bottom = (round(edge * scale[i % 2]) for i, edge in enumerate(cut.box))
        # one pixel inside the other, so that boxes with a common edge can both be seen
        corners = (left + nth, top + nth, max(left + nth, right - 1 - nth), max(top + nth, bottom - 1 - nth))
        pen.rectangle(corners, outline=COLOURS[cut.crop], width=2)
        words = pen.textbbox((0, 0), cut.crop, font=font)
        at = (left + nth + 2, (top + nth + 1) if cut.crop != "lower" else max(top, bottom - _LINE - nth))
        pen.rectangle((*at, at[0] + words[2] + 3, at[1] + _LINE - 2), fill=COLOURS[cut.crop])
        pen.text((at[0] + 2, at[1]), cut.crop, fill="white", font=font)
    return small


def _fitted(image: Image.Image, tall: int) -> Image.Image:
    """``image`` as large as it may stand on the sheet, never cut; an RGB copy."""
    scale = min(tall / image.height, 1.5 * tall / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _write(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    most: int,
    font: Font,
    colour: str,
) -> None:
    """``text`` in one line, cut to ``most`` pixels."""
    line = whole = "".join(letter if letter.isprintable() else "?" for letter in text)
    kept = len(whole)
    while kept and pen.textlength(line, font=font) > most:
        kept -= 1
        line = whole[:kept] + ".."
    if kept:
        pen.text(at, line, fill=colour, font=font)
