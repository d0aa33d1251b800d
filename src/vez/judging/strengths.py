"""Bradley–Terry strengths: how often each arm would be preferred to each other, from who was preferred to whom.

P(a is preferred to b) = σ(θ_a − θ_b) (Bradley & Terry 1952). A tie counts half for either: θ then says of two arms what
their win rate with ties as half says, which is what is printed, no parameter is spent on how often a judge calls a tie,
and where every pairing is judged equally often (the plan sees to it) the order is the one that Davidson's (1970) model
with its tie parameter gives. What it costs: the second derivative takes a tie for a coin's toss and so overstates the
spread, which `gap` allows for.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

RIDGE: Final = 0.05
"""Weight of the sum of squares: keeps an arm that won every vote at a finite strength, and moves others little."""

DRAWS: Final = 2000
"""Resamples of the prompts."""

_STEPS, _TOLERANCE = 100, 1e-10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Comparisons as arrays of length n: arms as numbers, ``won`` 1 where the left one was preferred, .5 for a tie."""

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    won: Floats
    arms: int

    def design(self, *, side: bool = False) -> Floats:
        """(n, arms) with 1 for the left and −1 for the right arm; with ``side`` one more column of 1, for the left."""
        rows = np.arange(len(self.won))
        x = np.zeros((len(rows), self.arms + side))
        x[rows, self.left] += 1
        x[rows, self.right] -= 1
        if side:
            x[:, -1] = 1
        return x


def outcomes(left: ArrayLike, right: ArrayLike, won: ArrayLike, *, arms: int) -> Outcomes:
    """The same from any sequences."""
    return Outcomes(np.asarray(left, np.intp), np.asarray(right, np.intp), np.asarray(won, np.float64), arms)


def fit(of: Outcomes, weights: ArrayLike | None = None, *, ridge: float = RIDGE, side: bool = False) -> Floats:
    """Strengths that maximise the likelihood less ridge · Σθ², by Newton's method; their mean is 0.

    Args:
        of: n comparisons.
        weights: (B, n), how often each counts in each of B resamples; None: once, and the result has no B.
        ridge: positive, or 0 where no arm has won or lost everything.
        side: also fit how much the left place is worth, in the last column.
    Returns:
        (B, arms) or (B, arms + 1), in natural log-odds; without ``weights`` one such row.
    """
    x = of.design(side=side)
    w = np.ones((1, len(of.won))) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    penalty = 2 * ridge * np.eye(x.shape[1])
    if side:
        penalty[-1, -1] = 0  # a habit is not held small
    # Along (1, …, 1) the likelihood is flat: a wall there, felt by nothing else, keeps the matrix regular.
    level = np.zeros(x.shape[1])
    level[: of.arms] = 1
    wall = np.outer(level, level)
    theta = np.zeros((len(w), x.shape[1]))
    for _ in range(_STEPS):
        p = special.expit(theta @ x.T)  # (B, n)
        slope = (w * (of.won - p)) @ x - theta @ (penalty + wall)
        curve = np.einsum("bn,nk,nl->bkl", w * p * (1 - p), x, x, optimize=True) + penalty + wall
        if side:
            curve[:, -1, -1] += 1e-12  # a resample may hold no vote that tells
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        theta += step * np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        if np.abs(step).max() < _TOLERANCE:
            break
    theta[:, : of.arms] -= theta[:, : of.arms].mean(axis=1, keepdims=True)
    return theta if weights is not None else theta[0]


@dataclass(frozen=True)
class Fitted:
    """Strengths ``theta`` (arms,) and how far they can be trusted.

    ``model`` (arms, arms) is their covariance by the likelihood's second derivative, as if no two votes shared a
    prompt; ``robust`` by how prompts disagree; ``draws`` (B, arms) are the strengths of resampled prompts.
    """

    theta: Floats
    model: Floats
    robust: Floats
    draws: Floats
    prompts: int


@dataclass(frozen=True)
class Gap:
    """A difference of strengths with 95 % limits and the p that it is 0; no limits where there is only one prompt."""

    value: float
    low: float | None
    high: float | None
    p: float


def fitted(of: Outcomes, prompts: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Fitted:
    """Strengths with all that `gap` and `best` need. ``prompts``: of each comparison, as numbers from 0."""
    cluster = np.asarray(prompts, np.intp)
    count = int(cluster.max(initial=0)) + 1
    theta = fit(of)
    x = of.design()
    p = special.expit(x @ theta)
    curve = x.T @ (x * (p * (1 - p))[:, None]) + 2 * RIDGE * np.eye(of.arms)
    centre = np.eye(of.arms) - 1 / of.arms  # the strengths' mean is held at 0
    model = centre @ np.linalg.inv(curve + 1 / of.arms) @ centre
    pulls = np.zeros((count, of.arms))  # what each prompt would move, of the slope
    np.add.at(pulls, cluster, (of.won - p)[:, None] * x)
    robust = model @ (pulls.T @ pulls) @ model * (count / max(1, count - 1))
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), draws)[:, cluster]
    return Fitted(theta, model, robust, fit(of, weights), count)


def gap(of: Fitted, contrast: ArrayLike) -> Gap:
    """contrast · θ with its interval: the wider of two.

    The first is the cluster-robust one with t(n − 1) over n prompts (Liang & Zeger 1986), since votes on one prompt go
    together: a prompt that suits an arm suits it for every noise and every judge. It shrinks to nothing where an arm
    won every vote, so the second is three quarters of the likelihood's own; three quarters, since that takes ties for a
    coin's tosses. In the simulation of tests/judging/test_coverage.py the two together cover 95 to 97 %, where either
    alone falls below 95 in one case or another.
    """
    c = np.asarray(contrast, np.float64)
    value = float(c @ of.theta)
    if of.prompts < 2:
        return Gap(value, None, None, 1.0)
    robust, model = float(c @ of.robust @ c) ** 0.5, 0.75 * float(c @ of.model @ c) ** 0.5
    half = max(float(stats.t.ppf(0.975, of.prompts - 1)) * robust, float(stats.norm.ppf(0.975)) * model)
    p_robust = 2 * stats.t.sf(abs(value) / max(robust, 1e-12), of.prompts - 1)
    p_model = 2 * stats.norm.sf(abs(value) / max(model, 1e-12))
    return Gap(value, value - half, value + half, float(max(p_robust, p_model)))


def best(draws: Floats) -> Floats:
    """(arms,): in which share of the resamples each arm is the strongest; a tie is shared out."""
    top = draws >= draws.max(axis=1, keepdims=True) - 1e-9
    share: Floats = (top / top.sum(axis=1, keepdims=True)).mean(axis=0)
    return share
