"""Which LoRAs are left, and which of them comes first: gates, the front of two axes, the reader's weight. Pure.

The two axes are the concept and the rest of the prompt. A LoRA is off the front only where another is *shown* to be
better on one of them and shown to be no worse on the other. Those on the front are weighed on the same pictures, paired
like any comparison: what the weighing cannot tell apart stays tied.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vez.metrics import stats
from vez.report.scored import Difference, Kept, Scores

BASE = "base"
CONCEPT = ("similarity", "T1")
"""What tells how much of the concept there is: the first that was measured against no LoRA."""
REST = "T2"
SAME = ("not distinguishable", "equivalent")
"""The words for two arms of which neither is better: that was not found, or it was found that neither is."""
LEAST_SPAN = 0.02
"""An axis without margin or limit is counted from worst to best, but never over less than this."""

Cells = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Axes:
    """The metrics that decide; ``rest`` is None where it was not measured."""

    concept: str
    rest: str | None

    @property
    def both(self) -> tuple[str, ...]:
        """The measured ones."""
        return (self.concept,) if self.rest is None else (self.concept, self.rest)


@dataclass(frozen=True)
class Broken:
    """A gate that an arm failed: ``kind`` is "learned" (the concept), "limit" or "not_worse"."""

    metric: str
    kind: str
    kept: Kept | None = None

    @property
    def rules_out(self) -> bool:
        """Whether that alone says no: a limit that no truth test has set is a warning, which decides between ties."""
        return self.kept is None or self.kept.calibrated


@dataclass(frozen=True)
class Weighed:
    """The front weighed: ``best`` has the highest mean, ``tied`` cannot be told from it; ``lower``: the others.

    ``near`` are those of ``tied`` that lie within one standard error of the best: among them what costs less comes
    first (the one-standard-error rule; Breiman et al., "Classification and Regression Trees", 1984, §3.4.3). Not to be
    told apart is not enough: with few prompts a LoRA that has learned next to nothing is not told from the best either.
    """

    best: str
    tied: tuple[str, ...]
    near: tuple[str, ...]
    lower: tuple[str, ...]
    values: Mapping[str, float]


def axes_of(scores: Scores, arms: Collection[str]) -> Axes | None:
    """The axes that were measured for any of these arms; None where nothing tells of the concept."""
    told = {metric for arm in arms for metric in scores.against_base.get(arm, {})}
    declared = [name for name, of in scores.metrics.items() if of.primary]
    concepts = [*CONCEPT, *(name for name in declared if not scores.metrics[name].guard)]
    rests = [REST, *(name for name in declared if scores.metrics[name].guard)]
    concept = next((name for name in concepts if name in told), None)
    return None if concept is None else Axes(concept, next((name for name in rests if name in told), None))


def word(table: Mapping[str, Mapping[str, Difference]], arm: str, metric: str) -> str:
    """The word for an arm against no LoRA."""
    difference = table.get(arm, {}).get(metric)
    return "not measured" if difference is None else difference.verdict


def pair(scores: Scores, first: str, second: str, metric: str) -> Difference | None:
    """First minus second, whichever way round it was stored."""
    direct = scores.pairs.get((first, second), {}).get(metric)
    if direct is not None:
        return direct
    turned = scores.pairs.get((second, first), {}).get(metric)
    if turned is None:
        return None
    words = {"better": "worse", "worse": "better"}
    low = None if turned.high is None else -turned.high
    high = None if turned.low is None else -turned.low
    same, higher = turned.equivalence, scores.metrics[metric].higher_is_better
    if same is not None:
        not_worse = same.high < same.margin if higher else same.low > -same.margin
        same = same.model_copy(update={"low": -same.high, "high": -same.low, "not_worse": not_worse})
    change = {"diff": -turned.diff, "low": low, "high": high, "verdict": words.get(turned.verdict, turned.verdict)}
    return turned.model_copy(update=change | {"equivalence": same})


def word_of_pair(scores: Scores, first: str, second: str, metric: str) -> str:
    """The word for first against second; two that were never compared have not been told apart."""
    difference = pair(scores, first, second, metric)
    return "not distinguishable" if difference is None else difference.verdict


def broken(scores: Scores, arm: str, axes: Axes) -> tuple[Broken, ...]:
    """The gates that an arm is shown to fail, those that rule it out first."""
    if word(scores.against_base, arm, axes.concept) != "better":
        return (Broken(axes.concept, "learned"),)
    found = [] if axes.rest is None or _spared(scores, arm, axes.rest) else [Broken(axes.rest, "not_worse")]
    for metric, of in scores.gates.get(arm, {}).items():
        found += [
            Broken(metric, kind, kept)
            for kind, kept in of.items()
            if kept.word == "failed" and not (metric == axes.rest and kind == "not_worse")
        ]
    return tuple(sorted(found, key=lambda gate: not gate.rules_out))


def _spared(scores: Scores, arm: str, rest: str) -> bool:
    """Whether the rest of the prompt is not shown to suffer.

    A loss shown to be under the margin is none; one that is found, and not shown to be under it, is.
    """
    kept = scores.gates.get(arm, {}).get(rest, {}).get("not_worse")
    if kept is not None and kept.word in ("passed", "failed"):
        return kept.word == "passed"
    return word(scores.against_base, arm, rest) != "worse"


def dominated(scores: Scores, arm: str, by: str, axes: Axes) -> bool:
    """Whether ``by`` is shown to be better on one axis, and shown to be no worse on the other."""
    found = [pair(scores, by, arm, metric) for metric in axes.both]
    words = ["not distinguishable" if of is None else of.verdict for of in found]
    return "better" in words and all(
        said in ("better", "equivalent") or (of is not None and of.equivalence is not None and of.equivalence.not_worse)
        for said, of in zip(words, found, strict=True)
    )


def front(scores: Scores, arms: Sequence[str], axes: Axes) -> tuple[tuple[str, ...], dict[str, str]]:
    """The arms that no other dominates with confidence, and for each of the rest one that does."""
    above = {
        arm: next((by for by in arms if by != arm and dominated(scores, arm, by, axes)), None)
        for arm in sorted(arms, key=lambda arm: (-turned_mean(scores, arm, axes.concept), arm))
    }
    left = tuple(arm for arm in arms if above[arm] is None)
    # Tests are no order: three may each beat the next in a ring. Then nothing is shown, and all stay.
    return (left, {arm: by for arm, by in above.items() if by is not None}) if left else (tuple(arms), {})


def weigh(scores: Scores, arms: Sequence[str], axes: Axes, *, weight: float) -> Weighed:
    """Weigh arms on the pictures that were scored on both axes.

    Each axis is counted from the worst to the best of these arms and no LoRA, but never over less than its margin or
    limit; ``weight`` of the concept is added to 1 − weight of the rest. Where all of them lie within the rest's margin
    of each other, which is the difference that would not matter, the concept alone counts, unless the rest alone was
    asked for. The best is compared with each other one by the sign-flip test over prompts, adjusted by Holm, and at
    what is left of the error for a planned look.
    """
    weight = 1.0 if weight > 0 and _alike(scores, arms, axes.rest) else weight
    cells = {arm: _worth(scores, arm, arms, axes, weight) for arm in arms}
    means = {
        arm: stats.t_interval(list(stats.prompt_means(of).values())).mean if of else 0.0 for arm, of in cells.items()
    }
    best = min(arms, key=lambda arm: (-means[arm], arm))
    rivals = [arm for arm in arms if arm != best and cells[arm].keys() & cells[best].keys()]
    found = [stats.compare(cells[best], cells[arm]) for arm in rivals]
    adjusted = stats.holm([min(1.0, _times(scores) * of.p) for of in found])
    lower = {
        arm
        for arm, of, p in zip(rivals, found, adjusted, strict=True)
        if stats.verdict(of.diff, p, higher_is_better=True) == "better"
    }
    tied = tuple(arm for arm in arms if arm not in lower)
    errors = {arm: (of.sd or 0.0) / math.sqrt(of.n_prompts) for arm, of in zip(rivals, found, strict=True)}
    diffs = {arm: of.diff for arm, of in zip(rivals, found, strict=True)}
    near = tuple(arm for arm in tied if arm == best or (arm in diffs and diffs[arm] <= errors[arm]))
    return Weighed(best, tied, near, tuple(arm for arm in arms if arm in lower), means)


def _times(scores: Scores) -> float:
    """What a p counts at this look, which was planned to have a part of the error; one that was not is exploratory."""
    return stats.ALPHA / scores.looks.alpha if scores.looks is not None and scores.looks.alpha > 0 else 1.0


def turned_mean(scores: Scores, arm: str, metric: str) -> float:
    """The mean, turned so that more is better; minus infinity where there is none."""
    score = scores.arms.get(arm, {}).get(metric)
    if score is None:
        return float("-inf")
    return score.mean if scores.metrics[metric].higher_is_better else -score.mean


def _worth(scores: Scores, arm: str, arms: Sequence[str], axes: Axes, weight: float) -> Cells:
    """Weight × concept + (1 − weight) × rest of every picture of an arm that has both, without those that confirm."""
    parts = [(axes.concept, 1.0 if axes.rest is None else weight), (axes.rest, 1 - weight)]
    found: list[Cells] = []
    for metric, share in parts:
        if metric is not None and share > 0:
            sign = 1 if scores.metrics[metric].higher_is_better else -1
            scale = sign * share / _span(scores, arms, metric)
            found.append({key: scale * value for key, value in scores.cells.get((metric, arm), {}).items()})
    return {key: sum(of[key] for of in found) for key in found[0] if all(key in of for of in found)}


def _alike(scores: Scores, arms: Sequence[str], rest: str | None) -> bool:
    """Whether no two of the arms lie further apart on the rest of the prompt than its margin."""
    margin = None if rest is None else scores.metrics[rest].margin
    means = [scores.arms[arm][rest].mean for arm in arms if rest is not None and rest in scores.arms.get(arm, {})]
    return margin is not None and len(means) == len(arms) and max(means) - min(means) <= margin


def _span(scores: Scores, arms: Sequence[str], metric: str) -> float:
    """How far the arms and no LoRA lie apart on an axis, or what counts as a difference where that is more."""
    of = scores.metrics[metric]
    least = of.margin or (abs(of.gate.limit) if of.gate else 0.0) or LEAST_SPAN
    means = [scores.arms[arm][metric].mean for arm in (*arms, BASE) if metric in scores.arms.get(arm, {})]
    return max(least, max(means) - min(means)) if means else least
