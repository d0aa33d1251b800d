"""From scores to sentences: which LoRA to use, why, how sure that is, what is not claimed, what would change it. Pure.

Measured gates first, then the front of concept and rest of the prompt, then the reader's weight; of those within a
standard error of the best the one that breaks the fewest guesses of limits, then the one with fewer steps, the lower
strength, the smaller rank: what costs less and holds less is preferred until something speaks against it. A guess of a
limit is a warning: it never puts a LoRA behind one that is shown to be worse. The words are those of the scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vez.report import caveats
from vez.report.contest import SAME, Axes, Broken, Weighed, axes_of, broken, front, pair, weigh, word_of_pair
from vez.report.phrases import beside, capital, counted, interval, listed, name_of, plain, told, unseen
from vez.report.remedies import remedy
from vez.report.scored import Difference, Score, Scores

CHEAPER = (
    ("took fewer steps", "took the fewest steps"),
    ("is merged at a lower strength", "is merged at the lowest strength"),
    ("has the smaller rank", "has the smallest rank"),
)
"""What decides between ties, in this order: of two, of several."""


@dataclass(frozen=True)
class Effort:
    """What an arm cost, None where unknown, and what it is called in a sentence where its name does not do."""

    steps: int | None
    rank: int | None
    strength: float = 1.0
    called: str = ""
    setting: str | None = None


@dataclass(frozen=True)
class Refused:
    """A LoRA not to use: why, and what to try."""

    arm: str
    why: str
    attempt: str = ""


@dataclass(frozen=True)
class Verdict:
    """What may be said. ``use`` is the arm recommended, or None; ``tied`` could not be told from it.

    ``nearest`` is, where none is recommended, the one that comes nearest. ``front`` holds the arms that none dominates
    with confidence, ``dominated`` says of the others that were fit which one does. ``reserve`` are the faults that the
    recommended one has all the same.
    """

    use: str | None
    headline: str
    because: str
    sure: tuple[str, ...] = ()
    not_claimed: tuple[str, ...] = ()
    would_change: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    reserve: tuple[Refused, ...] = ()
    runner_up: str | None = None
    nearest: str | None = None
    axes: Axes | None = None
    front: tuple[str, ...] = ()
    dominated: Mapping[str, str] = field(default_factory=dict)
    weight: float = 0.5

    @property
    def sentence(self) -> str:
        """The whole verdict in one line."""
        return f"{self.headline} {self.because}".strip()


def judge(scores: Scores | None, efforts: Mapping[str, Effort], *, weight: float = 0.5) -> Verdict:
    """The verdict over every arm of ``efforts`` that was scored.

    Args:
        scores: None where nothing was scored.
        efforts: for each arm with a LoRA, what it cost.
        weight: what the concept counts against the rest of the prompt, 0 to 1.
    Returns:
        Sentences that claim no more than the differences in ``scores`` do.
    """
    axes = None if scores is None else axes_of(scores, efforts)
    if scores is None or axes is None:
        why = tuple(Refused(arm, "not measured.") for arm in efforts)
        sentence = "Nothing was scored against no LoRA, so no LoRA can be named."
        return Verdict(None, sentence, "", not_claimed=(caveats.ONE_SAMPLE,), refused=why, weight=weight)
    faults = {arm: broken(scores, arm, axes) for arm in efforts}
    fit = [arm for arm, of in faults.items() if not any(gate.rules_out for gate in of)]
    if not fit:
        return _none_fit(scores, faults, efforts, axes, weight)
    kept, dominated = front(scores, fit, axes)
    weighed = weigh(scores, kept, axes, weight=weight)
    use = min(weighed.near, key=lambda arm: (len(faults[arm]), *_cost(efforts[arm]), -weighed.values[arm], arm))
    tied = tuple(arm for arm in weighed.tied if arm != use)
    return Verdict(
        use=use,
        headline=f"Use {called(use, efforts)}.",
        because=_because(use, tied, weighed.near, efforts, faults, looked=caveats.spent(scores)),
        sure=(
            *caveats.looks(scores),
            *caveats.confirmed(scores, use, axes),
            *_sure(scores, use, axes),
            *caveats.seeds(scores, efforts[use], axes),
        ),
        not_claimed=_not_claimed(scores, use, tied, efforts, axes),
        would_change=_would_change(scores, use, kept, efforts, axes, weight),
        tied=tied,
        refused=_refused(scores, use, faults, fit, dominated, weighed, axes),
        reserve=tuple(_fault(scores, use, gate) for gate in faults[use]),
        runner_up=_runner_up(use, weighed, dominated),
        axes=axes,
        front=kept,
        dominated=dominated,
        weight=weight,
    )


def called(arm: str, efforts: Mapping[str, Effort]) -> str:
    """What an arm is called in a sentence."""
    return (efforts[arm].called if arm in efforts else "") or arm


def _cost(effort: Effort) -> tuple[float, float, float]:
    return (
        math.inf if effort.steps is None else effort.steps,
        effort.strength,
        math.inf if effort.rank is None else effort.rank,
    )


def _because(
    use: str,
    tied: Sequence[str],
    near: Sequence[str],
    efforts: Mapping[str, Effort],
    faults: Mapping[str, Sequence[Broken]],
    *,
    looked: str,
) -> str:
    said = [looked] if looked else []
    if faults[use]:
        worst = [remedy(gate.metric, gate.kind).fault for gate in faults[use]]
        all_do = len(faults) > 1 and all(faults.values())
        others = ": no LoRA here keeps every limit" if all_do else ", by a limit that is a guess"
        said.append(f"But know that it {listed(list(dict.fromkeys(worst)))}{others}.")
    if tied:
        are = "is" if len(tied) == 1 else "are"
        some = listed([called(arm, efforts) for arm in tied]) if len(tied) <= 4 else f"{len(tied)} others"
        said.append(f"{some} {are} not distinguishable from it; {_reason(use, tied, near, efforts, faults)}.")
    return " ".join(said)


def _reason(
    use: str,
    tied: Sequence[str],
    near: Sequence[str],
    efforts: Mapping[str, Effort],
    faults: Mapping[str, Sequence[Broken]],
) -> str:
    """Why this one of several that cannot be told apart; only what the numbers bear out."""
    rivals = [arm for arm in near if arm != use]
    if not rivals:
        return "it has the highest mean, by more than a standard error"
    of = "" if set(tied) <= set(near) else "of those within a standard error of the best "
    alike = [arm for arm in rivals if len(faults[arm]) == len(faults[use])]
    if not alike:
        return f"{of}it breaks {'fewer' if faults[use] else 'none'} of the limits that are guesses"
    some = "of those that break as few limits " if len(alike) < len(rivals) else ""
    return of + some + _cheapest(use, alike, efforts)


def _cheapest(use: str, tied: Sequence[str], efforts: Mapping[str, Effort]) -> str:
    mine, theirs = _cost(efforts[use]), [_cost(efforts[arm]) for arm in tied]
    if any(math.isinf(number) for cost in (mine, *theirs) for number in cost) or mine in theirs:
        return "nothing tells them apart, and one had to be named"
    for at, words in enumerate(CHEAPER):
        if all(mine[at] < cost[at] for cost in theirs):
            return f"it {words[len(tied) > 1]}"
        if any(mine[at] != cost[at] for cost in theirs):
            break
    return "none took fewer steps, and of those with as few none has a lower strength or, at the same, a smaller rank"


def _sure(scores: Scores, use: str, axes: Axes) -> tuple[str, ...]:
    score, gain = scores.arms.get(use, {}).get(axes.concept), scores.against_base[use][axes.concept]
    sentences = []
    if score is not None:
        explored = " It is a find of the sweep: an exploratory one." if use in scores.explored else ""
        sentences.append(
            f"{capital(name_of(axes.concept))}: {plain(score.mean)} (95 % interval {interval(score.low, score.high)}; "
            f"{counted(score)}), {gain.verdict} than no LoRA ({told(gain)}).{explored}"
        )
    sentences.append(_rest_of(scores, use, axes))
    for metric, change in sorted(scores.against_base.get(use, {}).items()):
        if change.verdict == "worse" and metric not in (*axes.both, "T0"):
            sentences.append(f"But on {name_of(metric)} it is worse than no LoRA ({told(change)}).")
    doubtful = [
        name_of(metric)
        for metric, of in scores.gates.get(use, {}).items()
        if any(kept.word == "not shown" for kept in of.values()) and metric != axes.rest
    ]
    if doubtful:
        sentences.append(f"Neither kept nor broken for sure: the limits on {listed(doubtful)}.")
    return tuple(sentences)


def _rest_of(scores: Scores, use: str, axes: Axes) -> str:
    loss = None if axes.rest is None else scores.against_base.get(use, {}).get(axes.rest)
    if axes.rest is None or loss is None:
        return "Not measured: the rest of the prompt. A LoRA that paints over it would pass."
    kept = scores.gates.get(use, {}).get(axes.rest, {}).get("not_worse")
    said = f"{capital(name_of(axes.rest))}: {beside(loss.verdict)} no LoRA ({told(loss)}{unseen(loss)})"
    if kept is None or kept.margin is None:
        return f"{said}."
    if kept.word == "passed":
        return f"{said}; shown to lose less than {kept.margin:g}."
    return f"{said}; not shown to lose less than {kept.margin:g}, which takes more prompts."


def _not_claimed(
    scores: Scores, use: str, tied: Sequence[str], efforts: Mapping[str, Effort], axes: Axes
) -> tuple[str, ...]:
    sentences = []
    for arm in tied[:4]:
        found = pair(scores, use, arm, axes.concept)
        numbers = "they were not compared" if found is None else f"{told(found)}{unseen(found)}"
        said = word_of_pair(scores, use, arm, axes.concept)
        sentences.append(f"That {use} is better than {arm} on {name_of(axes.concept)}: {said} ({numbers}).")
    if len(tied) > 4:
        sentences.append(f"That {use} is better than any of {len(tied) - 4} others that tie with it.")
    sentences += caveats.selected(scores, use, axes, candidates=len(efforts))
    if not caveats.seeds(scores, efforts[use], axes):
        sentences.append(caveats.ONE_SAMPLE)
    if not caveats.calibrated(scores):
        sentences.append(caveats.UNCALIBRATED)
    return tuple(sentences)


def _would_change(
    scores: Scores, use: str, kept: Sequence[str], efforts: Mapping[str, Effort], axes: Axes, weight: float
) -> tuple[str, ...]:
    """What could turn the verdict: another weight, more prompts, confirmation, people."""
    sentences = [*caveats.next_look(scores)]
    for other, what in ((1.0, "only the concept counted"), (0.0, "only the rest of the prompt counted")):
        if axes.rest is not None and weight != other and len(kept) > 1:
            weighed = weigh(scores, kept, axes, weight=other)
            if use not in weighed.tied:
                sentences.append(f"If {what} (weight = {other:g}), it would be {called(weighed.best, efforts)}.")
    others = [arm for arm in kept if arm != use]
    found = {arm: pair(scores, use, arm, axes.concept) for arm in others}
    lacking = {arm: of for arm, of in found.items() if of is not None and of.verdict in SAME and of.needs_prompts}
    if lacking:
        arm = min(lacking, key=lambda arm: (lacking[arm].needs_prompts or 0, arm))
        of = lacking[arm]
        have = scores.arms[use][axes.concept].n_prompts
        sentences.append(
            f"More prompts: a difference like that to {called(arm, efforts)} ({told(of)}) would need "
            f"n = {of.needs_prompts} prompts to be found, there were {have}."
        )
    if scores.confirmed is None or use not in scores.confirmed.arms:
        names = ",".join([use, *others[:1]])
        sentences.append(
            f"Prompts that had no say in the choice: vez sample --profile confirm --arms {names}, then vez score."
        )
    sentences.append("People: vez judge asks which of two pictures is the better one, without saying whose they are.")
    return tuple(sentences)


def _runner_up(use: str, weighed: Weighed, dominated: Mapping[str, str]) -> str | None:
    rest = [arm for arm in (*weighed.tied, *weighed.lower) if arm != use]
    if rest:
        return min(rest, key=lambda arm: (-weighed.values[arm], arm))
    return next(iter(dominated), None)


def _refused(
    scores: Scores,
    use: str,
    faults: Mapping[str, Sequence[Broken]],
    fit: Sequence[str],
    dominated: Mapping[str, str],
    weighed: Weighed,
    axes: Axes,
) -> tuple[Refused, ...]:
    found = []
    for arm, of in faults.items():
        if arm in dominated:
            found.append(Refused(arm, _beaten(scores, arm, dominated[arm], axes)))
        elif arm in weighed.lower:
            best = weighed.best
            found.append(Refused(arm, f"on the front, but worse than {best} by the weight that was set."))
        elif arm not in fit:
            found.append(_fault(scores, arm, of[0], more=of[1:], axes=axes))
    return tuple(found)


def _beaten(scores: Scores, arm: str, by: str, axes: Axes) -> str:
    said = []
    for metric in axes.both:
        found = pair(scores, arm, by, metric)
        if found is not None and found.verdict == "worse":
            said.append(f"worse than {by} on {name_of(metric)} ({told(found)})")
    no_better = " and no better on the other" if len(said) == 1 and axes.rest is not None else ""
    return f"{' and '.join(said)}{no_better}."


def _fault(scores: Scores, arm: str, gate: Broken, *, more: Sequence[Broken] = (), axes: Axes | None = None) -> Refused:
    """Why an arm fails a gate, in numbers, and what to try."""
    of = remedy(gate.metric, gate.kind)
    gain = scores.against_base.get(arm, {}).get(gate.metric)
    if gate.kind == "learned":
        if gain is None:
            return Refused(arm, f"not measured on {name_of(gate.metric)}.")
        why = f"{beside(gain.verdict)} no LoRA on {name_of(gate.metric)} ({told(gain)}{unseen(gain)})."
        return Refused(arm, why, of.attempt)
    learned = "learned the concept, but " if axes is not None else ""
    also = [remedy(other.metric, other.kind).fault for other in more]
    tail = f" It also {listed(list(dict.fromkeys(also)))}." if also else ""
    return Refused(arm, f"{learned}{of.fault} ({_numbers(scores, arm, gate, gain)}).{tail}", of.attempt)


def _numbers(scores: Scores, arm: str, gate: Broken, gain: Difference | None) -> str:
    name, kept = name_of(gate.metric), gate.kept
    score: Score | None = scores.arms.get(arm, {}).get(gate.metric)
    if kept is not None and kept.limit is not None and score is not None:
        calibrated = "" if kept.calibrated else ", uncalibrated"
        side = "at least" if kept.keep == "above" else "at most"
        spread = interval(score.low, score.high)
        limit = f"the limit is {side} {plain(kept.limit)}{calibrated}"
        return f"{name} {plain(score.mean)}, 95 % interval {spread}; {limit}"
    if gain is None:
        return name
    return f"{gain.verdict} than no LoRA on {name}: {told(gain)}"


def _none_fit(
    scores: Scores, faults: Mapping[str, Sequence[Broken]], efforts: Mapping[str, Effort], axes: Axes, weight: float
) -> Verdict:
    learned = [arm for arm, of in faults.items() if not any(gate.kind == "learned" for gate in of)]
    nearest = None
    if learned:
        nearest = weigh(scores, learned, axes, weight=weight).best
        worst = {arm: remedy(faults[arm][0].metric, faults[arm][0].kind).fault for arm in learned}
        because = f"Whichever learned the concept {' or '.join(dict.fromkeys(worst.values()))}."
        sure: tuple[str, ...] = (f"{called(nearest, efforts)} comes nearest: it {worst[nearest]}.",)
    else:
        because = f"None is better than no LoRA on {name_of(axes.concept)}."
        sure = ("That is no proof that nothing was learned: more prompts find smaller differences.",)
        found = [of[axes.concept] for of in scores.against_base.values() if axes.concept in of]
        if all(change.mde is None for change in found):
            sure = (
                "With so few prompts no difference, however large, could have been found: add prompts, sample again.",
            )
    claims = (caveats.ONE_SAMPLE,) if caveats.calibrated(scores) else (caveats.ONE_SAMPLE, caveats.UNCALIBRATED)
    return Verdict(
        None,
        "No LoRA of this study can be recommended.",
        f"{because} {caveats.spent(scores)}".rstrip(),
        (*caveats.looks(scores), *sure),
        claims,
        caveats.next_look(scores),
        refused=tuple(_fault(scores, arm, of[0], more=of[1:], axes=axes) for arm, of in faults.items()),
        nearest=nearest,
        axes=axes,
        weight=weight,
    )
