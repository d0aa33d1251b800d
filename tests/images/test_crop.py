import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from images.photographs import needs_photographs, photographs
from vez.config import CropName
from vez.errors import DataError
from vez.images import buckets
from vez.images.crop import Box, Cut, apply, apply_to_mask, crop, crop_box, largest, overlap, plan_cuts
from vez.images.saliency import interest

ALL: tuple[CropName, ...] = ("full", "upper", "lower")
SIDES = st.integers(1, 2000)
SHAPES = st.one_of(
    st.sampled_from([buckets.shapes(kind, size) for kind in ("square", "kohya", "sdxl") for size in (64, 128, 512)]),
    st.lists(st.tuples(st.integers(8, 300), st.integers(8, 300)), min_size=1, max_size=6),
)


def scene(width: int, height: int, at: tuple[int, int], size: int = 60) -> Image.Image:
    """A smooth background with a patterned, coloured thing on it."""
    y, x = np.mgrid[0:height, 0:width]
    grey = (110 + 40 * np.sin(x / 90) + 20 * np.cos(y / 70)).astype(np.uint8)
    image = Image.fromarray(np.stack([grey] * 3, axis=2))
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    thing = Image.fromarray(values).resize((size, size), Image.Resampling.NEAREST)
    image.paste(thing, (at[0] - size // 2, at[1] - size // 2))
    return image


def standing(width: int = 600, height: int = 800) -> tuple[Image.Image, Image.Image, Box]:
    """A figure on a plain ground: the picture, its mask, and its face. Crown at y = 100, soles at 700."""
    image, mask = Image.new("RGB", (width, height), (190, 200, 205)), Image.new("L", (width, height))
    x = width // 2
    face = (x - 30, 140, x + 30, 200)
    parts = [((x - 40, 100, x + 40, 205), "#5a3a22"), (face, "#e8b990"), ((x - 90, 205, x + 90, 430), "#a01030")]
    parts += [((x - 80, 430, x - 10, 700), "#203070"), ((x + 10, 430, x + 80, 700), "#203070")]
    for box, colour in parts:
        ImageDraw.Draw(image).ellipse(box, fill=colour)
        ImageDraw.Draw(mask).ellipse(box, fill=255)
    return image, mask, face


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Noise of a few coarse fields, so that one place draws the eye more than another."""
    values = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def inside(box: Box, size: tuple[int, int]) -> bool:
    return 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def has_aspect(box: Box, shape: tuple[int, int]) -> bool:
    """The aspect ratio of ``shape``, but for the rounding of either side to whole pixels."""
    width, height = box[2] - box[0], box[3] - box[1]
    return abs(width * shape[1] - height * shape[0]) <= 0.51 * sum(shape) or min(width, height) == 1


@pytest.mark.parametrize("place", [40, 150, 300, 450, 560])
@pytest.mark.parametrize("upright", [False, True])
def test_the_box_holds_the_subject(place: int, upright: bool) -> None:
    image = scene(200, 600, (100, place)) if upright else scene(600, 200, (place, 100))
    left, top, right, bottom = crop_box(image)
    start, end = (top, bottom) if upright else (left, right)
    assert start <= max(0, place - 30) and end >= min(600, place + 30)


@settings(max_examples=60, deadline=None)
@given(width=SIDES, height=SIDES, shapes=SHAPES, seed=st.integers(0, 3))
def test_every_box_lies_inside_has_its_shape_and_comes_out_in_its_size(
    width: int, height: int, shapes: list[tuple[int, int]], seed: int
) -> None:
    image = noise(width, height, seed)
    cuts = plan_cuts(image, shapes=shapes, crops=ALL)
    assert cuts[0].crop == "full" and [cut.crop for cut in cuts] == [
        name for name in ALL if name in {c.crop for c in cuts}
    ]
    for cut in cuts:
        assert inside(cut.box, image.size) and cut.size in shapes and has_aspect(cut.box, cut.size)
        assert apply(image, cut).size == cut.size
        assert cut.boxed == "auto"
    assert cuts[0].size == buckets.nearest(shapes, width, height)
    assert (cuts[0].box[2] - cuts[0].box[0], cuts[0].box[3] - cuts[0].box[1]) == largest(cuts[0].size, image.size)
    for cut in cuts[1:]:  # extras are never enlarged
        assert cut.box[2] - cut.box[0] >= cut.size[0] and cut.box[3] - cut.box[1] >= cut.size[1]
    assert all(overlap(a.box, b.box) <= 0.7 for i, a in enumerate(cuts) for b in cuts[:i])


def is_mirrored(box: Box, other: Box, width: int) -> bool:
    turned = (width - other[2], other[1], width - other[0], other[3])
    return all(abs(a - b) <= 1 for a, b in zip(box, turned, strict=True))


@settings(max_examples=60, deadline=None)
@given(width=SIDES, height=SIDES, shapes=SHAPES, seed=st.integers(0, 50))
def test_a_mirrored_picture_has_the_mirrored_box(
    width: int, height: int, shapes: list[tuple[int, int]], seed: int
) -> None:
    image = noise(width, height, seed)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    box, other = (plan_cuts(picture, shapes=shapes, crops=["full"])[0].box for picture in (image, mirrored))
    assert is_mirrored(box, other, width)


def test_the_parts_of_a_mirrored_picture_are_mirrored() -> None:
    image = standing()[0].crop((100, 0, 600, 800))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cuts, others = (plan_cuts(picture, shapes=[(128, 128)], crops=ALL) for picture in (image, mirrored))
    assert [cut.crop for cut in cuts] == [cut.crop for cut in others] == list(ALL)
    assert all(is_mirrored(cut.box, other.box, 500) for cut, other in zip(cuts, others, strict=True))


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), shapes=SHAPES)
def test_a_training_picture_is_cut_no_further(width: int, height: int, shapes: list[tuple[int, int]]) -> None:
    image = noise(width, height, 1)
    once = apply(image, plan_cuts(image, shapes=shapes, crops=["full"])[0])
    again = plan_cuts(once, shapes=shapes, crops=["full"])[0]
    assert again.box == (0, 0, *once.size)
    assert has_aspect(again.box, again.size) and (
        again.size != once.size or apply(once, again).tobytes() == once.tobytes()
    )


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_a_flat_picture_is_cut_in_its_middle_or_a_little_above(size: tuple[int, int]) -> None:
    left, top, right, bottom = crop_box(Image.new("RGB", size, "grey"))
    assert abs((left + right) / 2 - size[0] / 2) <= 2 and 0 <= size[1] / 2 - (top + bottom) / 2 <= size[1] / 20


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 3), (1, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert crop(Image.new("RGB", size, "red"), 64).size == (64, 64)
    for cut in plan_cuts(Image.new("RGB", size, "red"), shapes=buckets.shapes("sdxl", 1024), crops=ALL):
        assert inside(cut.box, size)


def test_the_same_picture_is_cut_the_same() -> None:
    image = scene(500, 200, (400, 90))
    assert crop_box(image) == crop_box(image.copy())
    assert crop(image, 64).tobytes() == crop(image.copy(), 64).tobytes()


@pytest.mark.parametrize("kind", ["square", "kohya"])
@pytest.mark.parametrize("given_mask", [False, True])
def test_upper_shows_the_head_and_lower_the_legs(kind: str, given_mask: bool) -> None:
    image, mask, face = standing()
    shapes = buckets.shapes(kind, 128)  # type: ignore[arg-type]
    cuts = plan_cuts(image, shapes=shapes, crops=ALL, subject=mask if given_mask else None)
    full, upper, lower = cuts
    assert [cut.crop for cut in cuts] == list(ALL) and {cut.boxed for cut in cuts} == {"auto"}
    assert upper.box[1] <= 110 and upper.box[3] < 600 and upper.box[0] < face[0] and upper.box[2] > face[2]
    assert lower.box[1] > face[3] and lower.box[3] >= 690
    assert full.box[1] <= 100 and full.box[3] >= 690


def test_a_face_decides_the_upper_and_the_lower_crop() -> None:
    image, _, face = standing()
    full, upper, lower = plan_cuts(image, shapes=[(64, 64)], crops=ALL, faces=[face, (0, 0, 9, 9), (-90, -90, -1, -1)])
    tall = face[3] - face[1]
    assert upper.boxed == lower.boxed == "face"
    assert upper.box[1] < face[1] - tall // 4 and 3 * tall < upper.box[3] - upper.box[1] < 5 * tall
    assert abs((upper.box[0] + upper.box[2]) / 2 - 300) <= 1 and abs((lower.box[0] + lower.box[2]) / 2 - 300) <= 1
    assert lower.box[1] > face[3] + tall and lower.box[3] > 650
    assert full.boxed == "face"


def test_the_full_crop_keeps_the_faces_even_where_something_else_draws_the_eye() -> None:
    image = scene(900, 300, (800, 150))
    assert plan_cuts(image, shapes=[(64, 64)], crops=["full"])[0].box[0] > 300
    kept = plan_cuts(image, shapes=[(64, 64)], crops=["full"], faces=[(40, 100, 100, 160)])[0]
    assert kept.box[0] <= 40 and kept.boxed == "face"
    both = plan_cuts(image, shapes=[(64, 64)], crops=["full"], faces=[(10, 9, 99, 99), (800, 9, 890, 99)])[0]
    assert both.boxed == "auto"  # faces too far apart for one box decide nothing


def test_a_portrait_has_no_lower_crop_by_its_face() -> None:
    image, _, _ = standing()
    portrait, face = image.crop((150, 60, 450, 360)), (120, 80, 180, 140)
    assert [cut.crop for cut in plan_cuts(portrait, shapes=[(64, 64)], crops=ALL, faces=[face])] == ["full", "upper"]


@pytest.mark.parametrize(("resolution", "made"), [(128, list(ALL)), (400, ["full"]), (900, ["full"])])
def test_upper_and_lower_are_left_out_where_they_would_be_enlarged_or_alike(resolution: int, made: list[str]) -> None:
    image = standing(450, 800)[0].crop((0, 80, 450, 530))
    cuts = plan_cuts(image, shapes=[(resolution, resolution)], crops=ALL)
    assert [cut.crop for cut in cuts] == made


def test_the_crops_come_in_the_order_asked_for_and_no_others() -> None:
    image = standing()[0]
    assert [c.crop for c in plan_cuts(image, shapes=[(64, 64)], crops=["lower", "full"])] == ["lower", "full"]
    assert [c.crop for c in plan_cuts(image, shapes=[(64, 64)], crops=["upper"])] == ["upper"]
    assert plan_cuts(image, shapes=[(64, 64)], crops=["full"], by_hand={"upper": (0, 0, 9, 9)})[0].crop == "full"


def test_a_mask_says_where_the_subject_is() -> None:
    image = scene(600, 200, (500, 100))
    mask = Image.new("L", image.size)
    mask.paste(255, (60, 40, 120, 160))
    box = plan_cuts(image, shapes=[(64, 64)], crops=["full"], subject=mask)[0].box
    assert box[0] <= 60 and box[2] >= 120
    black = plan_cuts(image, shapes=[(64, 64)], crops=["full"], subject=Image.new("L", image.size))[0].box
    assert black == plan_cuts(image, shapes=[(64, 64)], crops=["full"])[0].box


@settings(max_examples=100, deadline=None)
@given(data=st.data(), width=st.integers(2, 900), height=st.integers(2, 900), shapes=SHAPES)
def test_a_box_by_hand_is_used_as_it_is_where_it_fits_and_moved_least_where_not(
    data: st.DataObject, width: int, height: int, shapes: list[tuple[int, int]]
) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    image = Image.new("RGB", (width, height), "grey")
    cut = plan_cuts(image, shapes=shapes, crops=["upper"], by_hand={"upper": box})[0]
    wide, high = box[2] - box[0], box[3] - box[1]
    shape = buckets.nearest(shapes, wide, high)
    assert cut.boxed == "hand" and cut.size == shape and inside(cut.box, image.size)
    if abs(math.log(wide * shape[1] / (high * shape[0]))) <= math.log(1.03) - 1e-9:
        assert cut.box == box
        return
    assert has_aspect(cut.box, shape)
    holds = cut.box[0] <= box[0] and cut.box[1] <= box[1] and cut.box[2] >= box[2] and cut.box[3] >= box[3]
    assert holds or (cut.box[2] - cut.box[0], cut.box[3] - cut.box[1]) == largest(shape, image.size)
    for edge, most in ((0, width), (1, height)):  # centred on the person's box, but for the picture's borders
        off = abs(cut.box[edge] + cut.box[edge + 2] - box[edge] - box[edge + 2])
        assert off <= 2 or cut.box[edge] == 0 or cut.box[edge + 2] == most


@pytest.mark.parametrize("box", [(0, 0, 301, 100), (-1, 0, 100, 100), (50, 0, 50, 100), (0, 90, 100, 20)])
def test_a_box_by_hand_outside_the_picture_is_a_sentence(box: Box) -> None:
    with pytest.raises(
        DataError, match=r"upper box \[.*\] of anna.jpg in boxes.toml does not lie inside its 300 × 200"
    ):
        plan_cuts(
            Image.new("RGB", (300, 200)), shapes=[(64, 64)], crops=["full"], by_hand={"upper": box}, file="anna.jpg"
        )


def test_the_same_box_is_cut_from_the_mask() -> None:
    image, mask, _ = standing()
    cut = Cut("upper", (200, 90, 400, 290), "hand", (100, 100))
    made, masked = np.asarray(apply(image, cut), dtype=float), np.asarray(apply_to_mask(mask, cut))
    assert masked.shape == (100, 100) and masked.dtype == np.uint8
    ground = np.abs(made - (190, 200, 205)).max(axis=2) < 12
    assert ((masked < 128) == ground).mean() > 0.98


def test_a_mask_of_hard_edges_does_not_ring() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(200, (20, 20, 40, 40))
    grown = np.asarray(apply_to_mask(mask, Cut("full", (0, 0, 64, 64), "auto", (512, 512))))
    assert grown.max() == 200 and grown[:100].max() == 0


def test_the_quick_way_down_is_lanczos_to_the_eye() -> None:
    image = noise(2400, 2400, 3)
    pixels = np.asarray(image).astype(int) + np.random.default_rng(0).integers(-40, 40, (2400, 2400, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    cut = Cut("full", (0, 0, 2400, 2400), "auto", (256, 256))
    exact = image.resize((256, 256), Image.Resampling.LANCZOS)
    off = np.asarray(apply(image, cut)).astype(float) - np.asarray(exact)
    assert np.sqrt((off**2).mean()) < 1.5


def test_interest_is_a_distribution_and_mirrors() -> None:
    image = scene(1501, 901, (1200, 270))
    found = interest(image)
    assert found.shape == (96, 160) and found.min() >= 0 and found.sum() == pytest.approx(1)
    mirrored = interest(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert np.abs(mirrored[:, ::-1] - found).max() < 1e-9
    assert np.ptp(interest(Image.new("RGB", (64, 64), "red"))) == pytest.approx(0)


# Where the subject is, read off by eye, in tenths of the picture: left, top, right, bottom.
SUBJECTS = {
    "cat/00.jpg": (0.2, 1.8, 9.5, 9.5), "cat/01.jpg": (2.5, 0.5, 7.2, 9.7), "cat/02.jpg": (0.5, 0.8, 5.5, 9.3),
    "cat/03.jpg": (3, 0.5, 8, 9.5), "cat/04.jpg": (2.2, 0.5, 7.5, 10), "dog5/00.jpg": (2.2, 3.7, 8.5, 7.5),
    "dog5/01.jpg": (2.7, 5, 6.5, 8.5), "dog5/02.jpg": (1.2, 2.2, 6.8, 6.2), "dog5/04.jpg": (2.5, 1.5, 7.5, 7.5),
    "red_cartoon/00.jpg": (2.7, 2.5, 7.3, 9.3), "red_cartoon/03.jpg": (1.8, 3, 8.2, 9),
    "teapot/00.jpg": (2.2, 1, 8.8, 7), "teapot/01.jpg": (2.7, 4.3, 6.5, 6.7), "teapot/02.jpg": (0.5, 1.7, 6, 7.5),
    "teapot/03.jpg": (3.8, 4.8, 6.3, 6.5), "teapot/04.jpg": (2, 3.5, 6.2, 6.8),
}  # fmt: skip


@needs_photographs
def test_the_subjects_of_real_photographs_stay_in_the_picture() -> None:
    """The photographs are square: of each, strips of a third, half and two thirds, the subject anywhere in them."""
    kept = []
    for name, subject in SUBJECTS.items():
        image = photographs()[name].resize((300, 300))
        for share in (100, 150, 200):
            for start in np.linspace(0, 300 - share, 5).round().astype(int):
                for axis in (0, 1):
                    strip = [0, 0, 300, 300]
                    strip[axis], strip[axis + 2] = start, start + share
                    seen = [max(strip[i], 30 * subject[i]) - strip[i % 2] for i in (0, 1)]
                    seen += [min(strip[i], 30 * subject[i]) - strip[i % 2] for i in (2, 3)]
                    whole = (subject[2] - subject[0]) * (subject[3] - subject[1]) * 900
                    if min(seen[2] - seen[0], seen[3] - seen[1]) <= 0 or (
                        (seen[2] - seen[0]) * (seen[3] - seen[1]) < whole / 2
                    ):
                        continue
                    box = crop_box(image.crop(strip))
                    a, b = (1, 3) if axis == 0 else (0, 2)
                    got = min(box[b], seen[b]) - max(box[a], seen[a])
                    kept.append(max(0, got) / min(box[b] - box[a], seen[b] - seen[a]))
    # without the colours along the border 0.92
    assert len(kept) > 200 and np.mean(kept) > 0.945 and np.mean(np.array(kept) < 0.6) < 0.03


def test_the_places_tried_are_dense_enough() -> None:
    """A small thing far along a very wide picture is not stepped over."""
    starts = [crop_box(scene(4000, 200, (x, 100)))[0] for x in range(600, 3600, 500)]
    assert all(b > a for a, b in pairwise(starts))
