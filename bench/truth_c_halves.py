"""How far a rank correlation with the oracle can go: whether one half of the pictures ranks LoRAs as the other does."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Pictures = Mapping[str, Mapping[tuple[str, int], tuple[float, float]]]
"""LoRA → (prompt, noise) → what the oracle and what the metric say of that picture."""

SPLITS = 200


def reliability(pictures: Pictures) -> dict[str, float]:
    """Of the oracle, of the metric, and the most their correlation is expected to be.

    Prompts are halved at random, the same for all LoRAs; the rank correlation of the halves' means, averaged over many
    halvings, is what half of the pictures is worth, and Spearman and Brown's formula what all are. The square root of
    the product bounds the correlation of two measures that err apart (Spearman 1904); these two look at the same
    pictures, so that luck of drawing moves both, and the bound may be passed. Nothing of fewer than three LoRAs, which
    have no ranks to compare.
    """
    if len(pictures) < 3:
        return {}
    rng = np.random.default_rng(20)
    prompts = sorted({prompt for of in pictures.values() for prompt, _ in of})
    found: list[list[float]] = [[], []]
    for _ in range(SPLITS):
        half = set(rng.permutation(prompts)[: len(prompts) // 2].tolist())
        for which in (0, 1):
            sides = [[_mean(of, which, half, inside) for of in pictures.values()] for inside in (True, False)]
            found[which].append(float(spearmanr(*sides).statistic))
    whole = [2 * r / (1 + r) for r in (max(float(np.nanmean(of)), 0.0) for of in found)]
    return {
        "oracle": round(whole[0], 3),
        "metric": round(whole[1], 3),
        "ceiling": round(float(np.sqrt(whole[0] * whole[1])), 3),
    }


def predicted(of: Mapping[str, float], *, times: float) -> float:
    """The most that a correlation is expected to be with so many times the pictures (Spearman and Brown 1910)."""
    grown = [times * of[who] / (1 + (times - 1) * of[who]) for who in ("oracle", "metric")]
    return float(np.sqrt(grown[0] * grown[1]))


def _mean(of: Mapping[tuple[str, int], tuple[float, float]], which: int, half: set[str], inside: bool) -> float:
    """An arm's mean over prompts, of those in the half or of the others."""
    cells: dict[str, list[float]] = {}
    for (prompt, _), both in of.items():
        if (prompt in half) == inside:
            cells.setdefault(prompt, []).append(both[which])
    return float(np.mean([np.mean(values) for values in cells.values()]))


def area(good: Sequence[float] | NDArray[np.float64], bad: Sequence[float] | NDArray[np.float64]) -> float:
    """Chance that one of ``good`` lies above one of ``bad``: the area under the ROC."""
    return float((np.sign(np.subtract.outer(good, bad)) + 1).mean() / 2)


def line(good: Sequence[float], bad: Sequence[float], *, keep: str) -> float | None:
    """Where a limit misjudges the smallest shares of both sides together (Youden 1950), midway between two LoRAs.

    None where all LoRAs are on one side.
    """
    if not good or not bad:
        return None
    sign = 1 if keep == "above" else -1
    one, other = np.sort(sign * np.array(good)), np.sort(sign * np.array(bad))
    every = np.unique(np.concatenate([one, other]))
    between = (every[1:] + every[:-1]) / 2
    gain = [(one > at).mean() + (other < at).mean() for at in between]
    best = np.flatnonzero(np.isclose(gain, max(gain)))
    return float(sign * between[best].mean())
