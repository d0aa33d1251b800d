"""What a metric promises before anything is drawn: its direction, whether it decides, its margin and its gate.

Declared here and not chosen after a look at the numbers: that is what makes a comparison primary.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from vez.metrics.equivalence import Equivalence
from vez.metrics.limits import LIMITS
from vez.metrics.stats import Comparison, Interval

Passed = Literal["passed", "failed", "not shown"]
"""The words for a gate: shown to be kept, shown to be broken, or the interval lies on both sides of the limit."""

WEIGHT: Final = 2.5
"""CLIPscore's w, meant to stretch the cosines of ViT-B/32 to about [0, 1]."""

MARGIN: Final = 0.015 * WEIGHT
"""A change of CLIPscore that does no harm: 0.015 of cosine. With 12 prompts × 4 seeds an equal LoRA is shown to lose
less 93 times in 100; with a margin of 0.01 it would be 2 in 3 (docs/truth.md)."""


@dataclass(frozen=True)
class Gate:
    """A limit that an arm's mean has to keep, shown by its whole 95 % interval."""

    limit: float
    keep: Literal["above", "below"]
    calibrated: bool = False
    """Whether a truth test has set the limit; until then it is somebody's guess, and said to be."""


@dataclass(frozen=True)
class Rule:
    """How a metric is judged.

    `primary` metrics answer the study's questions, adjusted by Holm; the others are exploratory. `margin` is the
    largest difference that would not matter, None where nobody has said one. `guard` asks that an arm be not worse than
    no LoRA by the margin, which a truth test has set where it is `calibrated`; `gate` is a limit on the arm's own mean.
    """

    higher_is_better: bool
    primary: bool = False
    margin: float | None = None
    gate: Gate | None = None
    guard: bool = False
    calibrated: bool = False


RULES: Final[Mapping[str, Rule]] = {
    "T0": Rule(True),
    "T1": Rule(True, margin=MARGIN),
    "T2": Rule(True, primary=True, margin=MARGIN, guard=True),
    "T3": Rule(True),
    "told_apart": Rule(True),
    "T2_composition": Rule(True, margin=MARGIN),
    "T2_own": Rule(True, margin=MARGIN),
    "unrelated": Rule(True, margin=MARGIN, guard=True),
    "similarity": Rule(True, primary=True, gate=Gate(0.15, "above")),
    "similarity_clip": Rule(True),
    "foreground": Rule(True),
    "similarity_seen": Rule(True),
    "similarity_composition": Rule(True),
    "similarity_own": Rule(True),
    "gallery": Rule(True),
    "gallery_first": Rule(True),
    "overfit": Rule(False),
    "trigger_effect": Rule(True, gate=Gate(0.0, "above")),
    "specificity": Rule(False, margin=0.10, gate=Gate(0.10, "below")),
    "leak": Rule(False, gate=Gate(0.10, "below")),
    "drift": Rule(False, gate=Gate(0.35, "below")),
    "drift_near": Rule(False),
    "colour_drift": Rule(False),
    "saturation_drift": Rule(False),
    "nearest_training": Rule(False),
    "copying": Rule(False, gate=Gate(0.20, "below")),
    "copies": Rule(False, gate=Gate(0.015, "below")),
    "repeats": Rule(False, gate=Gate(0.25, "below")),
    "diversity": Rule(True, gate=Gate(0.6, "above")),
    "flat": Rule(False, gate=Gate(0.015, "below")),
    "blur": Rule(False),
    "lettering": Rule(False),
}
"""Metric → how it is judged, by encoders that no truth test has seen. What the study is about is `similarity` and `T2`;
where a truth test has set limits for an encoder, they stand in `vez.metrics.limits`."""

BY_JUDGE: Final = ("similarity", "trigger_effect", "specificity", "leak", "drift", "copying", "diversity")
"""The metrics with a limit that the judge of likeness measures; CLIP the others, or the pixels alone."""

CONTRASTS: Final = ("trigger_effect", "specificity")
"""Metrics that set two prompts of one LoRA against each other: the base, which has learned nothing, has such a
difference too, of whatever size its words make it."""

INSTEAD: Final = {"similarity": "T1"}
"""Primary metric → the one that is primary in its place where it cannot be measured."""


def declared(measured: Collection[str], *, clip: str = "", judge: str = "") -> dict[str, Rule]:
    """The rules of the metrics that could be measured, with a stand-in for a primary one that could not.

    Goes by what there is to measure and by who looks (``clip`` and ``judge`` are the hashes of their weights), never by
    what came out.
    """
    rules = {name: limited(name, RULES[name], judge if name in BY_JUDGE else clip) for name in measured}
    for primary, other in INSTEAD.items():
        if primary not in rules and other in rules:
            rules[other] = replace(rules[other], primary=True)
    return rules


def limited(metric: str, rule: Rule, encoder: str) -> Rule:
    """The rule with what the truth test has set for that encoder, the hash of its weights."""
    limit = LIMITS.get(encoder, {}).get(metric)
    if limit is None:
        return rule
    if rule.gate is not None:
        return replace(rule, gate=Gate(limit, rule.gate.keep, calibrated=True))
    return replace(rule, margin=limit, calibrated=True)


def gated(gate: Gate, of: Interval) -> Passed:
    """Whether an arm's mean is shown to keep its gate."""
    if of.low is None or of.high is None:
        return "not shown"
    kept, broken = of.low > gate.limit, of.high < gate.limit
    if gate.keep == "below":
        kept, broken = broken, kept
    return "passed" if kept else "failed" if broken else "not shown"


def excused(metric: str, gate: Gate, than_base: Comparison | None) -> bool:
    """Whether it is the base that breaks a guess of a limit: the arm is not shown to differ from it for the worse.

    ``than_base``: the arm minus no LoRA. Asked of `CONTRASTS` alone; a measured limit holds all the same.
    """
    if metric not in CONTRASTS or gate.calibrated or than_base is None:
        return False
    if gate.keep == "above":
        return than_base.high is None or than_base.high >= 0
    return than_base.low is None or than_base.low <= 0


def guarded(found: Equivalence | None, *, higher_is_better: bool) -> Passed:
    """Whether an arm is shown to be no worse than no LoRA by more than the margin, or to be worse by more."""
    if found is None:
        return "not shown"
    if found.not_worse:
        return "passed"
    worse = found.high < -found.margin if higher_is_better else found.low > found.margin
    return "failed" if worse else "not shown"
