import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import row_of

from vez.lint import diversity
from vez.lint.artifact import Trust
from vez.lint.labels import BACKGROUND, FRAMING, POSE, VIEW, Group
from vez.lint.looks import Sight
from vez.lint.seen import Seen, see


def test_the_papers_numbers() -> None:
    """Friedman and Dieng's own examples: three pairs of samples under exp(−|Δ|), and a 3 × 3 kernel."""
    samples = np.array([0, 0, 10, 10, 20, 20.0])
    assert diversity.vendi(np.exp(-np.abs(samples[:, None] - samples[None]))) == pytest.approx(2.9999, abs=1e-4)
    kernel = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert diversity.vendi(kernel) == pytest.approx(2.1573, abs=1e-4)
    assert diversity.vendi(np.zeros((0, 0))) == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_of_sure_labels_it_is_the_hill_number(labels: list[int]) -> None:
    shares = np.bincount(labels, minlength=6) / len(labels)
    hill = np.exp(-sum(p * np.log(p) for p in shares if p))
    assert diversity.vendi_of(np.eye(6)[labels]) == pytest.approx(hill)
    assert diversity.of_sources(labels).effective == pytest.approx(hill)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_features_and_their_kernel_give_the_same(n: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    number = diversity.vendi_of(rows)
    assert number == pytest.approx(diversity.vendi(rows @ rows.T), rel=1e-6)
    assert 1 - 1e-9 <= number <= min(n, width) + 1e-9


def test_the_same_doubt_about_every_picture_is_no_variety() -> None:
    doubt = np.tile(np.full(4, 0.25), (20, 1))
    assert diversity.vendi_of(np.sqrt(doubt)) == pytest.approx(1)


def test_colours_of_one_palette_count_once() -> None:
    red, blue = np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6, 3), np.uint8)
    red[..., 0], blue[..., 2] = 250, 250

    def number(*pictures: np.ndarray) -> float:
        return diversity.of_colours(np.stack([diversity.colour_features(p) for p in pictures]), of=9).effective

    assert number(red, red, red) == pytest.approx(1)
    assert number(red, blue) == pytest.approx(2)
    half = red.copy()
    half[:3] = blue[:3]
    assert 1 < number(red, half) < 2
    assert np.linalg.norm(diversity.colour_features(half)) == pytest.approx(1)


def seen_as(group: Group, labels: list[int | None]) -> Seen:
    """Sure labels, told by captions; None: unknown."""
    shares = np.zeros((len(labels), len(group.labels)))
    for i, label in enumerate(labels):
        if label is not None:
            shares[i, label] = 1
    told_by = tuple("" if label is None else "caption" for label in labels)
    return Seen(group, shares, told_by, tuple(() for _ in labels), None, Trust(group.name, "unasked"))


def test_the_map_counts_and_shows_holes() -> None:
    framing, pose = seen_as(FRAMING, [0, 0, 1, 2, None]), seen_as(POSE, [0, 1, 1, None, 2])
    drawn = diversity.draw_map(framing, pose, None)
    assert drawn is not None
    assert drawn.counts == ((1, 1, 0), (0, 1, 0), (0, 0, 0)) and (drawn.n, drawn.of) == (3, 5)
    with_view = diversity.draw_map(framing, pose, seen_as(VIEW, [2, None, 0, 0, 0]))
    assert with_view is not None and with_view.columns[0] == "front, standing" and with_view.n == 2
    assert with_view.counts[0][with_view.columns.index("back, standing")] == 1
    assert with_view.counts[1][with_view.columns.index("front, seated")] == 1
    assert diversity.draw_map(framing, seen_as(POSE, [None] * 5), None) is None


def test_poses_are_counted_by_view_where_it_is_known() -> None:
    pose, view = seen_as(POSE, [0, 0, 1, 1]), seen_as(VIEW, [0, 2, 0, 2])
    alone, both = diversity.of_poses(pose, None), diversity.of_poses(pose, view)
    assert alone is not None and alone.effective == pytest.approx(2)
    assert both is not None and both.effective == pytest.approx(4) and both.shares["back, seated"] == 0.25


