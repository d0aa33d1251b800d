import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from vez.metrics import power
from vez.metrics.equivalence import tost
from vez.metrics.stats import sign_flip_p


def test_smallest_detectable_is_the_textbook_sample_size() -> None:
    # Paired t test, effect 0.5 sd, two-sided 0.05, power 0.8: n = 34 (33 is not enough), as in Cohen's tables.
    at_33, at_34 = (power.smallest_detectable(1.0, n) for n in (33, 34))
    assert at_33 is not None and at_34 is not None
    assert at_34 < 0.5 < at_33
    assert power.prompts_needed(0.5, 1.0) == 34
    assert power.prompts_needed(-0.5, 1.0) == 34


def test_smallest_detectable_knows_when_nothing_can_be_found() -> None:
    assert power.smallest_detectable(0.1, 5) is None  # 2/2^5 > 0.05
    assert power.smallest_detectable(0.1, 6) is not None
    assert power.smallest_detectable(0.1, 6, alpha=0.0125) is None
    assert power.smallest_detectable(0.0, 8) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 5), st.floats(0.01, 2), st.sampled_from([0.05, 0.0125, 0.005]))
def test_the_needed_prompts_see_it_and_one_fewer_do_not(diff: float, sd: float, alpha: float) -> None:
    n = power.prompts_needed(diff, sd, alpha=alpha)
    if n is None:
        least = power.smallest_detectable(sd, power.MOST_PROMPTS, alpha=alpha)
        assert least is not None and least > diff
        return
    seen, before = (power.smallest_detectable(sd, m, alpha=alpha) for m in (n, n - 1))
    assert seen is not None and seen <= diff
    assert before is None or before > diff


@pytest.mark.parametrize(("n", "alpha"), [(6, 0.05), (8, 0.0125), (9, 0.05), (12, 0.05)])
def test_the_chance_to_find_what_is_called_detectable(n: int, alpha: float) -> None:
    """Also where 8 prompts and four LoRAs leave one sign pattern of 128: a t test would promise 80 % and keep 59 %."""
    delta = power.smallest_detectable(2.0, n, alpha=alpha)
    assert delta is not None
    rng = np.random.default_rng(11)
    found = np.mean([sign_flip_p(rng.normal(delta, 2, n)) <= alpha for _ in range(800)])
    assert 0.75 <= found <= 0.85


def test_one_pattern_is_all_signs_alike() -> None:
    # exactly: each of n normal numbers is above 0 with probability Φ(δ), and Φ(δ)^n is to be 0.8
    exact = float(scipy_stats.norm.ppf(0.8 ** (1 / 8)))
    assert power.smallest_detectable(1.0, 8, alpha=0.0125) == pytest.approx(exact, rel=0.02)


def test_prompts_needed_has_an_end() -> None:
    assert power.prompts_needed(1e-6, 1.0) is None
    assert power.prompts_needed(1.0, 0.0) == 6  # the fewest that can be significant at all
    with pytest.raises(ValueError, match="two equal arms"):
        power.prompts_needed(0.0, 1.0)


def test_more_seeds_never_buy_what_prompts_withhold() -> None:
    four, many = (power.detectable_by_design(12, s, between=0.03, within=0.05) for s in (4, math.inf))
    assert four is not None and many is not None
    assert many < four and many == power.smallest_detectable(0.03, 12)


def test_votes_are_the_published_ones() -> None:
    # evaluation.md §3.2 and appendix A
    assert [power.votes_needed(rate) for rate in (0.6, 0.65, 0.7, 0.75, 0.8)] == [194, 85, 47, 29, 20]
    assert power.votes_needed(0.35) == 85
    assert [power.wins_needed(votes) for votes in (24, 48, 60)] == [18, 32, 39]
    assert power.wins_needed(5) is None and power.wins_needed(6) == 6
    for rate in (0.5, 0.0, 1.0):
        with pytest.raises(ValueError, match="win rate"):
            power.votes_needed(rate)


@given(st.integers(6, 300))
def test_wins_needed_is_scipys_exact_test(votes: int) -> None:
    wins = power.wins_needed(votes)
    assert wins is not None
    assert scipy_stats.binomtest(wins, votes).pvalue <= 0.05 < scipy_stats.binomtest(wins - 1, votes).pvalue


def test_luck_of_the_best_and_the_spread_of_equals() -> None:
    assert power.best_of(1) == 0
    assert power.best_of(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert power.best_of(3) == pytest.approx(1.5 / math.sqrt(math.pi))
    assert [round(power.best_of(k), 2) for k in (5, 20, 100)] == [1.16, 1.87, 2.51]
    assert power.spread_of_equals(5) == pytest.approx(2.326, abs=1e-3)
    assert power.spread_limit(5) == pytest.approx(3.858, abs=1e-3)
    with pytest.raises(ValueError, match="best of 0"):
        power.best_of(0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=20).filter(lambda x: np.std(x) > 1e-3), st.floats(0.01, 1))
def test_equivalence_is_two_of_scipys_one_sided_tests(x: list[float], margin: float) -> None:
    found = tost(float(np.mean(x)), float(np.std(x, ddof=1)), len(x), margin=margin, higher_is_better=True)
    assert found is not None
    above = scipy_stats.ttest_1samp(x, -margin, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(x, margin, alternative="less").pvalue
    assert found.p == pytest.approx(max(above, below)) and found.p_not_worse == pytest.approx(above)
    low, high = scipy_stats.t.interval(0.9, len(x) - 1, loc=np.mean(x), scale=scipy_stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.equivalent == (-margin < low and high < margin)
    lower_better = tost(float(np.mean(x)), float(np.std(x, ddof=1)), len(x), margin=margin, higher_is_better=False)
    assert lower_better is not None and lower_better.p_not_worse == pytest.approx(below)
    assert lower_better.equivalent == found.equivalent


def test_equivalence_at_the_edges() -> None:
    assert tost(0.0, 1.0, 1, margin=0.1, higher_is_better=True) is None
    for mean, equal in ((0.05, True), (0.1, False), (0.2, False)):  # no spread at all
        found = tost(mean, 0.0, 4, margin=0.1, higher_is_better=True)
        assert found is not None and found.equivalent is equal and found.not_worse
    with pytest.raises(ValueError, match="margin of 0"):
        tost(0.0, 1.0, 5, margin=0.0, higher_is_better=True)
