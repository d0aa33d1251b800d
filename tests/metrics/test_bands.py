"""What the losses say: invariances that hold for all losses, and the window's rule on curves made by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from vez.metrics.bands import LIMITS, Axis, Checkpoint, contrast, difference, measure, said, usable, window
from vez.metrics.probed import ArmProbes, Asked, Split

AXIS = Axis(tuple(range(62, 1000, 125)), 1000)
T = len(AXIS.timesteps)
ABOUT: dict[str, Any] = {"run": "v1-0", "variant": "v1", "seed": 0, "strength": 1.0}
TEXTS: tuple[Asked, ...] = ("caption", "class", "trigger", "wrong", "empty")
Table = dict[tuple[Split, str, Asked], tuple[float, ...]]


@st.composite
def tables(draw: st.DrawFn, pictures: int = 3) -> Table:
    """Losses of an arm: some pictures held out, some trained on, some of the class."""
    loss = st.floats(0.01, 2.0)
    keys: list[tuple[Split, str, Asked]] = [("held_out", f"h{i}", text) for i in range(pictures) for text in TEXTS]
    keys += [("train", f"t{i}", "caption") for i in range(pictures)]
    keys += [("class", f"c{i}", "caption") for i in range(pictures)]
    return {key: tuple(draw(st.lists(loss, min_size=T, max_size=T))) for key in keys}


def measured(own: Table, base: Table) -> ArmProbes:
    return measure(own, base, AXIS, **ABOUT, step=10)


def scaled(table: Table, factor: float, *, only: Split | None = None, text: Asked | None = None) -> Table:
    return {
        key: tuple(loss * (factor if only in (None, key[0]) and text in (None, key[2]) else 1) for loss in losses)
        for key, losses in table.items()
    }


def numbers(arm: ArmProbes) -> list[float]:
    """Every mean and limit, but for raw losses and an arm's own and the base's levels."""
    spans = [arm.held_out, arm.train, arm.prior]
    found = [s for change in spans if change for s in (change.change, *change.bands)]
    found += [arm.gap.middle, *arm.gap.bands] if arm.gap else []
    found += [c.gained for c in (arm.binding, arm.specificity, arm.alone) if c] + [*arm.gains.values()]
    return [value for s in found for value in (s.mean, s.low, s.high) if value is not None]


@given(tables())
def test_an_arm_like_the_base_changes_nothing(base: Table) -> None:
    arm = measured(base, base)
    assert set(numbers(arm)) == {0.0} and arm.leak is None


@given(tables(), tables(), st.floats(0.1, 10))
def test_the_size_of_losses_is_no_matter(own: Table, base: Table, factor: float) -> None:
    one, other = measured(own, base), measured(scaled(own, factor), scaled(base, factor))
    assert numbers(one) == pytest.approx(numbers(other), abs=1e-9)


@given(tables(), tables())
def test_the_order_of_pictures_is_no_matter(own: Table, base: Table) -> None:
    assert numbers(measured(dict(reversed(own.items())), base)) == pytest.approx(numbers(measured(own, base)), abs=1e-9)


@given(tables(), tables(), st.floats(0.5, 2))
def test_a_lower_loss_on_trained_pictures_is_the_gap_and_nothing_else(own: Table, base: Table, factor: float) -> None:
    before, after = measured(own, base), measured(scaled(own, factor, only="train"), base)
    assert before.gap and after.gap and before.held_out == after.held_out and before.binding == after.binding
    grown = [b.mean - a.mean for a, b in zip(before.gap.bands, after.gap.bands, strict=True)]
    assert grown == pytest.approx([-math.log(factor)] * len(grown))
    assert after.gap.middle.mean - before.gap.middle.mean == pytest.approx(-math.log(factor))


@given(tables(), tables())
def test_what_is_gained_in_binding_is_the_trigger_s_gain_less_the_words(own: Table, base: Table) -> None:
    arm = measured(own, base)
    assert arm.binding is not None
    assert arm.binding.gained.mean == pytest.approx(arm.gains["caption"].mean - arm.gains["class"].mean, abs=1e-9)
    assert arm.binding.own.mean - arm.binding.base.mean == pytest.approx(arm.binding.gained.mean, abs=1e-9)
    if arm.leak is not None:
        assert arm.leak == pytest.approx(arm.gains["class"].mean / arm.gains["caption"].mean, abs=1e-9)


@given(tables(), st.floats(0.3, 0.9), st.floats(0.3, 1.0))
def test_binding_leak_and_specificity_of_losses_that_are_known(base: Table, called: float, plain: float) -> None:
    """All losses with the trigger fall to ``called`` of the base's, those with plain words to ``plain``."""
    own = scaled(scaled(base, called, only="held_out", text="caption"), plain, only="held_out", text="class")
    arm = measured(own, base)
    assert arm.binding and arm.specificity and arm.held_out and arm.leak is not None
    assert arm.binding.gained.mean == pytest.approx(math.log(plain / called), abs=1e-9)
    assert arm.specificity.gained.mean == pytest.approx(-math.log(called))
    assert arm.held_out.change.mean == pytest.approx(math.log(called))
    assert [band.mean for band in arm.held_out.bands] == pytest.approx([math.log(called)] * 5)
    assert arm.leak == pytest.approx(math.log(plain) / math.log(called), abs=1e-9)


