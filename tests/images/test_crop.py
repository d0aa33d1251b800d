import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vez.images.crop import crop, crop_box


def scene(width: int, height: int, at: tuple[int, int], size: int = 60) -> Image.Image:
    """A smooth background with a patterned, coloured thing on it."""
    y, x = np.mgrid[0:height, 0:width]
    grey = (110 + 40 * np.sin(x / 90) + 20 * np.cos(y / 70)).astype(np.uint8)
    image = Image.fromarray(np.stack([grey] * 3, axis=2))
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    thing = Image.fromarray(values).resize((size, size), Image.Resampling.NEAREST)
    image.paste(thing, (at[0] - size // 2, at[1] - size // 2))
    return image


@pytest.mark.parametrize("place", [40, 150, 300, 450, 560])
@pytest.mark.parametrize("upright", [False, True])
def test_the_box_holds_the_subject(place: int, upright: bool) -> None:
    image = scene(200, 600, (100, place)) if upright else scene(600, 200, (place, 100))
    left, top, right, bottom = crop_box(image)
    start, end = (top, bottom) if upright else (left, right)
    assert start <= max(0, place - 30) and end >= min(600, place + 30)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 3))
def test_the_box_is_the_largest_square_inside(width: int, height: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top, right, bottom = crop_box(Image.fromarray(values))
    assert right - left == bottom - top == min(width, height)
    assert left >= 0 and top >= 0 and right <= width and bottom <= height


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_a_flat_picture_is_cut_in_its_middle(size: tuple[int, int]) -> None:
    box = crop_box(Image.new("RGB", size, "grey"))
    assert abs((box[0] + box[2]) / 2 - size[0] / 2) <= 2 and abs((box[1] + box[3]) / 2 - size[1] / 2) <= 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 3), (1, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert crop(Image.new("RGB", size, "red"), 64).size == (64, 64)


def test_the_same_picture_is_cut_the_same() -> None:
    image = scene(500, 200, (400, 90))
    assert crop_box(image) == crop_box(image.copy())
    assert crop(image, 64).tobytes() == crop(image.copy(), 64).tobytes()
