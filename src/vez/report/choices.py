"""The parts of the page that show the choice: concept against prompt, curves of a sweep, and every two compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vez.report.arms import BASE_LABEL, Arm
from vez.report.charts import Role
from vez.report.contest import BASE, Axes, pair
from vez.report.phrases import adjusted_p, capital, name_of, plain, probability, signed, told
from vez.report.plots import Curve, Point, curves, scatter
from vez.report.scored import Difference, Scores
from vez.report.verdict import Verdict

MOST_IN_MATRIX = 6
"""Arms in the table of pairs; of a sweep those that were declared, and the one that was chosen."""
FLAT = 1e-9
"""Means no further apart than this make no curve."""


@dataclass(frozen=True)
class Figure:
    """A chart and one sentence that says what it shows."""

    chart: Markup
    title: str
    says: str


@dataclass(frozen=True)
class Pair:
    """One cell of the matrix: row minus column, as text."""

    difference: str
    word: str
    p: str
    unseen: str


@dataclass(frozen=True)
class Matrix:
    """Every two arms on one metric; a cell is None on the diagonal and where nothing was compared."""

    name: str
    labels: tuple[str, ...]
    rows: tuple[tuple[Pair | None, ...], ...]
    left_out: int


def pareto(scores: Scores | None, arms: Sequence[Arm], verdict: Verdict) -> Figure | None:
    """Concept against the rest of the prompt, each as the difference to no LoRA; None where one was not measured."""
    axes = verdict.axes
    if scores is None or axes is None or axes.rest is None:
        return None
    points = [_point(scores, arm, axes, verdict) for arm in arms if _both(scores, arm.name, axes)]
    if not points:
        return None
    base = Point(BASE_LABEL, 0.0, 0.0, None, None, f"{BASE_LABEL}: what the others are compared with", "base")
    title = "Concept against prompt: every LoRA’s difference to no LoRA, with 95 % intervals"
    x_axis, y_axis = f"{name_of(axes.concept)}, to no LoRA →", f"{name_of(axes.rest)}, to no LoRA ↑"
    says = "Further right is more of the concept, further up is more of the rest of the prompt. "
    says += "Hollow are those not to use: they fail a limit, or another one is shown to beat them."
    return Figure(Markup(scatter([*points, base], title=title, x_axis=x_axis, y_axis=y_axis)), title, says)


def sweep_figures(scores: Scores | None, arms: Sequence[Arm], verdict: Verdict) -> tuple[Figure, ...]:
    """Checkpoint and strength curves of what decides; none where nothing was swept."""
    if scores is None or verdict.axes is None:
        return ()
    figures = []
    for metric in verdict.axes.both:
        figures += [*_steps(scores, arms, metric, verdict), *_strengths(scores, arms, metric, verdict)]
    return tuple(figures)


def limited_figures(
    scores: Scores | None, arms: Sequence[Arm], verdict: Verdict
) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """The same of whatever else has a limit, and the names of those that no checkpoint or strength moves."""
    if scores is None or verdict.axes is None:
        return (), ()
    figures: list[Figure] = []
    still = []
    for metric in [
        name for name, of in scores.metrics.items() if of.gate is not None and name not in verdict.axes.both
    ]:
        means = {score.mean for of in scores.arms.values() if (score := of.get(metric)) is not None}
        drawn = [*_steps(scores, arms, metric, verdict), *_strengths(scores, arms, metric, verdict)]
        if drawn and max(means) - min(means) < FLAT:
            still.append(name_of(metric))
        else:
            figures += drawn
    return tuple(figures), tuple(still)


def matrix(scores: Scores | None, arms: Sequence[Arm], metric: str, chosen: str | None) -> Matrix | None:
    """Every two LoRAs on one metric; None where fewer than two were compared."""
    if scores is None:
        return None
    compared = {arm for both, of in scores.pairs.items() if metric in of for arm in both}
    every = [arm.name for arm in arms if arm.name in compared]
    names = every
    if len(every) > MOST_IN_MATRIX:
        names = [arm for arm in every if arm not in scores.explored or arm == chosen][:MOST_IN_MATRIX]
    if len(names) < 2:
        return None
    rows = tuple(tuple(None if a == b else _cell(pair(scores, a, b, metric)) for b in names) for a in names)
    return Matrix(name_of(metric), tuple(names), rows, len(every) - len(names))


def _cell(of: Difference | None) -> Pair | None:
    if of is None:
        return None
    p = adjusted_p(of)
    unseen = ""
    if of.verdict == "not distinguishable":
        unseen = "too few prompts" if of.mde is None else f"sees {plain(of.mde)}"
    return Pair(signed(of.diff), of.verdict, "" if p is None else f"p\u00a0{probability(p)}", unseen)


def _both(scores: Scores, arm: str, axes: Axes) -> bool:
    return all(metric in scores.against_base.get(arm, {}) for metric in axes.both)


def _point(scores: Scores, arm: Arm, axes: Axes, verdict: Verdict) -> Point:
    refused = {of.arm for of in verdict.refused}
    x, y = (scores.against_base[arm.name][metric] for metric in axes.both)
    title = f"{arm.label}: {name_of(axes.both[0])} {told(x)}; {name_of(axes.both[1])} {told(y)}"
    return Point(
        arm.label,
        x.diff,
        y.diff,
        _span(x),
        _span(y),
        title,
        arm.role(verdict.use),
        beaten=arm.name in refused,
    )


def _span(of: Difference) -> tuple[float, float] | None:
    return None if of.low is None or of.high is None else (of.low, of.high)


def _steps(scores: Scores, arms: Sequence[Arm], metric: str, verdict: Verdict) -> list[Figure]:
    """The metric against steps, a curve per run at the strength that is shown first: that of the chosen, else 1."""
    strength = next((arm.strength for arm in arms if arm.name == verdict.use), 1.0)
    lines: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.run is not None and arm.reached is not None and arm.strength == strength:
            lines.setdefault(arm.run.name, []).append(arm)
    swept = {name: sorted(of, key=lambda arm: arm.reached or 0) for name, of in lines.items() if len(of) > 1}
    at = f" at strength {strength:g}" if len({arm.strength for arm in arms if arm.name != BASE}) > 1 else ""
    said = f"{capital(name_of(metric))} by checkpoint{at}"
    return _swept(scores, swept, metric, verdict, title=said, x_axis="optimizer steps", of=lambda arm: arm.reached)


def _strengths(scores: Scores, arms: Sequence[Arm], metric: str, verdict: Verdict) -> list[Figure]:
    """The metric against strength: a curve per run at its end, and one at the chosen checkpoint if that is another."""
    chosen = next((arm for arm in arms if arm.name == verdict.use), None)
    lines: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.run is None:
            continue
        if arm.step is None:
            lines.setdefault(arm.run.name, []).append(arm)
        elif chosen is not None and chosen.run is arm.run and chosen.step == arm.step:
            lines.setdefault(f"{arm.run.name} at {arm.step}", []).append(arm)
    swept = {name: sorted(of, key=lambda arm: arm.strength) for name, of in lines.items() if len(of) > 1}
    said = f"{capital(name_of(metric))} by strength"
    found = _swept(scores, swept, metric, verdict, title=said, x_axis="strength", of=lambda arm: arm.strength)
    checkpoints = {arm.reached for arm in arms if arm.run is not None}
    ends = "Each run as it was at its end"
    if chosen is not None and chosen.step is not None:
        ends += f", and the chosen one at step {chosen.step} too"
    return [replace(one, says=f"{ends}. {one.says}") for one in found] if len(checkpoints) > 1 else found


def _swept(
    scores: Scores,
    swept: Mapping[str, Sequence[Arm]],
    metric: str,
    verdict: Verdict,
    *,
    title: str,
    x_axis: str,
    of: Callable[[Arm], float | None],
) -> list[Figure]:
    higher = scores.metrics[metric].higher_is_better
    drawn, tops = [], []
    for name, arms in swept.items():
        points = []
        for arm in arms:
            score = scores.arms.get(arm.name, {}).get(metric)
            x = of(arm)
            if score is not None and x is not None:
                span = None if score.low is None or score.high is None else (score.low, score.high)
                points.append((float(x), score.mean, span))
        if len(points) > 1:
            role: Role = "chosen" if any(arm.name == verdict.use for arm in arms) else "plain"
            drawn.append(Curve(name, tuple(points), role))
            best = (max if higher else min)(points, key=lambda point: point[1])
            tops.append(f"{name} at {best[0]:g} ({plain(best[1])})")
    if not drawn:
        return []
    says = f"{'More' if higher else 'Less'} is better; {'highest' if higher else 'lowest'}: {', '.join(tops)}. "
    says += "Where the whiskers (95 % intervals) of two points overlap by much, their order may be luck."
    chart = curves(drawn, title=title, x_axis=x_axis, y_axis=f"mean, {'more' if higher else 'less'} is better")
    return [Figure(Markup(chart), title, says)]
