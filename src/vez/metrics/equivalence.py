"""Showing that two arms do *not* differ, or that one is not worse: tests against a margin declared beforehand.

A difference that was not found may still be there. "Equivalent" and "not worse" are claims of their own, and each needs
a margin: the largest difference that would not matter.
"""

import math
from dataclasses import dataclass

from scipy import special

from vez.metrics.stats import ALPHA, critical


@dataclass(frozen=True)
class Equivalence:
    """Both questions asked of the same differences with the same margin.

    `low` and `high` bound the mean difference with 90 % confidence (1 − 2α): equivalent is where both lie inside
    ±margin, not worse is where the one on the bad side does. `p` belongs to equivalence (the larger of two one-sided
    ones), `p_not_worse` to the bad side alone.
    """

    margin: float
    low: float
    high: float
    p: float
    equivalent: bool
    p_not_worse: float
    not_worse: bool


def tost(
    mean: float, sd: float, n: int, *, margin: float, higher_is_better: bool, alpha: float = ALPHA
) -> Equivalence | None:
    """Two one-sided t tests (Schuirmann 1987) of `n` prompts' differences, of that mean and sd, against ±`margin`.

    Not worse (non-inferior) is one of the two: that the loss is smaller than the margin. None with fewer than two
    prompts. Raises ValueError where the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"a margin of {margin} leaves no room for equality; give the largest difference without harm")
    if n < 2:
        return None
    error = sd / math.sqrt(n)
    half = critical(1 - alpha, n - 1) * error
    above = _tail(mean + margin, error, n - 1)  # that the mean is above −margin
    below = _tail(margin - mean, error, n - 1)  # that it is below +margin
    p, p_not_worse = max(above, below), above if higher_is_better else below
    return Equivalence(margin, mean - half, mean + half, p, p <= alpha, p_not_worse, p_not_worse <= alpha)


def _tail(distance: float, error: float, freedom: int) -> float:
    """One-sided p of a t test for `distance` above 0."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(freedom, -distance / error))
