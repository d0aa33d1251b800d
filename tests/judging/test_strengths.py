"""Bradley–Terry: equal to choix, and to what arithmetic says."""

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.judging import strengths
from vez.judging.strengths import Outcomes, best, fit, fitted, gap, outcomes


def random_outcomes(seed: int, *, arms: int, n: int) -> Outcomes:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, arms, n)
    right = (left + rng.integers(1, arms, n)) % arms
    return outcomes(left, right, rng.choice([0, 0.5, 1], n), arms=arms)


def as_choix(of: Outcomes) -> list[tuple[int, int]]:
    """(winner, loser), every vote twice, so that a tie is one for either."""
    data = []
    for a, b, won in zip(of.left.tolist(), of.right.tolist(), of.won, strict=True):
        data += [(a, b)] * round(2 * won) + [(b, a)] * round(2 - 2 * won)
    return data


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(5, 80), st.sampled_from([0.01, 0.05, 0.5]))
def test_equal_to_choix(seed: int, arms: int, n: int, ridge: float) -> None:
    of = random_outcomes(seed, arms=arms, n=n)
    theirs = choix.opt_pairwise(arms, as_choix(of), alpha=2 * ridge, tol=1e-12)  # all is there twice
    assert fit(of, ridge=ridge) == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_equal_to_choix_without_a_ridge() -> None:
    of = random_outcomes(3, arms=4, n=200)
    theirs = choix.ilsr_pairwise(4, as_choix(of), alpha=0)
    assert fit(of, ridge=0) == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_two_arms_are_their_win_rate() -> None:
    of = outcomes([0] * 10, [1] * 10, [1] * 6 + [0.5] * 2 + [0] * 2, arms=2)
    theta = fit(of, ridge=0)
    assert theta[0] - theta[1] == pytest.approx(np.log(7 / 3))
    assert gap(fitted(of, range(10)), [1, -1]).value == pytest.approx(np.log(7 / 3), abs=0.1)


def test_weights_are_repetitions_and_every_resample_is_fitted_alone() -> None:
    of = random_outcomes(1, arms=3, n=12)
    weights = np.random.default_rng(0).integers(0, 4, (5, 12))
    together = fit(of, weights)
    for row, w in zip(together, weights, strict=True):
        rows = np.repeat(np.arange(12), w)
        alone = Outcomes(of.left[rows], of.right[rows], of.won[rows], 3)
        assert row == pytest.approx(fit(alone), abs=1e-8)


def test_the_left_place_is_told_from_the_arms() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    left = rng.integers(0, 3, n)
    right = (left + rng.integers(1, 3, n)) % 3
    true = np.array([0.8, 0.0, -0.8])
    won = rng.random(n) < 1 / (1 + np.exp(-(true[left] - true[right] + 0.7)))
    found = fit(outcomes(left, right, won, arms=3), side=True)
    assert found[:3] == pytest.approx(true, abs=0.15)
    assert found[3] == pytest.approx(0.7, abs=0.1)


def test_an_arm_that_won_everything_has_a_finite_strength_and_a_wide_interval() -> None:
    of = outcomes([0] * 8, [1] * 8, [1] * 8, arms=2)
    found = gap(fitted(of, [0, 0, 1, 1, 2, 2, 3, 3]), [1, -1])
    assert 1 < found.value < 10
    assert found.low is not None and found.high is not None and found.high - found.low > 2


def test_one_prompt_gives_no_interval() -> None:
    found = gap(fitted(random_outcomes(0, arms=2, n=9), [0] * 9), [1, -1])
    assert (found.low, found.high, found.p) == (None, None, 1.0)


def test_p_and_interval_agree() -> None:
    for seed in range(40):
        found = gap(fitted(random_outcomes(seed, arms=3, n=30), np.arange(30) % 6, draws=2), [1, -1, 0])
        assert found.low is not None and found.high is not None
        assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)


def test_the_strongest_in_how_many_resamples() -> None:
    assert best(np.array([[1.0, 0, -1], [0, 1, -1], [1, 1, -2], [2, 0, -2]])) == pytest.approx([0.625, 0.375, 0])


def test_the_same_votes_give_the_same_numbers() -> None:
    of = random_outcomes(5, arms=4, n=40)
    first, again = (fitted(of, np.arange(40) % 8) for _ in range(2))
    assert (first.draws == again.draws).all() and first.draws.shape == (strengths.DRAWS, 4)
