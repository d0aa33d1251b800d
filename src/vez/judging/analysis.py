"""What the votes on one question say of the arms, and whether the metrics say the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from vez.judging import strengths
from vez.judging.agreement import ALPHA, Share, chance_to_see, share
from vez.judging.judges import Between, between
from vez.judging.material import Cell, ScoreRow
from vez.judging.plan import Question
from vez.judging.votes import Vote
from vez.metrics.stats import holm


@dataclass(frozen=True)
class Rate:
    """How often one of two would be preferred, by the model of all votes, with 95 % limits."""

    rate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Strength:
    """One arm. ``strength`` is Bradley–Terry's in natural log-odds (mean 0 over the arms), with 95 % limits.

    ``model``: limits by the likelihood's second derivative alone, as if no two votes shared a prompt; ``resampled``:
    percentiles over resampled prompts. ``over_base``: how often it would be preferred to no LoRA. ``best``: in which
    share of the resamples it is the strongest.
    """

    arm: str
    wins: int
    ties: int
    losses: int
    strength: float
    low: float | None
    high: float | None
    model: tuple[float, float]
    resampled: tuple[float, float]
    over_base: Rate | None
    best: float


@dataclass(frozen=True)
class Pairing:
    """Two arms. ``rate``: how often ``first`` would be preferred to ``second``.

    ``p_holm`` is that rate's p against one half, adjusted over all pairings. ``decided``: of the direct votes that were
    no tie, how many went to ``first``. ``would_see``: how likely so many decided votes show a true rate of .65.
    ``preferred``: the arm that is significantly so; None where the two cannot be told apart.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    decided: Share
    would_see: float
    rate: Rate
    p_holm: float
    preferred: str | None


@dataclass(frozen=True)
class MetricAgreement:
    """Whether a metric says what the judges say.

    ``spearman``: of the arms' mean scores (so turned that higher is better) with their strengths; None below three
    arms. ``votes``: of the decided votes, how many went to the picture that the metric scores better; chance is half.
    """

    metric: str
    arms: int
    spearman: float | None
    votes: Share


@dataclass(frozen=True)
class Verdicts:
    """All about one question. ``left_worth`` is what the left place adds, in log-odds."""

    question: Question
    judges: int
    prompts: int
    comparisons: int
    arms: tuple[Strength, ...]
    pairings: tuple[Pairing, ...]
    left_worth: float
    between: Between | None
    metrics: tuple[MetricAgreement, ...]

    @property
    def strongest(self) -> Strength:
        """The arm of the greatest strength; whether it can be told from the next stands in `pairings`."""
        return max(self.arms, key=lambda arm: arm.strength)


def analyse(
    votes: Sequence[Vote],
    question: Question,
    *,
    arms: Sequence[str],
    base: str | None,
    scores: Sequence[ScoreRow] = (),
    better_high: Mapping[str, bool] | None = None,
) -> Verdicts | None:
    """The votes on one question; None where none of them compares two arms.

    Args:
        votes: those that count, of any judges.
        arms: all that may stand in votes, in the order they are shown; those that nobody saw are left out.
        base: the one without a LoRA, if there is one.
        scores: numbers of the same pictures.
        better_high: of each metric in ``scores``, whether higher is better.
    """
    compared = [vote for vote in votes if vote.question == question and vote.kind == "comparison"]
    seen = {arm for vote in compared for arm in (vote.left.arm, vote.right.arm)}
    names = [arm for arm in arms if arm in seen]
    if not compared:
        return None
    of = _outcomes(compared, names)
    found = strengths.fitted(of, _numbers([vote.prompt for vote in compared]))
    pairs = list(combinations(range(len(names)), 2))
    gaps = [strengths.gap(found, _contrast(len(names), a, b)) for a, b in pairs]
    adjusted = holm([gap.p for gap in gaps])
    return Verdicts(
        question=question,
        judges=len({vote.judge for vote in compared}),
        prompts=found.prompts,
        comparisons=len(compared),
        arms=tuple(_strength(compared, names, i, found, base=base) for i in range(len(names))),
        pairings=tuple(
            _pairing(compared, names[a], names[b], gap, p_holm)
            for (a, b), gap, p_holm in zip(pairs, gaps, adjusted, strict=True)
        ),
        left_worth=float(strengths.fit(of, side=True)[-1]),
        between=between(compared),
        metrics=tuple(
            _metrics(compared, dict(zip(names, found.theta.tolist(), strict=True)), scores, better_high or {})
        ),
    )


