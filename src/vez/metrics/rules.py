"""What a metric promises before anything is drawn: its direction, whether it decides, its margin and its gate.

Declared with the metric and not chosen after a look at the numbers: that is what makes a comparison primary.
"""

from dataclasses import dataclass
from typing import Literal

from vez.metrics.equivalence import Equivalence
from vez.metrics.stats import Interval

Passed = Literal["passed", "failed", "not shown"]
"""The words for a gate: shown to be kept, shown to be broken, or the interval lies on both sides of the limit."""


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
    no LoRA by the margin; `gate` is a limit on the arm's own mean.
    """

    higher_is_better: bool
    primary: bool = False
    margin: float | None = None
    gate: Gate | None = None
    guard: bool = False


def gated(gate: Gate, of: Interval) -> Passed:
    """Whether an arm's mean is shown to keep its gate."""
    if of.low is None or of.high is None:
        return "not shown"
    kept, broken = of.low > gate.limit, of.high < gate.limit
    if gate.keep == "below":
        kept, broken = broken, kept
    return "passed" if kept else "failed" if broken else "not shown"


def guarded(found: Equivalence | None, *, higher_is_better: bool) -> Passed:
    """Whether an arm is shown to be no worse than no LoRA by more than the margin, or to be worse by more."""
    if found is None:
        return "not shown"
    if found.not_worse:
        return "passed"
    worse = found.high < -found.margin if higher_is_better else found.low > found.margin
    return "failed" if worse else "not shown"
