import random
from collections.abc import Callable

import numpy as np
import pytest
from planted import PROJECT, drawn, good_scenes, row_of, told

from vez.config import Project
from vez.demo.world.scene import Scene, random_scene
from vez.lint import looks
from vez.lint.labels import BACKGROUND, FRAMING, GROUPS, LIGHT, POSE, SOMEBODY, VIEW, WEARER
from vez.lint.seen import see
from vez.lint.words import plain
from vez.metrics.embed import Clip, features_of

PLACE = {"city street": "street", "flower field": "field", "plain wall": "plain", "beach": "water"}
POSES = {"standing": "standing", "hands on hips": "standing"}
WEATHER = {"sunny": "day", "sunset": "dusk"}
TRUTH: dict[str, Callable[[Scene], str]] = {
    "framing": lambda s: {"upper": "half", "lower": "detail"}.get(s.view, "full"),
    "background": lambda s: PLACE.get(s.place, s.place),
    "light": lambda s: WEATHER.get(s.weather, s.weather),
    "pose": lambda s: (
        "seated" if s.view == "seated" else "moving" if s.pose in ("waving", "arms raised") else "standing"
    ),
}


@pytest.fixture(scope="module")
def world(clip: Clip) -> tuple[list[Scene], np.ndarray]:
    """80 scenes, half of them with the costume, and what CLIP makes of their pictures."""
    dice = random.Random(5)
    scenes = [random_scene(dice, costume=i % 2 == 0) for i in range(80)]
    picture = drawn(scenes)
    return scenes, features_of(clip, (picture(i) for i in range(len(scenes))))


def accuracy(name: str, scenes: list[Scene], sight: looks.Sight) -> float:
    names = [label.name for label in sight.group.labels]
    return float(
        np.mean([names[a] == TRUTH[name](s) for a, s in zip(sight.shares.argmax(axis=1), scenes, strict=True)])
    )


def test_zero_shot_against_what_was_drawn(clip: Clip, world: tuple[list[Scene], np.ndarray]) -> None:
    """Of the drawn world the truth is known. tiny's CLIP cannot tell poses: that must not pass unseen (`seen`)."""
    scenes, pictures = world
    sights = looks.sights(clip, pictures)
    assert accuracy("framing", scenes, sights["framing"]) >= 0.9
    assert accuracy("background", scenes, sights["background"]) >= 0.9
    assert accuracy("light", scenes, sights["light"]) >= 0.88
    bodies = [i for i, s in enumerate(scenes) if s.view in ("full", "seated")]
    poses = looks.Sight(POSE, sights["pose"].shares[bodies], ())
    assert accuracy("pose", [scenes[i] for i in bodies], poses) < 0.6
    captions = [row_of(i, f"a girl {TRUTH['pose'](scenes[i])}") for i in bodies]
    captions = [row_of(i, row.caption.replace("moving", "waving")) for i, row in enumerate(captions)]
    assert see(captions, {"pose": poses}, [POSE])["pose"].trust.state == "disagrees"


def test_labels_that_a_clip_has_no_words_for_are_not_asked(clip: Clip, world: tuple[list[Scene], np.ndarray]) -> None:
    sights = looks.sights(clip, world[1][:4])
    assert sights["view"].unknown == ("front", "side", "back") and not sights["view"].usable
    assert sights["background"].unknown == ("stage",) and sights["background"].usable
    assert not sights["background"].shares[:, -1].any()
    assert np.allclose(sights["background"].shares.sum(axis=1), 1)
    assert looks.known(clip, "a girl with brown hair") and not looks.known(clip, "a zeppelin")


def test_a_caption_that_was_swapped_does_not_fit(clip: Clip) -> None:
    scenes = good_scenes(24)
    picture = drawn(scenes)
    pictures = features_of(clip, (picture(i) for i in range(24)))
    captions = [plain(told(scene), Project.model_validate(PROJECT)) for scene in scenes]
    sources = list(range(24))
    assert [m.place for m in looks.misfits(clip, pictures, captions, sources, best=3)] == []
    far = next(i for i in range(1, 24) if scenes[i].place != scenes[0].place and scenes[i].view != scenes[0].view)
    captions[0], captions[far] = captions[far], captions[0]
    assert [m.place for m in looks.misfits(clip, pictures, captions, sources, best=3)] == [0, far]
    better = looks.misfits(clip, pictures, captions, sources, best=3)[0].better
    assert better != captions[0]
    # captions of one source, and captions that say the same, never misfit for each other
    assert looks.misfits(clip, pictures, captions, [0] * 24, best=3) == []
    assert looks.misfits(clip, pictures, [captions[0]] * 24, sources, best=1) == []


def test_misfits_are_those_of_ranking_every_caption(clip: Clip, world: tuple[list[Scene], np.ndarray]) -> None:
    scenes, pictures = world
    dice = random.Random(2)
    captions = [told(dice.choice(scenes)) for _ in scenes]
    said = looks.text_features(clip, captions)
    expected, margin = set(), looks.SURE / float(clip.model.logit_scale.exp())
    for i in range(len(scenes)):
        better = {captions[j] for j in range(len(scenes)) if pictures[i] @ said[j] > pictures[i] @ said[i] + margin
                  and said[j] @ said[i] < looks.SAME_WORDS}  # fmt: skip
        if len(better) >= 5:
            expected.add(i)
    found = looks.misfits(clip, pictures, captions, list(range(len(scenes))), best=5)
    assert {m.place for m in found} == expected and expected


def test_nearest(world: tuple[list[Scene], np.ndarray]) -> None:
    pictures = world[1]
    assert [j for j, _ in looks.nearest(pictures[3:6], pictures)] == [3, 4, 5]
    assert looks.nearest(pictures, pictures[:0]) == []


def test_every_label_can_be_named_and_asked() -> None:
    for group in GROUPS:
        assert len({label.name for label in group.labels}) == len(group.labels) > 1
        for label in group.labels:
            assert label.pattern.search(f"so {label.words.split('|')[0]}, then")
            assert all(label.asked) and "|" not in "".join(label.asked)
    assert FRAMING.named("upper body of a girl") == [1] and FRAMING.named("bodyguard") == []
    assert BACKGROUND.named("at the beach, wood fence") == [3, 6]
    assert VIEW.named("a girl seen from behind") == [2] and LIGHT.named("AT NIGHT") == [2]
    assert WEARER.named("a woman") == [0]
    assert SOMEBODY.search("two dolls") and not SOMEBODY.search("a cup on a table")
