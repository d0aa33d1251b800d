"""The best of several looks better than it is: how much better, and the number that may be reported instead.

Whichever candidate was lucky with the prompts and noises of the selection is the likelier to be picked. Its score on
those pictures is biased; its score on prompts that had no say in the choice is not.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vez.metrics.layout import Cells, pair
from vez.metrics.power import best_of, spread_limit, spread_of_equals
from vez.metrics.stats import Interval, prompt_means, t_interval


@dataclass(frozen=True)
class Selection:
    """The best of `candidates` by their means on the pictures that chose it.

    `selected` is its mean there: **biased**. `expected_bias` is by how much the best of so many equals beats its truth
    on average, `spread_of_equals` how far apart the best and the worst of them then lie, `spread_limit` what that
    exceeds once in 20 times: all in the metric's units, None where the candidates share no two prompts or there is one.
    A real lead makes the bias smaller.
    """

    chosen: str
    candidates: int
    selected: Interval
    expected_bias: float | None
    spread_of_equals: float | None
    spread_limit: float | None


@dataclass(frozen=True)
class Confirmation:
    """A selection, and what the chosen scored where it was not chosen: `confirmed` is the number to report."""

    selection: Selection
    confirmed: Interval


def apart(
    cells: Cells, confirming: Collection[str]
) -> tuple[dict[tuple[str, int], float], dict[tuple[str, int], float]]:
    """An arm's values on the prompts that select, and on those that confirm; NaN, which is missing, in neither."""
    there = {key: value for key, value in cells.items() if not math.isnan(value)}
    selecting = {key: value for key, value in there.items() if key[0] not in confirming}
    return selecting, {key: value for key, value in there.items() if key[0] in confirming}


def select(arms: Mapping[str, Cells], *, higher_is_better: bool) -> Selection:
    """The arm with the best mean over prompts, and how much of its lead luck alone would give.

    Raises ValueError where there is no arm.
    """
    if not arms:
        raise ValueError("there is nothing to choose from; score at least one arm")
    means = {arm: t_interval(list(prompt_means(cells).values())) for arm, cells in arms.items()}
    sign = 1.0 if higher_is_better else -1.0
    chosen = min(means, key=lambda arm: (-sign * means[arm].mean, arm))
    error = _own_error(list(arms.values()))
    if error is None:
        return Selection(chosen, len(arms), means[chosen], None, None, None)
    bias, span, limit = (error * of(len(arms)) for of in (best_of, spread_of_equals, spread_limit))
    return Selection(chosen, len(arms), means[chosen], sign * bias, span, limit)


def confirm(selecting: Mapping[str, Cells], confirming: Mapping[str, Cells], *, higher_is_better: bool) -> Confirmation:
    """Choose on one set of prompts, report on the other.

    Raises ValueError where a prompt is in both, or the chosen arm was not drawn for confirmation.
    """
    prompts = [{prompt for cells in arms.values() for prompt, _ in cells} for arms in (selecting, confirming)]
    if both := sorted(prompts[0] & prompts[1]):
        raise ValueError(f"the prompt {both[0]!r} both selects and confirms; a choice is confirmed by other prompts")
    selection = select(selecting, higher_is_better=higher_is_better)
    if not confirming.get(selection.chosen):
        raise ValueError(f"{selection.chosen} was chosen, but no picture of it confirms; draw the confirmation with it")
    return Confirmation(selection, t_interval(list(prompt_means(confirming[selection.chosen]).values())))


def _own_error(arms: Sequence[Cells]) -> float | None:
    """The standard error of one arm's mean that it does not share with the others: what luck chooses by."""
    variances = []
    for a, b in combinations(arms, 2):
        if a.keys() & b.keys():
            d = pair(a, b).prompt_means
            if d.size > 1:
                variances.append(float(d.var(ddof=1)) / d.size / 2)
    return math.sqrt(float(np.mean(variances))) if variances else None
