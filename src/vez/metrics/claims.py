"""From many comparisons to what may be said of each: adjusted for their number, with the word and the n it lacks."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vez.metrics.equivalence import Equivalence, tost
from vez.metrics.power import MOST_PROMPTS, detectable_by_design, prompts_needed, smallest_detectable
from vez.metrics.rules import Rule
from vez.metrics.stats import ALPHA, Comparison, Verdict, benjamini_hochberg, holm, verdict

Key = tuple[str, str, str]
"""(metric, arm, arm it is compared with)."""

Family = Literal["primary", "exploratory"]


@dataclass(frozen=True)
class Claim:
    """One difference and all that may be said of it.

    `p_adjusted` is what `word` goes by: Holm's over the comparisons of a primary metric, Benjamini & Hochberg's over
    all exploratory ones. `mde` is the true difference that would be found 4 times in 5, None where so few prompts can
    show nothing; `mde_more_seeds` what it would come down to with endless seeds of the same prompts. `needs_prompts` is
    how many would find a difference as large as the one seen; None where that is no question or it is more than
    `power.MOST_PROMPTS`. `equivalence` is None where no margin was declared.
    """

    comparison: Comparison
    family: Family
    p_adjusted: float
    mde: float | None
    mde_more_seeds: float | None
    needs_prompts: int | None
    equivalence: Equivalence | None
    word: Verdict

    @property
    def phrase(self) -> str:
        """The word, and what was lacking where nothing was found."""
        if self.word == "equivalent" and self.equivalence is not None:
            return f"equivalent (within ±{self.equivalence.margin:g})"
        if self.word != "not distinguishable":
            return self.word
        if self.needs_prompts is not None:
            return f"not distinguishable (would need n = {self.needs_prompts} prompts)"
        if self.comparison.diff == 0 or self.comparison.n_prompts < 2:
            return "not distinguishable"
        return f"not distinguishable (would need more than {MOST_PROMPTS:,} prompts)"

    def record(self) -> dict[str, Any]:
        """The claim as summary.json holds it: one flat row, the equivalence test within."""
        by_holm = self.family == "primary"
        return asdict(self.comparison) | {
            "family": self.family,
            "p_holm": self.p_adjusted if by_holm else None,
            "p_bh": None if by_holm else self.p_adjusted,
            "mde": self.mde,
            "mde_more_seeds": self.mde_more_seeds,
            "needs_prompts": self.needs_prompts,
            "equivalence": None if self.equivalence is None else asdict(self.equivalence),
            "verdict": self.word,
            "says": self.phrase,
        }


def claims(
    found: Mapping[Key, Comparison],
    rules: Mapping[str, Rule],
    *,
    explored: Collection[str] = (),
    alpha: float = ALPHA,
) -> dict[Key, Claim]:
    """What may be said of each of these comparisons, one table of them.

    A comparison is primary where its metric is and neither arm is ``explored``: a sweep's checkpoints and strengths
    would else take all power from the few comparisons that were asked for. The comparisons of a primary metric are a
    family of their own. A LoRA is recommended only where it passes on every primary metric, and a claim that all of
    several hold needs no adjustment over them (intersection-union).

    ``alpha`` is what of `ALPHA` is left for this look at the primary ones (`vez.metrics.looks`); with 0 none is
    primary.
    """
    p_values = {key: comparison.p for key, comparison in found.items()}
    adjusted = adjust(p_values, rules, explored=explored, alpha=alpha)
    primary = {key for key in found if is_primary(key, rules, explored=explored, alpha=alpha)}
    size: dict[str, int] = {}
    for metric, *_ in primary:
        size[metric] = size.get(metric, 0) + 1
    return {
        key: _claim(
            comparison,
            rules[key[0]],
            family="primary" if key in primary else "exploratory",
            p_adjusted=adjusted[key],
            # What a primary comparison could see is told at Holm's hardest step: as if it came first of its family.
            alpha=alpha / size[key[0]] if key in primary else ALPHA,
        )
        for key, comparison in found.items()
    }


def adjust(
    p_values: Mapping[Key, float],
    rules: Mapping[str, Rule],
    *,
    explored: Collection[str] = (),
    alpha: float = ALPHA,
) -> dict[Key, float]:
    """Holm over each primary metric's primary comparisons, Benjamini & Hochberg over all the others together.

    Where only ``alpha`` of `ALPHA` is left for this look, a primary p counts `ALPHA` / ``alpha`` times: so what is
    adjusted is compared with `ALPHA` at every look. Before Holm or after it is the same, since Holm only multiplies and
    takes the largest.
    """
    primary = [key for key in p_values if is_primary(key, rules, explored=explored, alpha=alpha)]
    adjusted: dict[Key, float] = {}
    for metric in sorted({metric for metric, *_ in primary}):
        times = ALPHA / alpha
        adjusted |= _adjusted(holm, ((key, min(1.0, times * p_values[key])) for key in primary if key[0] == metric))
    rest = ((key, p) for key, p in p_values.items() if key not in adjusted)
    return adjusted | _adjusted(benjamini_hochberg, rest)


def is_primary(key: Key, rules: Mapping[str, Rule], *, explored: Collection[str] = (), alpha: float = ALPHA) -> bool:
    """Whether a comparison is one of those that were declared, and has some error left to be called by."""
    metric, *arms = key
    return alpha > 0 and rules[metric].primary and not any(arm in explored for arm in arms)


def _adjusted(by: Callable[[Sequence[float]], list[float]], family: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    p_values = dict(family)
    return dict(zip(p_values, by(list(p_values.values())), strict=True))


def _claim(comparison: Comparison, rule: Rule, *, family: Family, p_adjusted: float, alpha: float) -> Claim:
    better_high = rule.higher_is_better
    same = None
    if rule.margin is not None:
        same = tost(
            comparison.diff, comparison.sd, comparison.n_prompts, margin=rule.margin, higher_is_better=better_high
        )
    equal = same is not None and same.equivalent
    word = verdict(comparison.diff, p_adjusted, higher_is_better=better_high, equivalent=equal)
    lacking = word == "not distinguishable" and comparison.diff != 0 and comparison.n_prompts > 1
    return Claim(
        comparison=comparison,
        family=family,
        p_adjusted=p_adjusted,
        mde=smallest_detectable(comparison.sd, comparison.n_prompts, alpha=alpha),
        mde_more_seeds=_with_endless_seeds(comparison, alpha),
        needs_prompts=prompts_needed(comparison.diff, comparison.sd, alpha=alpha) if lacking else None,
        equivalence=same,
        word=word,
    )


def _with_endless_seeds(comparison: Comparison, alpha: float) -> float | None:
    if comparison.sd_seeds is None:
        return None
    between, within = comparison.sd_prompts, comparison.sd_seeds
    return detectable_by_design(comparison.n_prompts, math.inf, between=between, within=within, alpha=alpha)
