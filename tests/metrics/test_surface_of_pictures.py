"""What is read off pixels: known colours, flat and lettered pictures; the cache."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vez.errors import DataError
from vez.images.saliency import lab
from vez.metrics.artefacts import FLAT, LETTERED
from vez.metrics.surface import surface


def photo(seed: int = 0, size: int = 160) -> Image.Image:
    rough = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((size, size), Image.Resampling.NEAREST)


def test_colours_are_cielab() -> None:
    # white, mid grey, sRGB red and blue under D65 (IEC 61966-2-1 and CIE 15)
    known = {(255, 255, 255): (100, 0, 0), (119, 119, 119): (50.03, 0, 0), (255, 0, 0): (53.24, 80.09, 67.2),
             (0, 0, 255): (32.3, 79.19, -107.86)}  # fmt: skip
    for rgb, expected in known.items():
        assert lab(np.array(rgb) / 255) == pytest.approx(expected, abs=0.15)


def test_a_cast_moves_the_mean_colour_and_grey_has_no_chroma(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (119, 119, 119)).save(tmp_path / "grey.png")
    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "red.png")
    photo().save(tmp_path / "photo.png")
    found = surface([tmp_path / f"{name}.png" for name in ("grey", "red", "photo")], {})
    assert found.colour[0] == pytest.approx((50.03, 0, 0), abs=0.15) and found.chroma[0] < 0.1
    assert found.chroma[1] == pytest.approx(np.hypot(80.09, 67.2), abs=0.2)
    assert found.contrast[0] == found.contrast[1] == 0 < FLAT < found.contrast[2]


def test_blur_and_lettering_are_seen(tmp_path: Path) -> None:
    plain, soft, told = photo(), photo().filter(ImageFilter.GaussianBlur(4)), Image.new("RGB", (400, 400), "white")
    ImageDraw.Draw(told).text((20, 180), "Watermark of 1987", fill="black", font=ImageFont.load_default(size=32))
    for name, image in {"plain": plain, "soft": soft, "told": told}.items():
        image.save(tmp_path / f"{name}.png")
    found = surface([tmp_path / f"{name}.png" for name in ("plain", "soft", "told")], {})
    assert found.blur[1] > found.blur[0] + 0.1
    assert found.lettering[2] > LETTERED and found.lettering[0] <= LETTERED


def test_what_was_read_is_kept_by_content_and_read_again_where_it_is_torn(tmp_path: Path) -> None:
    cache, path = tmp_path / "cache", tmp_path / "a.png"
    photo().save(path)
    first = surface([path, path], {"v1": [path]}, cache=cache)
    (kept,) = cache.iterdir()
    assert len(first.greys) == 2 and np.array_equal(first.training["v1"][0], first.greys[0])
    kept.write_bytes(b"PK torn")
    again = surface([path], {}, cache=cache)
    assert np.array_equal(again.colour[0], first.colour[0]) and len(list(cache.iterdir())) == 1
    numbers = np.zeros(7)
    with kept.open("wb") as file:
        np.savez(file, numbers=numbers, grey=np.zeros((4, 4), dtype=np.uint8))
    assert np.array_equal(surface([path], {}, cache=cache).colour[0], numbers[:3])


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    for name in ("x.png", "none.png"):
        with pytest.raises(DataError, match="is not a picture that can be read"):
            surface([tmp_path / name], {}, cache=tmp_path / "cache")
