import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images.photographs import needs_photographs, photographs
from images.test_crop import ALL, SIDES, inside, noise, scene, standing
from vez.images import buckets
from vez.images.crop import Box, Cut, overlap, plan_cuts
from vez.images.elsewhere import KEPT, elsewhere


def shown(mask: Image.Image, box: Box) -> float:
    return float(np.asarray(mask.crop(box), dtype=float).sum())


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES, st.integers(0, 9), st.sampled_from(["square", "kohya", "sdxl"]), st.integers(1, 8))
def test_other_places_lie_inside_have_the_size_and_are_different(
    width: int, height: int, seed: int, kind: str, count: int
) -> None:
    image = noise(width, height, seed)
    for cut in plan_cuts(image, shapes=buckets.shapes(kind, 64), crops=ALL):
        places = elsewhere(image, cut, count=count, seed="s")
        assert len({cut.box, *places}) == len(places) + 1 <= count + 1
        assert places == sorted(places, key=lambda box: box[1::-1])
        for box in places:
            assert inside(box, image.size)
            assert (box[2] - box[0], box[3] - box[1]) == (cut.box[2] - cut.box[0], cut.box[3] - cut.box[1])
        assert places == elsewhere(image, cut, count=count, seed="s")


@pytest.mark.parametrize("across", [True, False])
def test_a_crop_of_the_whole_moves_along_the_surplus_about_the_subject(across: bool) -> None:
    image = scene(1200, 400, (600, 200)) if across else scene(400, 1200, (200, 500))
    cut = plan_cuts(image, shapes=[(64, 64)], crops=["full"])[0]
    places = elsewhere(image, cut, count=3, seed="s")
    axis = 0 if across else 1
    assert len(places) == 3 and all(box[1 - axis] == 0 for box in places)
    assert max(abs(box[axis] - cut.box[axis]) for box in places) >= 40, "they are really elsewhere"
    assert elsewhere(image, cut, count=3, seed="another") != places


def test_of_the_subject_nine_tenths_stay() -> None:
    image, mask, _ = standing(1000, 800)
    cut = plan_cuts(image, shapes=[(64, 128)], crops=["full"], subject=mask)[0]
    places = elsewhere(image, cut, count=32, seed="s", subject=mask)
    assert places
    least = min(shown(mask, box) for box in places) / shown(mask, cut.box)
    assert KEPT - 0.01 <= least < 1, "as far as that, and no further"


def test_no_face_loses_what_the_chosen_crop_shows() -> None:
    image, mask, face = standing(1000, 800)
    cut = plan_cuts(image, shapes=[(64, 128)], crops=["full"], subject=mask)[0]
    aside = (cut.box[0] + 4, 100, cut.box[0] + 64, 160)
    free, held = (elsewhere(image, cut, count=32, seed="s", subject=mask, faces=f) for f in ([], [face, aside]))
    assert any(box[0] > aside[0] for box in free) and held
    assert all(box[0] <= cut.box[0] for box in held), "its head reaches to the edge"


def test_parts_move_by_an_eighth_of_their_sides_at_most() -> None:
    image, mask, face = standing()
    for cut in plan_cuts(image, shapes=[(64, 64)], crops=ALL, faces=[face])[1:]:
        places = elsewhere(image, cut, count=32, seed="s", faces=[face], subject=mask)
        assert places and {cut.crop} <= {"upper", "lower"}
        for box in places:
            side = cut.box[2] - cut.box[0]
            assert all(abs(box[i] - cut.box[i]) <= side / 8 for i in (0, 1)) and overlap(box, cut.box) > 0.6


def test_what_was_drawn_by_hand_and_what_has_no_room_stays() -> None:
    image = scene(1200, 400, (600, 200))
    assert elsewhere(image, Cut("full", (300, 0, 700, 400), "hand", (64, 64)), count=3, seed="s") == []
    square = image.crop((0, 0, 400, 400))
    assert elsewhere(square, plan_cuts(square, shapes=[(64, 64)], crops=["full"])[0], count=3, seed="s") == []
    cut = plan_cuts(image, shapes=[(64, 64)], crops=["full"])[0]
    assert elsewhere(image, cut, count=0, seed="s") == []


@needs_photographs
def test_most_photographs_have_other_places() -> None:
    found = []
    for name, image in photographs().items():
        cut = plan_cuts(image, shapes=[(256, 384)], crops=["full"])[0]
        found.append(len(elsewhere(image, cut, count=3, seed=name)))
    assert sum(count == 3 for count in found) >= len(found) / 2, found