def test_bands_are_equal_parts_and_the_middle_is_200_to_600() -> None:
    assert AXIS.bands == ((0, 1), (2,), (3, 4), (5,), (6, 7))
    assert [AXIS.timesteps[i] for i in AXIS.middle] == [312, 437, 562]


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=8), st.lists(st.floats(-2, 2), min_size=2, max_size=8))
def test_the_gap_s_interval_is_welch_s(a: list[float], b: list[float]) -> None:
    found = difference(np.array(a), np.array(b))
    assert found.low is not None and found.high is not None
    if min(np.std(a), np.std(b)) > 1e-3:  # scipy warns of less
        welch = distributions.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=1e-6)
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b), abs=1e-9)


def test_one_picture_gives_a_mean_and_no_interval() -> None:
    base: Table = {("held_out", "h", text): (0.5,) * T for text in TEXTS} | {("train", "t", "caption"): (0.5,) * T}
    arm = measured(scaled(base, 0.8), base)
    assert arm.held_out and arm.held_out.change.mean == pytest.approx(math.log(0.8))
    assert arm.held_out.change.low is None and arm.gap and arm.gap.middle.low is None and arm.leak is None
    assert arm.says == ("Whether pictures it never saw fit it better than the base cannot be said.",)


def test_numbers_of_which_no_logarithm_is_are_not_usable() -> None:
    for loss, is_usable in ((0.5, True), (0.0, False), (math.inf, False), (math.nan, False)):
        assert usable({("train", "t", "caption"): (0.5, loss)}) == is_usable


def test_pictures_that_were_not_asked_both_texts_are_left_out() -> None:
    own: Table = {("held_out", "a", text): (0.5,) * T for text in TEXTS}
    own |= {("held_out", "b", "caption"): (0.1,) * T}
    found = contrast(own, own, "class", "caption")
    assert found is not None and found.own.n == 1 and found.own.mean == 0
    assert contrast({("held_out", "b", "caption"): (0.1,) * T}, own, "class", "caption") is None


def spoken(**factors: float) -> str:
    """What is said of an arm whose losses are these shares of the base's, with a little spread over pictures."""
    base: Table = {("held_out", f"h{i}", text): (0.5,) * T for i in range(4) for text in TEXTS}
    base |= {(split, f"{split}{i}", "caption"): (0.5,) * T for split in ("train", "class") for i in range(4)}
    own = {}
    for key, losses in base.items():
        share = factors.get(key[0] if key[0] != "held_out" else key[2], 1.0)
        own[key] = tuple(loss * share * (1 + 0.001 * int(key[1][-1])) for loss in losses)
    return " ".join(said(measured(own, base)))


