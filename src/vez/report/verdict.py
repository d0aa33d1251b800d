"""From scores to sentences: which LoRA to use, how sure that is, and what is not claimed. Pure.

The words are those of the scores: better, worse, not distinguishable, not measured. A LoRA is recommended only if it is
better than no LoRA on the concept and not worse on the rest of the prompt. Among those that cannot be told from the
best, the one with fewer steps is named, then the one with the smaller rank: what costs less and holds less is preferred
until something speaks against it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vez.report.evidence import Difference, Score, Scores

ONE_SAMPLE = (
    "One LoRA per setting is one sample: all this is about these weights, not about their settings. "
    "A claim about a setting needs at least three LoRAs trained with different seeds."
)
SAME = ("not distinguishable", "equivalent")
"""The words for two arms of which neither is better: that was not found, or it was found that neither is."""
UNCALIBRATED = (
    "Uncalibrated: what counts as enough of the concept, or as too much harm to the rest of the prompt, has not been "
    "set against people’s judgement. “Better” means only that a difference was found."
)


@dataclass(frozen=True)
class Effort:
    """What an arm cost: optimizer steps and rank; None where unknown."""

    steps: int | None
    rank: int | None


@dataclass(frozen=True)
class Metrics:
    """Which metrics decide: the first of `concept` that was measured; `guard` must not get worse."""

    concept: tuple[str, ...]
    guard: str
    literal: str
    names: Mapping[str, str]

    def name(self, metric: str) -> str:
        """A metric's name in a sentence."""
        return self.names.get(metric, metric)


@dataclass(frozen=True)
class Verdict:
    """What may be said: `use` is the arm recommended, or None; `tied` could not be told from it."""

    use: str | None
    headline: str
    because: str
    sure: tuple[str, ...]
    not_claimed: tuple[str, ...]
    tied: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    decided_by: str | None

    @property
    def sentence(self) -> str:
        """The whole verdict in one line."""
        return f"{self.headline} {self.because}".strip()


def judge(scores: Scores | None, efforts: Mapping[str, Effort], *, metrics: Metrics) -> Verdict:
    """The verdict over every arm of `efforts` that was scored.

    Args:
        scores: None where nothing was scored.
        efforts: for each arm with a LoRA, what it cost.
        metrics: which metrics decide.
    Returns:
        Sentences that claim no more than the differences in `scores` do.
    """
    decisive = None if scores is None else _decisive(scores, efforts, metrics)
    if scores is None or decisive is None:
        return _nothing("Nothing was scored against no LoRA, so no LoRA can be named.", tuple(efforts))
    against = scores.against_base
    learned = [arm for arm in efforts if _word(against, arm, decisive) == "better"]
    fit = [arm for arm in learned if _word(against, arm, metrics.guard) != "worse"]
    others = tuple((arm, _why_not(scores, arm, decisive, metrics)) for arm in efforts if arm not in fit)
    if not fit:
        return _none_fit(scores, learned, others, decisive=decisive, metrics=metrics)
    best = _leader(scores, fit, decisive)
    tied = [arm for arm in fit if arm == best or _ties(scores, arm, best, fit, decisive)]
    use = min(tied, key=lambda arm: (*_cost(efforts[arm]), -_signed_mean(scores, arm, decisive), arm))
    rivals = tuple(arm for arm in fit if arm != use)
    equal = tuple(arm for arm in rivals if _word_of_pair(scores, use, arm, decisive) in SAME)
    beaten = tuple((arm, _beaten(scores, use, arm, decisive, metrics)) for arm in rivals if arm not in equal)
    return Verdict(
        use=use,
        headline=f"Use {use}.",
        because=_because(use, equal, efforts),
        sure=_sure(scores, use, decisive, metrics),
        not_claimed=_not_claimed(scores, use, equal, decisive, metrics, candidates=len(efforts)),
        tied=equal,
        others=beaten + others,
        decided_by=decisive,
    )


def disagreement(scores: Scores, arms: Sequence[str], *, metrics: Metrics) -> str | None:
    """A sentence where the literal prompt would have named another arm than the describing words; else None."""
    describing = metrics.concept[-1]
    best = {}
    for metric in (metrics.literal, describing):
        measured = [arm for arm in arms if metric in scores.arms.get(arm, {})]
        if not measured:
            return None
        best[metric] = _leader(scores, measured, metric)
    if best[metrics.literal] == best[describing]:
        return None
    return (
        f"By {metrics.name(metrics.literal)} {best[metrics.literal]} has the highest mean, by "
        f"{metrics.name(describing)} {best[describing]}. CLIP never learned the trigger word; where the two disagree, "
        "the literal prompt is the one to doubt."
    )


