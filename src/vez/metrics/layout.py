"""Two arms side by side: prompts × seeds of differences, cells that may be missing, and where the spread comes from.

The same seed means the same noise in both arms, so a cell holds a difference between two pictures that differ only by
their LoRA. What only one of the arms has is not guessed: it is left out and counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Cells = Mapping[tuple[str, int], float]
"""(prompt, seed) → value of one picture of one arm; NaN counts as missing."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Differences of arm A minus arm B.

    `differences`, `of_a` and `of_b` are (prompts, seeds), NaN where the pair is not complete; every prompt and every
    seed named has at least one complete pair. `missing` cells were in one arm only, `lost` are the prompts that have
    no complete pair left.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    differences: Array
    of_a: Array
    of_b: Array
    missing: int
    lost: tuple[str, ...]

    @property
    def n_pairs(self) -> int:
        """Pairs of pictures with the same prompt and noise."""
        return int(np.count_nonzero(~np.isnan(self.differences)))

    @property
    def prompt_means(self) -> Array:
        """The difference of each prompt, its seeds averaged: the numbers that tests and intervals are about."""
        return np.asarray(np.nanmean(self.differences, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Spread:
    """Standard deviations of differences: `prompts` between prompts, freed of seeds; `seeds` between a prompt's seeds.

    `seeds` is None where no prompt has two. More seeds shrink only `seeds`; more prompts shrink both.
    """

    prompts: float
    seeds: float | None


def pair(a: Cells, b: Cells) -> Layout:
    """Arm `a` minus arm `b`, cell by cell.

    Raises ValueError where no (prompt, seed) is in both, or a value is infinite.
    """
    of_a, of_b = _there(a), _there(b)
    both = [key for key in of_a if key in of_b]
    if not both:
        raise ValueError("the two arms share no (prompt, seed), so there is nothing to compare; score both arms first")
    prompts = tuple(dict.fromkeys(prompt for prompt, _ in both))
    seeds = tuple(sorted({seed for _, seed in both}))
    row = {prompt: i for i, prompt in enumerate(prompts)}
    column = {seed: i for i, seed in enumerate(seeds)}
    grids = np.full((2, len(prompts), len(seeds)), np.nan)
    for prompt, seed in both:
        grids[:, row[prompt], column[seed]] = of_a[prompt, seed], of_b[prompt, seed]
    either = dict.fromkeys([*a, *b])
    lost = tuple(dict.fromkeys(prompt for prompt, _ in either if prompt not in row))
    return Layout(prompts, seeds, grids[0] - grids[1], grids[0], grids[1], len(either) - len(both), lost)


def spread(layout: Layout) -> Spread:
    """Where the spread of the differences comes from: analysis of variance of prompts, and seeds within prompts.

    With uneven numbers of seeds their harmonic mean stands for the number. A negative estimate is given as 0.
    """
    means, counts = layout.prompt_means, np.count_nonzero(~np.isnan(layout.differences), axis=1)
    total = float(means.var(ddof=1)) if means.size > 1 else 0.0
    freedom = layout.n_pairs - means.size
    if freedom == 0:
        return Spread(math.sqrt(total), None)
    within = float(np.nansum((layout.differences - means[:, None]) ** 2)) / freedom
    per_prompt = means.size / float(np.sum(1 / counts))
    return Spread(math.sqrt(max(0.0, total - within / per_prompt)), math.sqrt(within))


def noise_correlation(layout: Layout) -> float | None:
    """How alike the same noise makes the two arms: Pearson's r of pictures' values, each prompt's mean taken off.

    This r decides what pairing by seed is worth: the variance of a paired difference is 2 (1 − r) times a picture's.
    None where no prompt has two seeds, or an arm does not vary.
    """
    gap = np.isnan(layout.differences)
    free = [np.where(gap, 0.0, grid - _row_means(grid)) for grid in (layout.of_a, layout.of_b)]
    squares = [float((grid**2).sum()) for grid in free]
    scale = [float(np.nansum(grid**2)) for grid in (layout.of_a, layout.of_b)]
    if any(square <= 1e-20 * (1e-300 + total) for square, total in zip(squares, scale, strict=True)):
        return None
    r = float((free[0] * free[1]).sum()) / math.sqrt(squares[0] * squares[1])
    return min(1.0, max(-1.0, r))


def prompt_correlation(layout: Layout) -> float | None:
    """Pearson's r of the two arms' prompt means; None with fewer than three prompts or where an arm does not vary."""
    means = [_row_means(grid)[:, 0] for grid in (layout.of_a, layout.of_b)]
    if len(means[0]) < 3 or any(of.std() <= 1e-10 * float(np.abs(of).max()) for of in means):
        return None
    return float(np.corrcoef(means[0], means[1])[0, 1])


def _row_means(grid: Array) -> Array:
    return np.asarray(np.nanmean(grid, axis=1, keepdims=True), dtype=np.float64)


def _there(cells: Cells) -> dict[tuple[str, int], float]:
    there = {key: float(value) for key, value in cells.items() if not math.isnan(value)}
    wrong = next((key for key, value in there.items() if math.isinf(value)), None)
    if wrong is not None:
        raise ValueError(
            f"the value of prompt {wrong[0]!r}, seed {wrong[1]} is infinite: not finite; mend the metric first"
        )
    return there
