import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from images.drawn import scenery, texture
from images.photographs import needs_photographs, photographs
from vez.images.lettering import lettering

TEXTS = ("A traditional costume", "www.example.com", "Copyright 2019 John Smith", "SALE 50% OFF TODAY", "Do not copy")


def captioned(image: Image.Image, number: int, share: float) -> Image.Image:
    """The picture with a line of white letters, outlined in black, ``share`` of its height tall."""
    image = image.copy()
    size = round(share * image.height)
    place = (image.width * 0.05, image.height * (0.85 if number % 2 else 0.05))
    font = ImageFont.load_default(size)
    outline = max(1, size // 14)
    draw = ImageDraw.Draw(image)
    draw.text(place, TEXTS[number % 5], font=font, stroke_width=outline, stroke_fill="black")
    return image


@pytest.mark.parametrize("share", [0.04, 0.06, 0.08])
def test_captions_are_found(share: float) -> None:
    pictures = [scenery(seed, 500) for seed in range(10)]
    assert max(lettering(image) for image in pictures) < 0.0015
    assert sum(lettering(captioned(image, i, share)) > 0.0015 for i, image in enumerate(pictures)) >= 8


def test_the_share_is_that_of_the_rows() -> None:
    image = Image.new("RGB", (600, 400), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(40)
    draw.text((50, 100), "Mill by the river", font=font, fill="black")
    left, top, right, bottom = draw.textbbox((50, 100), "Mill by the river", font=font)
    assert lettering(image) == pytest.approx((right - left) * (bottom - top) / (600 * 400), rel=0.3)


def test_windows_dots_and_bars_are_no_letters() -> None:
    image = Image.new("RGB", (600, 400), "tan")
    draw = ImageDraw.Draw(image)
    for x in range(20, 560, 40):
        draw.rectangle((x, 50, x + 20, 80), fill="navy")
        draw.rectangle((x, 120, x + 20, 150), outline="navy", width=4)
        draw.ellipse((x, 200, x + 22, 222), fill="red")
        draw.line((x, 260, x, 300), fill="black", width=5)
    assert lettering(image) == 0
    assert lettering(texture(width=500, height=400)) == 0


def test_an_empty_or_tiny_picture_has_no_letters() -> None:
    assert lettering(Image.new("RGB", (300, 200))) == 0 and lettering(Image.new("RGB", (1, 1))) == 0


@needs_photographs
def test_captions_on_photographs_are_found_and_photographs_pass() -> None:
    hits = []
    for number, image in enumerate(photographs().values()):
        assert lettering(image) < 0.0015
        hits.append(lettering(captioned(image, number, 0.06)) > 0.0015)
    assert np.mean(hits) >= 0.85
