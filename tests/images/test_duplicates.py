from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from images.drawn import recompressed, scenery, texture
from vez.images import duplicates
from vez.images.duplicates import Copy, candidates, copies, look, look_from_row, look_to_row


def found(*images: Image.Image) -> list[Copy]:
    return copies([look(image) for image in images], most_bits=0.12, least_correlation=0.97)


def scene(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """Soft noise with a few shapes on it, in colour."""
    random = np.random.default_rng(seed)
    image = scenery(seed, 240).resize((width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(0, width), random.integers(0, height)
        size = random.integers(15, 60, 2)
        colour = tuple(random.integers(0, 256, 3).tolist())
        draw.ellipse((x, y, x + int(size[0]), y + int(size[1])), fill=colour)
    return image


def cartoon(seed: int) -> Image.Image:
    """A figure of random limbs, all in one red, on the white that all of them share."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((96, 70, 160, 190), fill="red", outline="black", width=3)
    for x in (100, 156):
        dx, dy = random.integers(-60, 61, 2).tolist()
        draw.line((x, 110, x + dx, 110 + dy), fill="black", width=12)
        draw.line((x, 180, x + random.integers(-50, 51), 235), fill="black", width=12)
    return image


@pytest.mark.parametrize(
    "change",
    [
        lambda image: recompressed(image, 40),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.resize((150, 112)),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        ImageOps.mirror,
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_whole_copy_is_found_by_its_hash(change: Callable[[Image.Image], Image.Image], seed: int) -> None:
    image = scene(seed)
    (copy,) = found(image, change(image))
    assert copy.whole and copy.mirrored == (change is ImageOps.mirror)


@given(
    seed=st.integers(0, 9),
    width=st.floats(0.76, 1),
    height=st.floats(0.76, 1),
    left=st.floats(0, 1),
    top=st.floats(0, 1),
    mirror=st.booleans(),
    size=st.floats(0.6, 1.4),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_of_three_quarters_is_found_wherever_it_lies(
    seed: int, width: float, height: float, left: float, top: float, mirror: bool, size: float
) -> None:
    image = scene(seed)
    w, h = width * image.width, height * image.height
    x, y = left * (image.width - w), top * (image.height - h)
    part = image.crop((int(x), int(y), int(x + w), int(y + h)))
    part = part.resize((round(part.width * size), round(part.height * size)), Image.Resampling.LANCZOS)
    part = recompressed(ImageOps.mirror(part) if mirror else part, 75)
    assert [(c.earlier, c.later, c.mirrored) for c in found(image, part)] == [(0, 1, mirror)]


def test_a_crop_with_everything_else_done_to_it_is_found() -> None:
    for seed in range(12):
        image = scene(seed)
        part = ImageOps.mirror(image.crop((30, 0, 240, 160))).resize((160, 122), Image.Resampling.LANCZOS)
        assert len(found(image, recompressed(ImageEnhance.Brightness(part).enhance(0.9), 40))) == 1, seed


@pytest.mark.parametrize("make", [scene, scenery, cartoon, lambda seed: texture(seed)])
def test_strangers_are_no_copies(make: Callable[[int], Image.Image]) -> None:
    assert found(*(make(seed) for seed in range(12))) == []


def test_flat_pictures_resemble_nothing() -> None:
    assert found(*(Image.new("RGB", (100, 80), colour) for colour in ("white", "black", "grey")), scene(0)) == []


def test_one_picture_or_none_has_no_copies() -> None:
    assert found() == [] and found(scene(0)) == []


def many(number: int) -> Sequence[duplicates.Look]:
    return [look(scene(seed, *((120, 90), (96, 96), (90, 120))[seed % 3])) for seed in range(number)]


def test_among_many_pictures_cropped_copies_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [scene(seed) for seed in range(60)]
    for seed in range(0, 60, 6):
        pictures.append(ImageOps.mirror(pictures[seed].crop((48, 0, 240, 150))))
    looks = [look(picture) for picture in pictures]
    wanted = [(seed, 60 + seed // 6) for seed in range(0, 60, 6)]
    monkeypatch.setattr(duplicates, "_MOST_PAIRWISE", 10)  # so that candidates are chosen
    monkeypatch.setattr(duplicates, "_PARTNERS", 5)
    chosen = copies(looks, most_bits=0.12, least_correlation=0.97)
    assert [(c.earlier, c.later) for c in chosen] == wanted


def test_candidates_are_the_nearest_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(600, 20)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T - 2 * np.eye(600)
    expected = {tuple(sorted((i, j))) for i in range(600) for j in np.argsort(-likeness[i])[:4].tolist()}
    assert {tuple(pair) for pair in candidates(rows, 4).tolist()} == expected
    assert len(candidates(rows[:3], 16)) == 3  # fewer pictures than partners


def test_blocks_do_not_change_what_the_hash_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [*many(20), *many(20)]
    whole = copies(looks, most_bits=0.12, least_correlation=1.0)
    monkeypatch.setattr(duplicates, "_ROWS", 7)
    assert copies(looks, most_bits=0.12, least_correlation=1.0) == whole
    assert [(c.earlier, c.later, c.value) for c in whole] == [(i, i + 20, 0.0) for i in range(20)]


def test_a_look_survives_a_file() -> None:
    one = look(scene(1))
    assert look_from_row(look_to_row(one)) == one
    with pytest.raises(ValueError, match="lengths"):
        look_from_row(look_to_row(one) | {"grey_width": 7})
