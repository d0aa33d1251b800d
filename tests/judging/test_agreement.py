"""Numbers of the plan (evaluation of human judgments) and of Krippendorff's own example."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from vez.judging.agreement import chance_to_see, krippendorff, share, votes_needed, wins_needed

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C/D: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [{str(who): float(of[unit]) for who, of in enumerate(OBSERVERS) if of[unit] is not None} for unit in range(12)]


@pytest.mark.parametrize(("rate", "votes"), [(0.60, 194), (0.65, 85), (0.70, 47), (0.75, 29), (0.80, 20)])
def test_votes_needed_for_a_win_rate(rate: float, votes: int) -> None:
    assert votes_needed(rate) == votes


@pytest.mark.parametrize(("votes", "wins"), [(24, 18), (48, 32), (60, 39), (5, None), (6, 6), (0, None)])
def test_wins_needed(votes: int, wins: int | None) -> None:
    assert wins_needed(votes) == wins


def test_chance_to_see() -> None:
    assert chance_to_see(44) == pytest.approx(0.5, abs=0.03)  # "missed one time in two"
    assert 0.7 < chance_to_see(85) < 0.8  # planned by the normal curve; the exact test is a little stricter
    assert chance_to_see(3) == 0


def test_krippendorffs_example() -> None:
    assert krippendorff(UNITS, level="nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(UNITS) == pytest.approx(0.849, abs=5e-4)


def test_krippendorff_at_the_ends() -> None:
    assert krippendorff([{"a": 1, "b": 1}, {"a": -1, "b": -1}]) == 1
    assert krippendorff([{"a": 1, "b": -1}, {"a": -1, "b": 1}] * 20) < -0.9
    assert krippendorff([{"a": 1}, {"b": 0}]) is None
    assert krippendorff([{"a": 1, "b": 1}]) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_are_scipys(of: tuple[int, int]) -> None:
    k, n = of
    theirs = binomtest(k, n).proportion_ci(method="exact")
    ours = share(k, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.rate == k / n