def _outcomes(votes: Sequence[Vote], names: Sequence[str]) -> strengths.Outcomes:
    won = [0.5 if vote.chosen is None else float(vote.answer == "left") for vote in votes]
    left, right = (
        [names.index(side.arm) for side in sides] for sides in zip(*((v.left, v.right) for v in votes), strict=True)
    )
    return strengths.outcomes(left, right, won, arms=len(names))


def _numbers(words: Sequence[str]) -> NDArray[np.intp]:
    at = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return np.array([at[word] for word in words], np.intp)


def _contrast(arms: int, a: int, b: int | None) -> list[float]:
    """What takes arm b's strength from arm a's; with None, the arms' mean, which is 0."""
    return [float(i == a) - float(i == b) for i in range(arms)]


def _strength(
    votes: Sequence[Vote], names: Sequence[str], i: int, found: strengths.Fitted, *, base: str | None
) -> Strength:
    alone = strengths.gap(found, _contrast(len(names), i, None))
    model = 1.96 * float(found.model[i, i]) ** 0.5
    low, high = (float(np.quantile(found.draws[:, i], q)) for q in (0.025, 0.975))
    over = None
    if base in names and names[i] != base:
        over = _rate(strengths.gap(found, _contrast(len(names), i, names.index(base))))
    return Strength(
        names[i],
        *_tally(votes, names[i]),
        strength=alone.value,
        low=alone.low,
        high=alone.high,
        model=(alone.value - model, alone.value + model),
        resampled=(low, high),
        over_base=over,
        best=float(strengths.best(found.draws)[i]),
    )


def _rate(gap: strengths.Gap) -> Rate:
    """The win rate that a gap in strength means."""
    low, high = (None if limit is None else float(special.expit(limit)) for limit in (gap.low, gap.high))
    return Rate(float(special.expit(gap.value)), low, high)


def _tally(votes: Sequence[Vote], arm: str, other: str | None = None) -> tuple[int, int, int]:
    """(won, tied, lost) of an arm, against one other or all."""
    mine = [
        vote for vote in votes if arm in (both := (vote.left.arm, vote.right.arm)) and (other is None or other in both)
    ]
    won, tied = sum(vote.chosen == arm for vote in mine), sum(vote.chosen is None for vote in mine)
    return won, tied, len(mine) - won - tied


def _pairing(votes: Sequence[Vote], first: str, second: str, gap: strengths.Gap, p_holm: float) -> Pairing:
    wins, ties, losses = _tally(votes, first, second)
    rate = _rate(gap)
    return Pairing(
        first,
        second,
        wins,
        ties,
        losses,
        decided=share(wins, wins + losses),
        would_see=chance_to_see(wins + losses),
        rate=rate,
        p_holm=p_holm,
        preferred=None if p_holm > ALPHA else first if rate.rate > 0.5 else second,
    )


def _metrics(
    votes: Sequence[Vote], theta: Mapping[str, float], scores: Sequence[ScoreRow], better_high: Mapping[str, bool]
) -> list[MetricAgreement]:
    """One row for each metric that has a number for a judged picture; means are over the prompts that were judged."""
    judged = {vote.prompt for vote in votes}
    tables: dict[str, dict[Cell, float]] = {}
    for row in scores:
        if row.arm in theta and row.prompt in judged:
            turned = row.value if better_high[row.metric] else -row.value
            tables.setdefault(row.metric, {})[Cell(row.arm, row.prompt, row.seed)] = turned
    found = []
    for metric, table in tables.items():
        means = {arm: np.mean([v for cell, v in table.items() if cell.arm == arm] or [np.nan]) for arm in theta}
        known = [arm for arm in theta if np.isfinite(means[arm])]
        varies = len(known) > 2 and len({means[arm] for arm in known}) > 1 and len({theta[a] for a in known}) > 1
        rank = stats.spearmanr([theta[arm] for arm in known], [means[arm] for arm in known])[0] if varies else None
        right = [better for vote in votes if (better := _says_the_same(vote, table)) is not None]
        found.append(
            MetricAgreement(metric, len(known), None if rank is None else float(rank), share(sum(right), len(right)))
        )
    return found


def _says_the_same(vote: Vote, table: Mapping[Cell, float]) -> bool | None:
    """Whether the preferred picture has the better number; None for a tie of either, or where a number is missing."""
    left, right = (table.get(Cell(side.arm, vote.prompt, side.seed)) for side in (vote.left, vote.right))
    if vote.chosen is None or left is None or right is None or left == right:
        return None
    return (left > right) == (vote.answer == "left")
