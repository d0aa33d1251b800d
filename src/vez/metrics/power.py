"""How much a design can see: the smallest detectable difference, the prompts it would take, and what luck alone does.

`sd` is always that of the prompts' differences (`Comparison.sd`), `n` a number of prompts.
"""

import math
from functools import cache

import numpy as np
from scipy import integrate, optimize, stats

from vez.metrics.stats import ALPHA, EXACT_LIMIT, sign_patterns, smallest_p

POWER = 0.80
"""The chance with which `smallest_detectable` differences would be found."""

FEW_PATTERNS = 30
"""Below so many sign patterns a p-value moves in steps too coarse for a t test to stand for the sign-flip test."""

DRAWS = 1500

MOST_PROMPTS = 10_000
"""More prompts than this are not asked for: the difference is too small to matter to anybody."""


def smallest_detectable(sd: float, n: int, *, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The true difference that the sign-flip test over `n` prompts finds, with the right sign, at probability `power`.

    None where so few prompts can never give a p as small as `alpha`. For normally distributed differences: where only a
    few sign patterns may be as large as the one seen, by simulation; else as a t test, which then has the same power.
    """
    if n < 2 or smallest_p(n) > alpha:
        return None
    if sd == 0:
        return 0.0
    patterns = math.floor(alpha * 2 ** (n - 1) * (1 + 1e-12)) if n <= EXACT_LIMIT else FEW_PATTERNS
    if n <= 12 and patterns < FEW_PATTERNS:
        return sd * _by_patterns(n, patterns, power)
    return sd / math.sqrt(n) * _noncentrality(n, alpha, power)


@cache
def _noncentrality(n: int, alpha: float, power: float) -> float:
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def shortfall(noncentrality: float) -> float:
        # The wrong tail (significant in the opposite direction) does not count as a finding.
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - power

    return float(optimize.brentq(shortfall, 1e-6, 4 * critical + 10))


@cache
def _by_patterns(n: int, patterns: int, power: float) -> float:
    """The shift, in sd, at which no more than `patterns` of the 2^(n − 1) sign patterns reach the sum seen.

    The same normal numbers are shifted until the share of findings is `power`, which is so right to ±0.02.
    """
    noise = np.random.default_rng(0).standard_normal((DRAWS, n))
    signs = sign_patterns(n)
    sums, slopes = noise @ signs.T, signs.sum(axis=1)  # of the noise, and of a shift by 1

    def shortfall(shift: float) -> float:
        flipped = sums + shift * slopes  # (draws, 2^(n-1)); the first pattern is the sum as seen
        np.abs(flipped, out=flipped)
        reached = np.count_nonzero(flipped >= flipped[:, :1] - 1e-9, axis=1)
        return float(np.mean((reached <= patterns) & (sums[:, 0] > -n * shift))) - power

    return float(optimize.brentq(shortfall, 0.1, 6.0, xtol=0.01))


def detectable_by_design(
    prompts: int, seeds: float, *, between: float, within: float, alpha: float = ALPHA
) -> float | None:
    """`smallest_detectable` of a design; standard deviations `between` prompts and `within` a prompt's seeds.

    `seeds` may be infinite: what is left then is all that more seeds can never buy.
    """
    return smallest_detectable(math.sqrt(between**2 + within**2 / seeds), prompts, alpha=alpha)


def prompts_needed(diff: float, sd: float, *, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """The number of prompts that would find a true difference of `diff` with probability `power`, seeds as they are.

    None above `MOST_PROMPTS`. Raises ValueError where `diff` is 0: no number of prompts tells equals apart.
    """
    if diff == 0:
        raise ValueError("no number of prompts tells two equal arms apart; give the difference that would matter")
    fewest = next(n for n in range(2, 64) if smallest_p(n) <= alpha or n > EXACT_LIMIT)
    n = max(fewest, math.floor(_by_normal(abs(diff), sd, alpha, power)))
    while n <= MOST_PROMPTS:
        found = smallest_detectable(sd, n, alpha=alpha, power=power)
        if found is not None and found <= abs(diff):
            return n
        n += 1
    return None


def pictures_needed(diff: float, sd: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """n = (z₁₋α/₂ + z_power)² sd² / diff², the textbook number of independent differences, rounded up.

    For planning over single pictures with a known `sd`, as in published tables; `prompts_needed` allows for an
    estimated one.
    """
    return math.ceil(_by_normal(abs(diff), sd, alpha, power))


def votes_needed(rate: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Decided votes that find, with probability `power`, that A wins at a true `rate` and not at one half.

    The normal approximation for a proportion. Raises ValueError where `rate` is not between 0 and 1, or is one half.
    """
    if not 0 < rate < 1 or rate == 0.5:
        raise ValueError(f"a win rate of {rate} cannot be told from one half by votes; give one inside 0 to 1, not 0.5")
    ask = stats.norm.ppf(1 - alpha / 2) * 0.5 + stats.norm.ppf(power) * math.sqrt(rate * (1 - rate))
    return math.ceil((float(ask) / (rate - 0.5)) ** 2)


def wins_needed(votes: int, *, alpha: float = ALPHA) -> int | None:
    """The fewest wins of `votes` decided ones that the exact binomial test calls significant; None where none are."""
    wins = int(stats.binom.isf(alpha / 2, votes, 0.5)) + 1
    return wins if wins <= votes else None


@cache
def best_of(k: int) -> float:
    """How far the best of `k` equal candidates lies above their truth on average, in standard errors of one candidate.

    The mean of the largest of k standard normal numbers: 1.16 for 5, 1.87 for 20, 2.51 for 100.
    """
    if k < 1:
        raise ValueError(f"the best of {k} candidates does not exist; give 1 or more")
    if k == 1:
        return 0.0
    # E max = ∫ (1 − F) over the positive half − ∫ F over the negative one, with F = Φ^k.
    above, _ = integrate.quad(lambda x: 1 - stats.norm.cdf(x) ** k, 0, 12)
    below, _ = integrate.quad(lambda x: stats.norm.cdf(x) ** k, -12, 0)
    return float(above - below)


def spread_of_equals(k: int) -> float:
    """Expected best minus worst of `k` equal candidates, in standard errors of one: 2.33 for 5."""
    return 2 * best_of(k)


@cache
def spread_limit(k: int, *, alpha: float = ALPHA) -> float:
    """Best minus worst that `k` equal candidates exceed with probability `alpha`, in standard errors: 3.86 for 5."""
    return float(stats.studentized_range.isf(alpha, k, math.inf))


def _by_normal(diff: float, sd: float, alpha: float, power: float) -> float:
    return ((float(stats.norm.ppf(1 - alpha / 2)) + float(stats.norm.ppf(power))) * sd / diff) ** 2
