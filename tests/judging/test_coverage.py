"""Simulated judges: do the intervals hold what they say, and is nothing found where there is nothing?"""

from itertools import combinations

import numpy as np
import pytest

from vez.judging.strengths import Outcomes, fit, fitted, gap, outcomes
from vez.metrics.stats import holm

ARMS, PROMPTS = 5, 8
PAIRS = list(combinations(range(ARMS), 2))


def simulate(rng: np.random.Generator, theta: np.ndarray, n: int, prompts: int) -> tuple[Outcomes, np.ndarray]:
    """Votes where every prompt suits arms differently (sd .5), and small differences are called a tie."""
    suits = rng.normal(0, 0.5, (prompts, ARMS))
    pairs = np.array([PAIRS[i % len(PAIRS)] for i in range(n)])
    flip = rng.random(n) < 0.5
    left, right = np.where(flip, pairs[:, 1], pairs[:, 0]), np.where(flip, pairs[:, 0], pairs[:, 1])
    prompt = (np.arange(n) * 7 // 3) % prompts
    felt = (
        rng.logistic(size=n)
        + (theta + suits[prompt])[np.arange(n), left]
        - (theta + suits[prompt])[np.arange(n), right]
    )
    return outcomes(left, right, np.where(np.abs(felt) < 0.5, 0.5, felt > 0), arms=ARMS), prompt


@pytest.mark.parametrize("n", [48, 144])
@pytest.mark.parametrize("true", [(0, 0, 0, 0, 0), (1.5, 0.7, 0.3, 0, -2.5)], ids=["equal", "different"])
def test_intervals_cover_and_equal_arms_stay_equal(n: int, true: tuple[float, ...]) -> None:
    theta, runs = np.array(true, float), 120
    ideal = fit(simulate(np.random.default_rng(99), theta, 30_000, 15_000)[0], ridge=1e-6)
    covered, found = [], 0
    for run in range(runs):
        of, prompt = simulate(np.random.default_rng(run), theta, n, PROMPTS)
        of_all = fitted(of, prompt, draws=1)
        gaps = {}
        for a, b in PAIRS:
            gaps[a, b] = gap(of_all, np.eye(ARMS)[a] - np.eye(ARMS)[b])
            low, high = gaps[a, b].low, gaps[a, b].high
            assert low is not None and high is not None
            covered.append(low <= ideal[a] - ideal[b] <= high)
        found += min(holm([g.p for g in gaps.values()])) <= 0.05
    assert 0.935 <= np.mean(covered) <= 0.985
    if not theta.any():
        assert found / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5
    elif n == 144:
        assert found / runs > 0.9
