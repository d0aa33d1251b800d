"""The part of the page about the probes: what losses say without sampling, as a table and as curves by checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from vez.metrics.probed import ArmProbes, Contrast, Probes, Span
from vez.report.choices import Figure
from vez.report.phrases import plain, signed
from vez.report.plots import Curve, curves

COLUMNS = ("held-out loss", "learned by heart (gap)", "bound to the trigger", "to this very word", "leak")


@dataclass(frozen=True)
class Probed:
    """The probes as a table, with curves, and what they say of each arm and of where to sample."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: tuple[Figure, ...]
    says: tuple[tuple[str, str], ...]
    not_measured: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reading:
    """One number of the probes: what it is called, how its curve is read, and where its best point is."""

    title: str
    of: Callable[[ArmProbes], Span | None]
    says: str
    best: str = ""
    lowest: bool = True


READINGS = (
    Reading(
        "What was learned: the loss on held-out pictures, against no LoRA",
        lambda arm: None if arm.held_out is None else arm.held_out.change,
        "Below the dashed line (no LoRA) it predicts pictures that it never saw better than the base alone does.",
        "Most was learned",
    ),
    Reading(
        "What was learned by heart: the gap between held-out and trained pictures",
        lambda arm: None if arm.gap is None else arm.gap.middle,
        "The further above the dashed line, the more of what it knows is its own training pictures. A rise without a "
        "fall in the first chart is time to stop.",
    ),
    Reading(
        "What hangs on the trigger word: its gain over plain words",
        lambda arm: _gained(arm.binding),
        "Above the dashed line the trigger word tells the LoRA more than a plain description does; that is wanted.",
        "Most bound",
        lowest=False,
    ),
    Reading(
        "What the base forgot: the loss on its own pictures of the class",
        lambda arm: None if arm.prior is None else arm.prior.change,
        "Above the dashed line the LoRA spoils what the base knew of things of this kind; on it, nothing was lost.",
    ),
)


def probed(probes: Probes | None) -> Probed | None:
    """The table of the probes and their curves; None where there are none."""
    if probes is None:
        return None
    rows = []
    for name, arm in probes.arms.items():
        spans = (*(reading.of(arm) for reading in READINGS[:3]), _gained(arm.specificity))
        rows.append((name, *map(_told, spans), "–" if arm.leak is None else plain(arm.leak)))
    says = [(name, sentence) for name, arm in probes.arms.items() for sentence in arm.says]
    says += [(window.run or "", window.why) for window in probes.windows]
    figures = tuple(figure for reading in READINGS for figure in _figure(probes, reading))
    return Probed(COLUMNS, tuple(rows), figures, tuple(says), tuple(probes.not_measured.items()))


def _figure(probes: Probes, reading: Reading) -> list[Figure]:
    """The reading by checkpoint, a curve per run, at the strength nearest to 1; none without two checkpoints."""
    trained = [arm for arm in probes.arms.values() if arm.run is not None and arm.step is not None]
    if not trained:
        return []
    strength = min({arm.strength for arm in trained}, key=lambda strength: (abs(strength - 1), strength))
    points: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
    for arm in trained:
        span = reading.of(arm)
        if arm.strength == strength and span is not None:
            limits = None if span.low is None or span.high is None else (span.low, span.high)
            points.setdefault(arm.run or "", []).append((float(arm.step or 0), span.mean, limits))
    lines = {run: sorted(of) for run, of in points.items() if len(of) > 1}
    if not lines:
        return []
    says = f"{reading.says} {_best(lines, reading)}".rstrip()
    if len({arm.strength for arm in trained}) > 1:
        says += f" At strength {strength:g}."
    drawn = [Curve(run, tuple(of)) for run, of in lines.items()]
    chart = curves(
        drawn, title=reading.title, x_axis="optimizer steps", y_axis="log of the ratio; −0.02 is 2 % less", zero=True
    )
    return [Figure(Markup(chart), reading.title, says)]


def _best(lines: Mapping[str, list[tuple[float, float, tuple[float, float] | None]]], reading: Reading) -> str:
    if not reading.best:
        return ""
    pick = min if reading.lowest else max
    found = [(run, pick(of, key=lambda point: point[1])) for run, of in lines.items()]
    return f"{reading.best}: {', '.join(f'{run} at step {best[0]:g} ({signed(best[1])})' for run, best in found)}."


def _told(of: Span | None) -> str:
    if of is None:
        return "–"
    limits = "" if of.low is None or of.high is None else f" ({signed(of.low)} to {signed(of.high)})"
    return f"{signed(of.mean)}{limits}"


def _gained(of: Contrast | None) -> Span | None:
    return None if of is None else of.gained
