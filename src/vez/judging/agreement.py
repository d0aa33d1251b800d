"""How far votes can be trusted: a judge with themselves, judges with each other, and how many votes a claim needs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

ALPHA: Final = 0.05
POWER: Final = 0.80
LIKELY: Final = 0.65
"""The win rate that a study should be able to see."""


@dataclass(frozen=True)
class Share:
    """``k`` of ``n``, with Clopper and Pearson's (1934) exact 95 % limits; None where n is 0."""

    k: float
    n: int
    low: float | None
    high: float | None

    @property
    def rate(self) -> float | None:
        """k ÷ n."""
        return self.k / self.n if self.n else None


def share(k: int, n: int) -> Share:
    """k of n with its limits."""
    if n == 0:
        return Share(k, n, None, None)
    low = 0.0 if k == 0 else float(stats.beta.ppf(ALPHA / 2, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(1 - ALPHA / 2, k + 1, n - k))
    return Share(k, n, low, high)


def coin_p(k: int, n: int) -> float:
    """Two-sided exact p that a fair coin falls as unevenly as k of n; 1 where n is 0."""
    return float(stats.binomtest(k, n).pvalue) if n else 1.0


def wins_needed(n: int) -> int | None:
    """The fewest of n decided votes that are significant at 0.05; None where not even all of them are."""
    return next((k for k in range(n // 2 + 1, n + 1) if coin_p(k, n) <= ALPHA), None)


def votes_needed(rate: float = LIKELY, *, power: float = POWER) -> int:
    """Decided votes that show a true win rate with this power at 0.05, two-sided (normal approximation, as planned)."""
    z, zp = float(stats.norm.ppf(1 - ALPHA / 2)), float(stats.norm.ppf(power))
    return math.ceil(((z * 0.5 + zp * math.sqrt(rate * (1 - rate))) / (rate - 0.5)) ** 2)


def chance_to_see(n: int, rate: float = LIKELY) -> float:
    """The exact test's power: how likely n decided votes are significant, in the right direction, at this win rate."""
    needed = wins_needed(n)
    return 0.0 if needed is None else float(stats.binom.sf(needed - 1, n, rate))


def krippendorff(
    units: Sequence[Mapping[str, float]], *, level: Literal["nominal", "interval"] = "interval"
) -> float | None:
    """Krippendorff's α (2011): 1 where judges agree, 0 where they agree as by chance.

    Args:
        units: what was judged, each as judge → value; a judge may be missing.
        level: whether values are names or numbers.
    Returns:
        None where no unit has two values, or all values are the same.
    """
    rated = [list(unit.values()) for unit in units if len(unit) > 1]
    values = sorted({value for unit in rated for value in unit})
    if len(values) < 2:
        return None
    at = {value: i for i, value in enumerate(values)}
    together: NDArray[np.float64] = np.zeros((len(values), len(values)))
    for unit in rated:
        counts = np.bincount([at[value] for value in unit], minlength=len(values)).astype(np.float64)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    names = np.array(values)
    apart = (
        (names[:, None] != names[None]).astype(np.float64)
        if level == "nominal"
        else (names[:, None] - names[None]) ** 2
    )
    totals = together.sum(axis=1)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return 1 - float((together * apart).sum() / (expected * apart).sum())
