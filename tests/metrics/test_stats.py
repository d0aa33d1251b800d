import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from vez.metrics import stats


def test_t_interval_is_scipys() -> None:
    x = np.random.default_rng(0).normal(3, 2, 11)
    low, high = scipy_stats.t.interval(0.95, 10, loc=x.mean(), scale=scipy_stats.sem(x))
    got = stats.t_interval(x)
    assert got.n == 11
    assert (got.mean, got.low, got.high) == pytest.approx((x.mean(), low, high))


def test_one_value_has_no_interval() -> None:
    assert stats.t_interval([0.4]) == stats.Interval(0.4, None, None, 1)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_empty_or_infinite_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|not finite"):
        stats.t_interval(bad)
    with pytest.raises(ValueError, match=r"no values|not finite"):
        stats.sign_flip_p(bad)


def test_sign_flip_known_answers() -> None:
    assert stats.sign_flip_p([1, 2, 3, 4]) == 2 / 16  # four prompts can never reject
    assert stats.sign_flip_p([1, 2, 3, 4, 5, 6]) == 2 / 64
    assert stats.sign_flip_p([1, -1]) == 1
    assert stats.sign_flip_p([0.1, 0.2, -0.3]) == 1  # sums to 0 but for rounding
    assert stats.sign_flip_p([0, 0, 0]) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1).filter(lambda v: abs(v) > 1e-3), min_size=2, max_size=9))
def test_sign_flip_is_scipys_exact_permutation_test(d: list[float]) -> None:
    theirs = scipy_stats.permutation_test(
        (np.array(d),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    # scipy doubles the smaller tail, we take |sum|: the same because sign flips are symmetric, but for ties at 0.
    assert stats.sign_flip_p(d) == pytest.approx(min(1.0, theirs.pvalue), abs=1e-12)


def test_monte_carlo_agrees_with_exact_and_repeats() -> None:
    d = np.random.default_rng(3).normal(0.4, 1, 17)
    ours = stats.sign_flip_p(d, seed=5)
    assert ours == stats.sign_flip_p(d, seed=5)
    codes = np.arange(2**17)
    exact = np.mean(np.abs((1 - 2 * ((codes[:, None] >> np.arange(17)) & 1)) @ d) >= abs(d.sum()) - 1e-12)
    assert ours == pytest.approx(exact, abs=4 * (exact * (1 - exact) / stats.MONTE_CARLO_DRAWS) ** 0.5 + 1e-4)
    assert stats.sign_flip_p(np.ones(40)) == 1 / (stats.MONTE_CARLO_DRAWS + 1) == stats.smallest_p(40)


@pytest.mark.parametrize("n", [1, 4, 6, 12])
def test_smallest_p_is_what_a_perfect_result_gives(n: int) -> None:
    assert stats.sign_flip_p(np.arange(1, n + 1)) == stats.smallest_p(n)


def test_holm_known_answer() -> None:
    # Holm (1979)'s procedure on four p-values, by hand.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = stats.holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p)) + 1e-12
    for i, j in combinations(range(len(p)), 2):
        if p[i] < p[j]:
            assert adjusted[i] <= adjusted[j]


def test_compare_pairs_by_prompt_not_by_picture() -> None:
    a = {("x", 0): 1.0, ("x", 1): 3.0, ("y", 0): 2.0, ("z", 9): 5.0}
    b = {("x", 0): 0.0, ("x", 1): 0.0, ("y", 0): 1.0}
    result = stats.compare(a, b)
    assert (result.diff, result.n_prompts, result.n_pairs) == (1.5, 2, 3)  # mean of 2 (x) and 1 (y), not of 1, 3, 1
    assert (result.missing, result.lost) == (1, 1)  # z was drawn in one arm only: left out, and said
    with pytest.raises(ValueError, match="share no"):
        stats.compare({("x", 0): 1.0}, {("y", 0): 1.0})


def test_compare_reports_how_well_the_noise_is_shared() -> None:
    shared = {(f"p{i}", 0): float(i) for i in range(5)}
    assert stats.compare({k: 2 * v + 1 for k, v in shared.items()}, shared).correlation == pytest.approx(1)
    assert stats.compare(dict.fromkeys(shared, 1.0), shared).correlation is None


@pytest.mark.parametrize(
    ("diff", "p", "higher", "word"),
    [
        (0.2, 0.01, True, "better"),
        (0.2, 0.01, False, "worse"),
        (-0.2, 0.05, True, "worse"),
        (-0.2, 0.04, False, "better"),
        (0.9, 0.06, True, "not distinguishable"),
        (0.0, 0.0, True, "not distinguishable"),
    ],
)
def test_verdict_words(diff: float, p: float, higher: bool, word: str) -> None:
    assert stats.verdict(diff, p, higher_is_better=higher) == word


def test_equivalent_is_said_only_where_nothing_was_found() -> None:
    assert stats.verdict(0.01, 0.5, higher_is_better=True, equivalent=True) == "equivalent"
    assert stats.verdict(0.01, 0.01, higher_is_better=True, equivalent=True) == "better"


def test_benjamini_hochberg_is_scipys() -> None:
    p = [0.001, 0.3, 0.04, 0.02, 0.9, 0.04]
    assert stats.benjamini_hochberg(p) == pytest.approx(list(scipy_stats.false_discovery_control(p)))
    assert stats.benjamini_hochberg([]) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_never_asks_more_than_holm(p: list[float]) -> None:
    found, theirs = stats.benjamini_hochberg(p), scipy_stats.false_discovery_control(p)
    assert found == pytest.approx(list(theirs))
    assert all(raw <= bh + 1e-12 <= holm + 2e-12 for raw, bh, holm in zip(p, found, stats.holm(p), strict=True))
