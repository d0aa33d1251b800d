"""What fixed-noise losses say of a LoRA: change by band, memorisation gap, binding, leak, the window to sample. Pure.

A picture is the unit: its losses are compared with the base's own of the same picture, text, timestep and noise, as
logarithms, and intervals are over pictures. All limits are rules of thumb until the truth test sets them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from vez.metrics.probed import ArmProbes, Asked, Change, Contrast, Gap, Limits, Span, Split, Window
from vez.metrics.stats import ALPHA, t_interval

BANDS: Final = 5
MIDDLE: Final = (0.2, 0.6)
"""Share of the schedule where learning by heart shows first: t 200 to 600 of 1000."""

LIMITS: Final = Limits(fall=0.9, gap=0.25, rise=2.0, calibrated=False)

Losses = Mapping[tuple[Split, str, Asked], Sequence[float]]
"""(split, picture, text) → losses of one arm, one for each timestep, low noise first."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """The timesteps that were asked, low first, of a schedule of ``length``."""

    timesteps: tuple[int, ...]
    length: int

    @property
    def bands(self) -> tuple[tuple[int, ...], ...]:
        """The places of the timesteps of each of five equal parts of the schedule."""
        parts = [t * BANDS // self.length for t in self.timesteps]
        return tuple(tuple(i for i, part in enumerate(parts) if part == b) for b in range(BANDS))

    @property
    def middle(self) -> tuple[int, ...]:
        """The places of those in which the gap is judged."""
        low, high = (share * self.length for share in MIDDLE)
        return tuple(i for i, t in enumerate(self.timesteps) if low <= t < high)


def usable(losses: Losses) -> bool:
    """Whether a logarithm can be taken of all of them: a broken LoRA's are not finite."""
    return all(math.isfinite(loss) and loss > 0 for of in losses.values() for loss in of)


def measure(own: Losses, base: Losses, axis: Axis, **about: Any) -> ArmProbes:
    """All that one arm's losses say against the base's; ``about``: what `ArmProbes` needs to name the arm.

    ``base`` has all the keys of ``own``. What a picture was not asked leaves it out of what needs that.
    """
    changes: dict[Split, Array] = {split: _change(own, base, split, "caption") for split in ("held_out", "train")}
    changes["class"] = _change(own, base, "class", "caption")
    told = {split: _told(own, split, change, axis) for split, change in changes.items()}
    asked: tuple[Asked, ...] = ("caption", "class", "trigger", "wrong", "empty")
    gains = {text: -_change(own, base, "held_out", text).mean(axis=1) for text in asked}
    found: dict[Asked, Span] = {text: _span(gain) for text, gain in gains.items() if len(gain)}
    arm = ArmProbes(
        **about,
        held_out=told["held_out"],
        train=told["train"],
        prior=told["class"],
        gap=_gap(changes["held_out"], changes["train"], axis),
        binding=contrast(own, base, "class", "caption"),
        specificity=contrast(own, base, "wrong", "caption"),
        alone=contrast(own, base, "empty", "trigger"),
        gains=found,
        leak=_leak(own, base),
    )
    return arm.model_copy(update={"says": tuple(said(arm))})


def contrast(own: Losses, base: Losses, one: Asked, other: Asked) -> Contrast | None:
    """ln L(one) − ln L(other) on the held-out pictures that were asked both; None where none was."""
    pictures = [p for p in _pictures(own, "held_out", one) if ("held_out", p, other) in own]
    if not pictures:
        return None
    mine, bare = (
        np.array([_log(of, p, one).mean() - _log(of, p, other).mean() for p in pictures]) for of in (own, base)
    )
    return Contrast(own=_span(mine), base=_span(bare), gained=_span(mine - bare))


def _log(losses: Losses, picture: str, text: Asked) -> Array:
    return np.log(np.asarray(losses["held_out", picture, text], dtype=np.float64))


def _pictures(losses: Losses, split: Split, text: Asked) -> list[str]:
    return [picture for of, picture, words in losses if (of, words) == (split, text)]


def _change(own: Losses, base: Losses, split: Split, text: Asked) -> Array:
    """ln(own/base), (pictures, timesteps)."""
    keys = [(split, picture, text) for picture in _pictures(own, split, text)]
    rows = [np.log(np.asarray(own[key])) - np.log(np.asarray(base[key])) for key in keys]
    return np.array(rows, dtype=np.float64) if rows else np.empty((0, 1))


def _told(own: Losses, split: Split, change: Array, axis: Axis) -> Change | None:
    if not len(change):
        return None
    loss = float(np.mean([own[split, picture, "caption"] for picture in _pictures(own, split, "caption")]))
    bands = tuple(_span(change[:, list(band)].mean(axis=1)) for band in axis.bands if band)
    return Change(loss=loss, change=_span(change.mean(axis=1)), bands=bands)


def _gap(held_out: Array, train: Array, axis: Axis) -> Gap | None:
    if not len(held_out) or not len(train):
        return None

    def between(columns: Sequence[int]) -> Span:
        return difference(*(part[:, list(columns)].mean(axis=1) for part in (held_out, train)))

    return Gap(middle=between(axis.middle), bands=tuple(between(band) for band in axis.bands if band))