def test_advice_begins_with_what_adds_most() -> None:
    poses = seen_as(POSE, [0] * 18 + [1] * 2)
    framings = seen_as(FRAMING, [0, 1, 2] * 6 + [0, 1])
    advice = diversity.advise({"pose": poses, "framing": framings})
    assert [a.add for a in advice] == ["moving (walking, dancing)", "seated"]
    more = np.array([18, 2, 2.0]) / 22
    gain = np.exp(-(more * np.log(more)).sum()) / np.exp(-(np.array([0.9, 0.1]) * np.log([0.9, 0.1])).sum())
    assert advice[0].gain == pytest.approx(gain, abs=1e-3) and advice[0].pictures == 2


def sight(group: Group, answers: list[int], *, unknown: tuple[str, ...] = ()) -> Sight:
    return Sight(group, np.eye(len(group.labels))[answers], unknown)


PLACES = ["a girl by a plain wall", "a girl in a street", "a girl in a forest"]
ROWS = [row_of(i, PLACES[i % 3]) for i in range(12)]


def test_crop_comes_before_caption_and_caption_before_clip() -> None:
    rows = [row_of(0, "portrait of a girl", crop="lower"), row_of(1, "portrait of a girl"), row_of(2, "a girl")]
    seen = see(rows, {"framing": sight(FRAMING, [0, 0, 0])}, [FRAMING])["framing"]
    assert seen.told_by == ("crop", "caption", "CLIP") and seen.labels.tolist() == [2, 1, 0]
    assert see(rows, None, [FRAMING])["framing"].told_by == ("crop", "caption", "")


def test_a_clip_that_disagrees_with_the_captions_is_not_asked() -> None:
    right, wrong = [i % 3 for i in range(12)], [(i + 1) % 3 for i in range(12)]
    silent = [*ROWS, row_of(12, "a girl")]
    trusted = see(silent, {"background": sight(BACKGROUND, [*right, 1])}, [BACKGROUND])["background"]
    assert (trusted.trust.state, trusted.trust.n, trusted.trust.agree) == ("agrees", 12, 12)
    assert trusted.told_by[-1] == "CLIP" and trusted.clip is not None
    refused = see(silent, {"background": sight(BACKGROUND, [*wrong, 1])}, [BACKGROUND])["background"]
    assert refused.trust.state == "disagrees" and refused.trust.chance == pytest.approx(1 / 3)
    assert refused.told_by[-1] == "" and refused.clip is None and not refused.known[-1]
    few = see(silent[9:], {"background": sight(BACKGROUND, [*wrong[9:], 1])}, [BACKGROUND])["background"]
    assert few.trust.state == "unchecked" and few.told_by[-1] == "CLIP"


def test_groups_about_people_need_somebody() -> None:
    things = [row_of(i, f"a cup on a table {i}") for i in range(10)]
    assert set(see(things, None)) == {"background", "light"}
    assert "pose" in see([*things[:8], *ROWS[:2]], None)
    assert see([], None)["background"].known.tolist() == []


def test_attributes_say_who_controls_them() -> None:
    rows = [row_of(i, "a girl in a street" if i < 8 else "a girl") for i in range(20)]
    answers = [1] * 8 + [2] * 6 + [1] * 1 + [0] * 5
    seen = see(rows, {"background": sight(BACKGROUND, answers)}, [BACKGROUND])
    told = {a.label: (a.pictures, a.captions, a.named, a.verdict) for a in diversity.attributes(seen)}
    assert told == {
        "street": (9, 8, 8, "controlled by words"),
        "forest": (6, 0, 0, "absorbed by the trigger"),
        "plain": (5, 0, 0, "absorbed by the trigger"),
    }
    mixed = [row_of(i, "a girl in a street" if i % 2 else "a girl") for i in range(20)]
    seen = see(mixed, {"background": sight(BACKGROUND, [1] * 20)}, [BACKGROUND])
    assert [a.verdict for a in diversity.attributes(seen)] == ["mixed"]
    assert diversity.attributes(see(rows, None)) == []


def test_commonest_needs_half_of_the_pictures_known() -> None:
    assert diversity.commonest(seen_as(POSE, [0, 0, 0, 1, None]), few=4) == ("standing", 3, 4)
    assert diversity.commonest(seen_as(POSE, [0, 0, None, None, None]), few=2) is None
    assert diversity.commonest(seen_as(POSE, [0, 0]), few=5) is None
    assert diversity.commonest(None, few=1) is None
