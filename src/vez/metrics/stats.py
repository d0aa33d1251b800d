"""What a difference between two sets of pictures is worth: intervals, tests, and the words the report may use.

The unit is the *prompt*: pictures of one prompt share its difficulty, so a difference is averaged over a prompt's seeds
first and only then compared across prompts. Pooling pictures instead gives 95 % intervals that cover 62–86 %
(docs/truth.md). Pure numpy and scipy: no models, no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from vez.metrics.layout import Cells, noise_correlation, pair, prompt_correlation, spread

ALPHA = 0.05
"""Two-sided error rate of every test and the complement of every interval's level."""

EXACT_LIMIT = 16
"""Up to this many prompts all 2^n sign patterns are tried; above, random ones."""

MONTE_CARLO_DRAWS = 20_000

Verdict = Literal["better", "worse", "equivalent", "not distinguishable"]
"""The words for a difference; "not measured" is the word where there is none."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence limits; `low` and `high` are None where one value leaves no spread to judge by."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """Arm A minus arm B, paired by prompt (same noise for the same seed in both arms).

    `smallest_p` is the least p that n prompts can give at all (2/2^n): below six prompts no difference, however large,
    is significant at 0.05. `sd` is that of the prompts' differences, `sd_prompts` and `sd_seeds` its
    parts (`layout.Spread`). `correlation` is Pearson's between the two arms'
    prompt means, `noise_correlation` the one that pairing by seed brings (`layout.noise_correlation`); None when
    undefined. `missing` pictures had no partner in the other arm and were left out, `lost` whole prompts among them.
    """

    diff: float
    low: float | None
    high: float | None
    p: float
    smallest_p: float
    sd: float
    sd_prompts: float
    sd_seeds: float | None
    n_prompts: int
    n_pairs: int
    correlation: float | None
    noise_correlation: float | None
    missing: int
    lost: int


def t_interval(values: ArrayLike, *, level: float = 1 - ALPHA) -> Interval:
    """Student's t interval for the mean of `values` (n,), one value per prompt.

    Raises ValueError when `values` is empty or not finite.
    """
    x = finite(values)
    if x.size == 1:
        return Interval(float(x[0]), None, None, 1)
    half = critical(0.5 + level / 2, x.size - 1) * float(x.std(ddof=1)) / x.size**0.5
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, int(x.size))


@cache
def critical(level: float, freedom: int) -> float:
    """The quantile of Student's t. scipy takes 0.1 ms for it, and a large table asks for the same ones 10,000 times."""
    return float(stats.t.ppf(level, freedom))


def sign_flip_p(differences: ArrayLike, *, seed: int = 0, draws: int = MONTE_CARLO_DRAWS) -> float:
    """Two-sided p of Fisher's sign-flip (randomisation) test that paired `differences` (n,) are symmetric about 0.

    Exact for n <= EXACT_LIMIT; above that `draws` random patterns with the add-one rule of Phipson & Smyth (2010), so
    that p is never 0. `seed` fixes the patterns. Raises ValueError when `differences` is empty or not finite.
    """
    d = finite(differences)
    observed = abs(float(d.sum()))
    # A pattern that ties with the observed one must count as "at least as large" in spite of rounding.
    tied = observed - 1e-9 * float(np.abs(d).sum())
    if d.size <= EXACT_LIMIT:
        return float(np.mean(np.abs(sign_patterns(d.size) @ d) >= tied))
    return float((np.count_nonzero(np.abs(_random_signs(d.size, seed, draws) @ d) >= tied) + 1) / (draws + 1))


@cache
def sign_patterns(n: int) -> NDArray[np.float64]:
    """All patterns of n signs but for their negatives, which say the same: (2^(n − 1), n), the first all +1."""
    codes = np.arange(2 ** (n - 1), dtype=np.int64)
    return np.where((codes[:, None] >> np.arange(n)) & 1, np.float64(-1), np.float64(1))


@lru_cache(maxsize=2)
def _random_signs(n: int, seed: int, draws: int) -> NDArray[np.float64]:
    return np.where(np.random.default_rng(seed).integers(0, 2, (draws, n)), np.float64(1), np.float64(-1))


def smallest_p(n: int) -> float:
    """The smallest two-sided p that the exact sign-flip test can return for `n` pairs."""
    return min(1.0, 2.0 ** (1 - n)) if n <= EXACT_LIMIT else 1.0 / (MONTE_CARLO_DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: p-values that keep the family-wise error, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's (1995) step-up adjustment, in the order given.

    Calling a difference found where this is at most 0.05 keeps the expected share of false ones among those found
    under 5 %: a weaker promise than Holm's, for what is only explored.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    adjusted = [0.0] * len(p_values)
    running = 1.0
    for above, i in enumerate(order):
        running = min(running, p_values[i] * len(p_values) / (len(p_values) - above))
        adjusted[i] = running
    return adjusted


def prompt_means(values: Cells) -> dict[str, float]:
    """The mean over seeds for each prompt of {(prompt, seed): value}, prompts in order of first appearance."""
    grouped: dict[str, list[float]] = {}
    for (prompt, _), value in values.items():
        grouped.setdefault(prompt, []).append(value)
    return {prompt: float(np.mean(of_prompt)) for prompt, of_prompt in grouped.items()}


def compare(a: Cells, b: Cells, *, seed: int = 0) -> Comparison:
    """Arm `a` minus arm `b`, both {(prompt, seed): value}; only pairs present in both count, the others are counted.

    Raises ValueError when the two share no (prompt, seed), or a value is infinite.
    """
    layout = pair(a, b)
    d, parts = layout.prompt_means, spread(layout)
    interval = t_interval(d)
    return Comparison(
        diff=interval.mean,
        low=interval.low,
        high=interval.high,
        p=sign_flip_p(d, seed=seed),
        smallest_p=smallest_p(d.size),
        sd=float(d.std(ddof=1)) if d.size > 1 else 0.0,
        sd_prompts=parts.prompts,
        sd_seeds=parts.seeds,
        n_prompts=int(d.size),
        n_pairs=layout.n_pairs,
        correlation=prompt_correlation(layout),
        noise_correlation=noise_correlation(layout),
        missing=layout.missing,
        lost=len(layout.lost),
    )


def verdict(
    diff: float, p: float, *, higher_is_better: bool, equivalent: bool = False, alpha: float = ALPHA
) -> Verdict:
    """The word for a difference: what is not significant at `alpha` is never called better or worse.

    `equivalent` says that an equivalence test held (`equivalence.tost`): without one, no difference found is no proof
    of none, and the word is "not distinguishable".
    """
    if p > alpha or diff == 0:
        return "equivalent" if equivalent else "not distinguishable"
    return "better" if (diff > 0) == higher_is_better else "worse"


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """`values` as a flat array. Raises ValueError when there are none, or one is not finite."""
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if x.size == 0:
        raise ValueError("no values: a mean needs at least one")
    if not np.isfinite(x).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(x))} of {x.size} values are not finite; drop or mend them first"
        )
    return x