def test_sentences_say_what_the_intervals_allow() -> None:
    learned = spoken(caption=0.8, train=0.8)
    assert "it has learned" in learned and "The trigger calls more" in learned and "by heart" not in learned
    assert "wrong trigger" not in learned
    assert "it learns them by heart" in spoken(caption=0.8, train=0.5)
    everywhere = dict.fromkeys(TEXTS, 0.8)
    assert "come unasked (leak)" in spoken(**everywhere) and "The trigger calls" not in spoken(**everywhere)
    assert "A wrong trigger does as well" in spoken(caption=0.8, wrong=0.8)
    assert "plain words call 47% of it" in spoken(caption=0.8, **{"class": 0.9})
    assert "it forgets some" in spoken(**{"class": 1.1})
    assert "worse than the base" in spoken(caption=1.2)


def run(held_out: Sequence[float], gaps: Sequence[float | None], *, spread: float = 0.001) -> list[Checkpoint]:
    """Checkpoints at steps 10, 20, …: the held-out change of four pictures about these means."""
    lean = spread * np.array([-1.5, -0.5, 0.5, 1.5])
    return [
        Checkpoint(f"v1@{10 * i}", 10 * i, mean + lean * i, gap)
        for i, (mean, gap) in enumerate(zip(held_out, gaps, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("held_out", "gaps", "first", "last", "why"),
    [
        ([-0.01, -0.019, -0.020, -0.019], [0.0, 0.1, 0.2, 0.3], 20, 30, "learned by heart"),
        ([-0.01, -0.019, -0.020, -0.010], [0.0] * 4, 20, 30, "standard errors"),
        ([-0.01, -0.015, -0.0181, -0.020], [0.0] * 4, 30, 40, "longer training may bring more"),
        ([-0.019, -0.020, -0.0199], [None] * 3, 10, 30, "neither limit was passed"),
        ([-0.02], [0.1], 10, 10, "longer training may bring more"),
        ([0.01, 0.02], [0.0, 0.0], None, None, "never fell"),
        ([-0.01, -0.02], [0.3, 0.5], None, None, "by heart"),
        ([-0.001, -0.02], [0.1, 0.5], None, None, "by heart"),
    ],
)
def test_the_window(
    held_out: list[float], gaps: list[float | None], first: int | None, last: int | None, why: str
) -> None:
    found = window(run(held_out, gaps), **ABOUT)
    assert (found.first, found.last) == (first, last) and why in found.why
    assert found.arms == tuple(f"v1@{s}" for s in range(first or 0, (last or 0) + 1, 10) if s)


def test_a_rise_within_the_noise_ends_no_window() -> None:
    curve = [-0.01, -0.02, -0.018]
    assert window(run(curve, [0.0] * 3, spread=0.0001), **ABOUT).last == 20
    assert window(run(curve, [0.0] * 3, spread=0.01), **ABOUT).last == 30


def test_without_held_out_pictures_there_is_no_window() -> None:
    found = window([Checkpoint("v1", 10, np.empty(0), None)], **ABOUT)
    assert not found.arms and "held_out" in found.why


@given(
    st.lists(st.tuples(st.floats(-0.1, 0.1), st.none() | st.floats(-0.1, 0.6)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_window_is_a_stretch_of_what_keeps_the_limits(points: list[tuple[float, float | None]], dice: Any) -> None:
    checkpoints = run([mean for mean, _ in points], [gap for _, gap in points])
    found = window(checkpoints, **ABOUT)
    shuffled = list(checkpoints)
    dice.shuffle(shuffled)
    assert window(shuffled, **ABOUT) == found
    inside = [one for one in checkpoints if one.arm in found.arms]
    steps = [one.step for one in checkpoints if found.arms and (found.first or 0) <= one.step <= (found.last or 0)]
    assert [one.step for one in inside] == steps
    assert all(one.gap is None or one.gap <= LIMITS.gap for one in inside)
    if inside:
        lowest = min(float(one.held_out.mean()) for one in checkpoints)
        assert float(inside[0].held_out.mean()) <= LIMITS.fall * lowest < 0
