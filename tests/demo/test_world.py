"""The illustrated world: deterministic, true to its record, and the base never meets the costume."""

import random
from dataclasses import replace

import numpy as np
import pytest

from vez.demo.world.garments import COLOURS, COSTUME, GARMENTS
from vez.demo.world.places import INDOORS, PLACES
from vez.demo.world.scene import VIEWS, draw, held_out, random_scene, training_scene, unseen_scene
from vez.demo.world.words import caption, describe, prompt


def test_same_seed_same_bytes_and_another_seed_other_bytes() -> None:
    scene = replace(random_scene(random.Random(0), view="full"), place="forest", weather="rain")
    picture, mask = draw(scene, seed=5)
    again, mask_again = draw(scene, seed=5)
    assert np.array_equal(picture, again) and np.array_equal(mask, mask_again)
    assert not np.array_equal(picture, draw(scene, seed=6)[0])


def test_the_base_never_meets_the_costume_nor_a_held_out_combination() -> None:
    rng = random.Random(1)
    scenes = [training_scene(rng) for _ in range(3000)]
    assert all(s.garment != COSTUME for s in scenes)
    assert not any(held_out(s) for s in scenes)
    words = " ".join(caption(s, rng) for s in scenes).lower()
    assert not any(word in words for word in ("costume", "serbian", "folk", "traditional", "nosnja", "outfit"))


def test_unseen_scenes_are_held_out_and_about_a_tenth_of_all() -> None:
    rng = random.Random(2)
    assert all(held_out(unseen_scene(rng)) for _ in range(100))
    share = np.mean([held_out(random_scene(rng)) for _ in range(4000)])
    assert 0.07 < share < 0.13


@pytest.mark.parametrize("view", list(VIEWS))
def test_the_mask_lies_on_the_garment(view: str) -> None:
    scene = replace(random_scene(random.Random(3), view=view), garment="coat", colour="purple", weather="sunny",
                    place="forest")  # fmt: skip
    picture, mask = draw(scene, seed=1)
    assert 0.02 < mask.mean() < 0.5
    wanted = np.array(COLOURS["purple"])
    near = np.abs(picture[mask].astype(int) - wanted).sum(1) < 120  # its shades are within this
    assert near.mean() > 0.75
    empty, none = draw(scene, seed=1, empty=True)
    assert not none.any() and np.abs(empty[mask].astype(int) - picture[mask]).mean() > 20


def test_every_garment_place_and_view_can_be_drawn_at_any_shape() -> None:
    rng = random.Random(4)
    for garment in (*GARMENTS, COSTUME):
        for place in PLACES:
            scene = replace(
                random_scene(rng), garment=garment, place=place, weather="indoors" if place in INDOORS else "snow"
            )
            picture, mask = draw(scene, seed=2, size=(96, 160), fine=1)
            assert picture.shape == (160, 96, 3) and mask.shape == (160, 96)
            assert picture.std() > 10


def test_the_costume_looks_like_nothing_the_base_knows() -> None:
    scene = replace(random_scene(random.Random(5), view="full"), garment=COSTUME)
    picture, mask = draw(scene, seed=3)
    wine = np.abs(picture[mask].astype(int) - (150, 20, 44)).sum(1) < 40
    assert wine.mean() > 0.08


def test_captions_tell_the_truth_and_vary() -> None:
    rng = random.Random(6)
    for _ in range(300):
        scene = training_scene(rng)
        texts = {caption(scene, rng) for _ in range(8)}
        assert len(texts) > 1
        for text in (*texts, prompt(scene), describe(scene)):
            named = [g for g in GARMENTS if f" {g} " in f"{text} ".replace(",", " ")]
            assert named in ([], [scene.garment])
            assert not named or f"{scene.colour} {scene.garment}" in text
    assert "a orange" not in caption(replace(scene, colour="orange"), rng)