def signed(value: float) -> str:
    """A difference with its sign: +0.012, −0.004, 0.000."""
    text = f"{value:+.3f}"
    return "0.000" if text[1:] == "0.000" else text.replace("-", "−")


def plain(value: float) -> str:
    """A score: three decimals and a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """An interval in words; says so where there is none."""
    if low is None or high is None:
        return "no interval: one prompt has no spread"
    write = signed if sign else plain
    return f"{write(low)} to {write(high)}"


def adjusted_p(difference: Difference) -> float | None:
    """The p that the word goes by."""
    return next((p for p in (difference.p_holm, difference.p_bh, difference.p) if p is not None), None)


def told(difference: Difference) -> str:
    """A difference, its 95 % interval and its p in one phrase."""
    p = adjusted_p(difference)
    adjusted = " after Holm" if difference.p_holm is not None else ""
    if difference.p_holm is None and difference.p_bh is not None:
        adjusted = " after Benjamini–Hochberg, exploratory"
    tail = "" if p is None else f", p {_p(p)}{adjusted}"
    return f"{signed(difference.diff)}, 95 % interval {interval(difference.low, difference.high, sign=True)}{tail}"


def counted(score: Score) -> str:
    """n: prompts × pictures of each, or both counts where the seeds are uneven."""
    if score.n_prompts and score.n_images % score.n_prompts == 0:
        return f"{score.n_prompts} prompts × {score.n_images // score.n_prompts} seeds"
    return f"{score.n_prompts} prompts, {score.n_images} pictures"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _decisive(scores: Scores, efforts: Mapping[str, Effort], metrics: Metrics) -> str | None:
    for metric in metrics.concept:
        if any(metric in scores.against_base.get(arm, {}) for arm in efforts):
            return metric
    return None


def _word(table: Mapping[str, Mapping[str, Difference]], arm: str, metric: str) -> str:
    difference = table.get(arm, {}).get(metric)
    return "not measured" if difference is None else difference.verdict


def _pair(scores: Scores, first: str, second: str, metric: str) -> Difference | None:
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
    change = {"diff": -turned.diff, "low": low, "high": high, "verdict": words.get(turned.verdict, turned.verdict)}
    return turned.model_copy(update=change)


def _word_of_pair(scores: Scores, first: str, second: str, metric: str) -> str:
    """The word for first against second; two that were never compared have not been told apart."""
    difference = _pair(scores, first, second, metric)
    return "not distinguishable" if difference is None else difference.verdict


def _ties(scores: Scores, arm: str, best: str, fit: Sequence[str], metric: str) -> bool:
    """Whether an arm cannot be told from the best, and nothing else is better than it either."""
    told_apart = _word_of_pair(scores, best, arm, metric) not in SAME
    return not told_apart and all(_word_of_pair(scores, arm, other, metric) != "worse" for other in fit if other != arm)


def _signed_mean(scores: Scores, arm: str, metric: str) -> float:
    """The mean, turned so that more is better."""
    score = scores.arms.get(arm, {}).get(metric)
    if score is None:
        return -math.inf
    return score.mean if scores.metrics[metric].higher_is_better else -score.mean


def _leader(scores: Scores, arms: Sequence[str], metric: str) -> str:
    return min(arms, key=lambda arm: (-_signed_mean(scores, arm, metric), arm))


def _cost(effort: Effort) -> tuple[float, float]:
    return (
        math.inf if effort.steps is None else effort.steps,
        math.inf if effort.rank is None else effort.rank,
    )


def _listed(arms: Sequence[str]) -> str:
    return arms[0] if len(arms) == 1 else f"{', '.join(arms[:-1])} and {arms[-1]}"


def _because(use: str, equal: Sequence[str], efforts: Mapping[str, Effort]) -> str:
    if not equal:
        return ""
    are = "is" if len(equal) == 1 else "are"
    return f"{_listed(equal)} {are} not distinguishable from {use}; {_reason(use, equal, efforts)}."


def _reason(use: str, equal: Sequence[str], efforts: Mapping[str, Effort]) -> str:
    """Why this one of several that cannot be told apart; only what the numbers bear out."""
    mine, theirs = _cost(efforts[use]), [_cost(efforts[arm]) for arm in equal]
    if any(math.isinf(number) for cost in (mine, *theirs) for number in cost) or mine in theirs:
        return "nothing tells them apart, and one had to be named"
    if all(mine[0] < steps for steps, _ in theirs):
        return f"{use} took fewer steps" if len(equal) == 1 else f"{use} took the fewest steps"
    if all(mine[0] == steps for steps, _ in theirs):
        return f"{use} has the smaller rank" if len(equal) == 1 else f"{use} has the smallest rank"
    return f"none took fewer steps, and of those with as few {use} has the smallest rank"


def _sure(scores: Scores, use: str, decisive: str, metrics: Metrics) -> tuple[str, ...]:
    score, gain = scores.arms.get(use, {}).get(decisive), scores.against_base[use][decisive]
    sentences = []
    if score is not None:
        sentences.append(
            f"On {metrics.name(decisive)} {use} scores {plain(score.mean)} (95 % interval "
            f"{interval(score.low, score.high)}; {counted(score)}): {gain.verdict} than no LoRA ({told(gain)})."
        )
    guard = scores.against_base.get(use, {}).get(metrics.guard)
    if guard is None:
        sentences.append(
            f"Not measured: {metrics.name(metrics.guard)}. A LoRA that paints over the rest of the prompt would pass."
        )
    else:
        sentences.append(
            f"On {metrics.name(metrics.guard)} it is {_beside(guard)} no LoRA ({told(guard)}{_unseen(guard)})."
        )
    for metric, change in sorted(scores.against_base.get(use, {}).items()):
        if change.verdict == "worse" and metric not in (decisive, metrics.guard, metrics.literal):
            sentences.append(f"But on {metrics.name(metric)} it is worse than no LoRA ({told(change)}).")
    return tuple(sentences)


def _unseen(difference: Difference) -> str:
    """What a "not distinguishable" could have overlooked."""
    if difference.verdict != "not distinguishable":
        return ""
    if difference.mde is None:
        return "; with so few prompts no difference, however large, could have been found"
    asked = (
        "" if difference.needs_prompts is None else f", one like this would need n = {difference.needs_prompts} prompts"
    )
    return f"; a true difference under {plain(difference.mde)} would often be missed{asked}"


def _beside(difference: Difference) -> str:
    """The word with its preposition."""
    joined = {"not distinguishable": "not distinguishable from", "equivalent": "equivalent to"}
    return joined.get(difference.verdict, f"{difference.verdict} than")


def _not_claimed(
    scores: Scores, use: str, equal: Sequence[str], decisive: str, metrics: Metrics, *, candidates: int
) -> tuple[str, ...]:
    sentences = []
    for arm in equal:
        pair = _pair(scores, use, arm, decisive)
        numbers = "they were not compared" if pair is None else f"{told(pair)}{_unseen(pair)}"
        word = _word_of_pair(scores, use, arm, decisive)
        sentences.append(f"That {use} is better than {arm} on {metrics.name(decisive)}: {word} ({numbers}).")
    if candidates > 1:
        sentences.append(
            f"That these scores will repeat: {use} was picked among {candidates} on the same pictures that score it, "
            "and the best of several looks better than it is. New prompts would tell."
        )
    return (*sentences, ONE_SAMPLE, UNCALIBRATED)


def _why_not(scores: Scores, arm: str, decisive: str, metrics: Metrics) -> str:
    gain = scores.against_base.get(arm, {}).get(decisive)
    if gain is None:
        return f"not measured on {metrics.name(decisive)}."
    if gain.verdict == "better":
        harm = scores.against_base[arm][metrics.guard]
        return f"learned the concept, but is worse on {metrics.name(metrics.guard)} ({told(harm)})."
    return f"{_beside(gain)} no LoRA on {metrics.name(decisive)} ({told(gain)}{_unseen(gain)})."


def _beaten(scores: Scores, use: str, arm: str, decisive: str, metrics: Metrics) -> str:
    pair = _pair(scores, arm, use, decisive)
    numbers = "" if pair is None else f" ({told(pair)})"
    word = _word_of_pair(scores, arm, use, decisive)
    return f"{word} than {use} on {metrics.name(decisive)}{numbers}."


def _nothing(sentence: str, arms: tuple[str, ...]) -> Verdict:
    return Verdict(None, sentence, "", (), (ONE_SAMPLE,), (), tuple((arm, "not measured.") for arm in arms), None)


def _none_fit(
    scores: Scores, learned: Sequence[str], others: tuple[tuple[str, str], ...], *, decisive: str, metrics: Metrics
) -> Verdict:
    if learned:
        best, guard = _leader(scores, learned, decisive), metrics.name(metrics.guard)
        because = f"Whichever learned the concept is worse on {guard}."
        sure = (f"If the concept matters more than the rest of the prompt, {best} has the highest mean.",)
    else:
        because = f"None is better than no LoRA on {metrics.name(decisive)}."
        sure = ("That is no proof that nothing was learned: more prompts find smaller differences.",)
        found = [of[decisive] for of in scores.against_base.values() if decisive in of]
        if all(change.mde is None for change in found):
            sure = (
                "With so few prompts no difference, however large, could have been found: add prompts, sample again.",
            )
    headline = "No LoRA of this study can be recommended."
    return Verdict(None, headline, because, sure, (ONE_SAMPLE, UNCALIBRATED), (), others, decisive)