def difference(a: Array, b: Array) -> Span:
    """The mean of ``a`` minus that of ``b``, pictures that have nothing to do with each other: Welch's interval."""
    mean, n = float(a.mean() - b.mean()), min(len(a), len(b))
    if n < 2:
        return Span(mean=mean, n=n)
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    whole = sum(parts)
    if whole == 0:
        return Span(mean=mean, low=mean, high=mean, n=n)
    freedom = 1 / sum((part / whole) ** 2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    error = math.sqrt(whole)
    half = float(distributions.t.ppf(1 - ALPHA / 2, freedom)) * error
    return Span(mean=mean, low=mean - half, high=mean + half, n=n)


def _span(values: Array) -> Span:
    interval = t_interval(values)
    return Span(mean=interval.mean, low=interval.low, high=interval.high, n=interval.n)


def _leak(own: Losses, base: Losses) -> float | None:
    """The fall with plain words over that with the trigger, on the pictures asked both."""
    both = _pictures(own, "held_out", "class")
    only = {key: of for key, of in own.items() if key[0] == "held_out" and key[1] in both}
    falls = [-_change(only, base, "held_out", text).mean(axis=1) for text in ("class", "caption")]
    if not len(falls[0]) or not len(falls[1]) or not _span(falls[1]).is_above:
        return None
    return float(falls[0].mean() / falls[1].mean())


def said(arm: ArmProbes) -> list[str]:
    """An arm's probes in sentences: only what the intervals allow to say."""
    told = []
    if arm.held_out is not None:
        change = arm.held_out.change
        much = f"{abs(math.expm1(change.mean)):.1%}"
        if change.is_below:
            told.append(f"Pictures it never saw fit it better than the base (loss {much} lower): it has learned.")
        elif change.is_above:
            told.append(f"Pictures it never saw fit it worse than the base (loss {much} higher).")
        else:
            told.append("Whether pictures it never saw fit it better than the base cannot be said.")
    if arm.gap is not None and arm.gap.middle.mean > LIMITS.gap:
        told.append(
            f"Pictures it was trained on improved far more than others (gap {arm.gap.middle.mean:.2f}, limit "
            f"{LIMITS.gap:g}): it learns them by heart."
        )
    told += _said_of_words(arm)
    if arm.prior is not None and arm.prior.change.is_above:
        much = f"{math.expm1(arm.prior.change.mean):.1%}"
        told.append(f"The base's own pictures of the class fit it worse (loss {much} higher): it forgets some of them.")
    return told


def _said_of_words(arm: ArmProbes) -> list[str]:
    told = []
    if arm.binding is not None:
        if arm.binding.gained.is_above:
            share = "" if arm.leak is None else f"; plain words call {min(max(arm.leak, 0), 1):.0%} of it"
            told.append(f"The trigger calls more of what was learned than plain words do{share}.")
        elif arm.gains["class"].is_above:
            told.append(
                "The loss fell with plain words too, and not clearly less than with the trigger: what was learned "
                "seems to hang on the class, and to come unasked (leak)."
            )
    bound = arm.binding is not None and arm.binding.gained.is_above
    if bound and arm.specificity is not None and not arm.specificity.gained.is_above:
        told.append("A wrong trigger does as well as the right one: it is not this word that was learned.")
    return told


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run as the window sees it.

    ``held_out``: change against the base of each picture, whole; ``gap``: G in the middle, None where not measured.
    """

    arm: str
    step: int
    held_out: Array
    gap: float | None


def held_out_changes(own: Losses, base: Losses) -> Array:
    """Each held-out picture's change under its caption, (pictures,)."""
    change = _change(own, base, "held_out", "caption")
    return np.asarray(change.mean(axis=1)) if len(change) else np.empty(0)


def window(checkpoints: Sequence[Checkpoint], **about: Any) -> Window:
    """Which of a run's checkpoints to sample: `LIMITS` by the rule that `EXPLAINED` tells.

    All have the same held-out pictures in the same order. Nothing is deleted by it.
    """
    ordered = sorted(checkpoints, key=lambda one: one.step)

    def empty(why: str) -> Window:
        return Window(**about, first=None, last=None, arms=(), why=why)

    if not ordered or not len(ordered[0].held_out):
        return empty("no pictures are held out, so where learning turns into memory cannot be seen; set held_out")
    means = [float(one.held_out.mean()) for one in ordered]
    best = int(np.argmin(means))
    if means[best] >= 0:
        return empty("the loss on held-out pictures never fell below the base's: it has not learned yet, or too fast")
    first = next(i for i, mean in enumerate(means) if mean <= LIMITS.fall * means[best])
    end = len(ordered)
    for i in range(len(ordered)):
        why = _ends(ordered[i], ordered[best], after=i > best)
        if why and i <= first:
            return empty(f"{why}, before most of what can be learned was: fewer steps between checkpoints, or a lower "
                         "learning rate, would show where to stop")  # fmt: skip
        if why:
            end = i
            break
    else:
        why = "and it had not passed its best by the end: longer training may bring more"
        if best < len(ordered) - 1:
            why = "to the end, where neither limit was passed yet"
    inside = ordered[first:end]
    start = f"from step {inside[0].step}, where 90 % of the fall was reached,"
    until = f"until before step {ordered[end].step}, where {why}" if end < len(ordered) else why
    return Window(
        **about,
        first=inside[0].step,
        last=inside[-1].step,
        arms=tuple(one.arm for one in inside),
        why=f"{start} {until}",
    )


def _ends(one: Checkpoint, best: Checkpoint, *, after: bool) -> str:
    """Why a checkpoint is past the window; "" where it is not."""
    if one.gap is not None and one.gap > LIMITS.gap:
        return f"trained pictures are learned by heart (G {one.gap:.2f}, limit {LIMITS.gap:g})"
    rise = one.held_out - best.held_out
    if after and len(rise) > 1:
        error = float(rise.std(ddof=1)) / math.sqrt(len(rise))
        if float(rise.mean()) > LIMITS.rise * error > 0:
            return f"the held-out loss has risen by {float(rise.mean()) / error:.1f} standard errors from its lowest"
    return ""
