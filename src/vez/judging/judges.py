"""What votes tell of who gave them: the same again when mirrored, one side more often, equal where nothing differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from vez.judging.agreement import Share, coin_p, krippendorff, share
from vez.judging.plan import Question
from vez.judging.votes import Vote

HASTY: Final = 0.5
"""Seconds; a quicker vote was no look at two pictures and is left out."""

BAR: Final = 2 / 3
"""Self-consistency below this is flagged. Of six repeats someone who tosses a coin stays below it two times in three,
someone who gives the same answer nine times in ten once in sixty."""
FEWEST_REPEATS: Final = 4
"""With fewer repeats nothing is said of self-consistency."""
BIASED: Final = 0.01
"""A side is flagged where a fair coin would be so uneven less often than this."""


@dataclass(frozen=True)
class Judge:
    """One judge over all questions.

    ``alike``: mirrored repeats answered as before. ``consistency``: their mean, where a tie against a choice is half.
    ``left``: decided votes that went left, with the p of a fair coin. ``ties_of_same``: pairs of an arm with itself
    that were called equal. ``hasty``: votes left out for being too quick. ``flags``: what is wrong, in words.
    """

    judge: str
    votes: int
    alike: Share
    consistency: float | None
    left: Share
    left_p: float
    ties_of_same: Share
    seconds: float | None
    hasty: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """Two and more judges on the same pairs: Krippendorff's α (interval; −1, 0, 1), and shares of pairs of judges.

    ``same``: gave the same answer. ``same_decided``: of those where both preferred one, preferred the same.
    """

    units: int
    alpha: float | None
    same: Share
    same_decided: Share


def examine(votes: Sequence[Vote], *, hasty: int = 0) -> Judge:
    """One judge's votes, at least one, too quick ones already taken out (``hasty`` of them)."""
    of = {(vote.question, vote.pair): vote for vote in votes}
    agreed = [
        _agreement(first, vote)
        for vote in votes
        if vote.kind == "repeat" and (first := of.get((vote.question, vote.of))) is not None
    ]
    decided = [vote for vote in votes if vote.chosen is not None]
    lefts = sum(vote.answer == "left" for vote in decided)
    itself = [vote for vote in votes if vote.kind == "same"]
    consistency = sum(agreed) / len(agreed) if agreed else None
    alike, left_p = share(agreed.count(1.0), len(agreed)), coin_p(lefts, len(decided))
    flags = []
    if consistency is not None and len(agreed) >= FEWEST_REPEATS and consistency < BAR:
        flags.append(f"not self-consistent: {agreed.count(1.0)} of {len(agreed)} mirrored repeats answered alike")
    if left_p < BIASED:
        side, times = ("left", lefts) if 2 * lefts > len(decided) else ("right", len(decided) - lefts)
        flags.append(f"a habit: chose the {side} side in {times} of {len(decided)} decided votes")
    if hasty > len(votes) / 10:
        flags.append(f"hasty: {hasty} votes took less than half a second and are left out")
    return Judge(
        judge=votes[0].judge,
        votes=len(votes),
        alike=alike,
        consistency=consistency,
        left=share(lefts, len(decided)),
        left_p=left_p,
        ties_of_same=share(sum(vote.chosen is None for vote in itself), len(itself)),
        seconds=median(vote.seconds for vote in votes),
        hasty=hasty,
        flags=tuple(flags),
    )


def between(votes: Sequence[Vote]) -> Between | None:
    """How judges agree on the comparisons that several of them saw; None where there is none."""
    seen: dict[tuple[Question, str, str, str, int], dict[str, float]] = {}
    for vote in votes:
        if vote.kind == "comparison":
            first, second = sorted((vote.left.arm, vote.right.arm))
            value = 0.0 if vote.chosen is None else 1.0 if vote.chosen == first else -1.0
            unit = seen.setdefault((vote.question, first, second, vote.prompt, vote.left.seed), {})
            unit.setdefault(vote.judge, value)
    units = [unit for unit in seen.values() if len(unit) > 1]
    if not units:
        return None
    pairs = [pair for unit in units for pair in combinations(unit.values(), 2)]
    decided = [(a, b) for a, b in pairs if a and b]
    return Between(
        units=len(units),
        alpha=krippendorff(units),
        same=share(sum(a == b for a, b in pairs), len(pairs)),
        same_decided=share(sum(a == b for a, b in decided), len(decided)),
    )


def _agreement(first: Vote, again: Vote) -> float:
    """1 where a mirrored repeat got the same answer, ½ where one of the two was a tie, 0 where they contradict."""
    if first.chosen == again.chosen:
        return 1.0
    return 0.5 if first.chosen is None or again.chosen is None else 0.0
