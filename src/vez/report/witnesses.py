"""What else speaks for or against the numbers: people’s votes, controls of the evaluator, losses without sampling."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vez.judging.analysis import Rate, Verdicts
from vez.judging.results import Results
from vez.judging.words import TITLES
from vez.metrics.probed import Contrast, Probes, Span
from vez.report.arms import BASE_LABEL
from vez.report.charts import Dot, dots
from vez.report.contest import BASE
from vez.report.phrases import capital, plain, signed

CONTROLS: Mapping[str, str] = {
    "strength_0": "A LoRA at strength 0 draws what no LoRA draws",
    "held_out": "Held-out photographs, scored as if drawn: about 1 on similarity, and no copies",
    "training_copies": "Training pictures, scored as if drawn: about 1, and an alarm for copies",
    "halves": "An arm’s even noises against its odd ones: no difference",
    "wrong_trigger": "A wrong trigger word does nothing",
}


@dataclass(frozen=True)
class Judged:
    """One question as people answered it; ``rows`` are cells of a table, ``says`` sentences."""

    title: str
    counted: str
    chart: Markup
    rows: tuple[tuple[str, ...], ...]
    says: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """One control; ``ok`` is None where nothing is asked of it."""

    name: str
    of: str
    found: str
    ok: bool | None


@dataclass(frozen=True)
class Probed:
    """The probes as a table, with what they say of each arm and of where to sample."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    says: tuple[tuple[str, str], ...]
    not_measured: tuple[tuple[str, str], ...]


def judged(results: Results | None) -> tuple[Judged, ...]:
    """A part per question that was judged; none where nobody voted."""
    return () if results is None else tuple(_question(of, results.base) for of in results.questions)


def flags(results: Results | None) -> tuple[str, ...]:
    """What is to be doubted about the judges."""
    if results is None:
        return ()
    said = [f"{judge.judge}: {flag}" for judge in results.judges for flag in judge.flags]
    if results.outdated:
        said.append(f"{results.outdated} votes on pictures that were drawn anew since are left out")
    return tuple(said)


def controls(found: Mapping[str, Any]) -> tuple[Control, ...]:
    """Every control as a line, whatever it is called."""
    return tuple(line for name, value in found.items() for line in _control(CONTROLS.get(name, _spaced(name)), value))


def probed(probes: Probes | None) -> Probed | None:
    """The table of the probes; None where there are none."""
    if probes is None:
        return None
    columns = ("held-out loss", "memorisation gap", "binding", "specificity", "leak")
    rows = []
    for name, arm in probes.arms.items():
        held_out = None if arm.held_out is None else arm.held_out.change
        gap = None if arm.gap is None else arm.gap.middle
        cells = (_span(held_out), _span(gap), _gained(arm.binding), _gained(arm.specificity))
        rows.append((name, *cells, "–" if arm.leak is None else plain(arm.leak)))
    says = [(name, sentence) for name, arm in probes.arms.items() for sentence in arm.says]
    says += [(window.run or "", window.why) for window in probes.windows]
    return Probed(columns, tuple(rows), tuple(says), tuple(probes.not_measured.items()))


def _question(of: Verdicts, base: str | None) -> Judged:
    arms = sorted(of.arms, key=lambda arm: (-arm.strength, arm.arm))
    marks = [
        Dot(
            _name(arm.arm, base),
            arm.strength,
            arm.low,
            arm.high,
            f"{_name(arm.arm, base)}: strength {plain(arm.strength)}",
            "base" if arm.arm == base else "plain",
        )
        for arm in arms
    ]
    title = f"{TITLES[of.question]} Bradley–Terry strengths with 95 % intervals"
    rows = tuple(
        (_name(arm.arm, base), str(arm.wins), str(arm.ties), str(arm.losses), _rate(arm.over_base), f"{arm.best:.0%}")
        for arm in arms
    )
    says = []
    for pairing in of.pairings:
        one, other = _name(pairing.first, base), _name(pairing.second, base)
        if pairing.preferred is not None:
            loser = other if pairing.preferred == pairing.first else one
            says.append(f"{_name(pairing.preferred, base)} is preferred to {loser}.")
        else:
            says.append(f"No preference found between {one} and {other}.")
    says += [
        f"{capital(metric.metric)} agrees with {metric.votes.rate:.0%} of {metric.votes.n} decided votes."
        for metric in of.metrics
        if metric.votes.n
    ]
    counted = f"{of.comparisons} comparisons by {of.judges} judge{'s' if of.judges != 1 else ''}, {of.prompts} prompts"
    chart = Markup(dots(marks, title=title, axis="strength (log-odds), mean 0"))
    return Judged(TITLES[of.question], counted, chart, rows, tuple(says))


def _name(arm: str, base: str | None) -> str:
    return BASE_LABEL if arm in (base, BASE) else arm


def _rate(of: Rate | None) -> str:
    if of is None:
        return "–"
    return f"{of.rate:.0%}" + ("" if of.low is None or of.high is None else f" ({of.low:.0%} to {of.high:.0%})")


def _control(name: str, value: Any, of: str = "") -> Iterator[Control]:
    if value is None:
        yield Control(name, of, "not made", None)
    elif isinstance(value, Mapping) and ("ok" in value or "mean" in value):
        ok = value.get("ok")
        found = "; ".join(f"{_spaced(key)} {_short(inner)}" for key, inner in value.items() if key != "ok")
        yield Control(name, of, found, None if ok is None else bool(ok))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _control(name, inner, f"{of}, {_spaced(str(key))}" if of else str(key))
    else:
        yield Control(name, of, _short(value), None)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        if "mean" in value:
            low, high = value.get("low"), value.get("high")
            limits = "" if low is None or high is None else f" ({plain(float(low))} to {plain(float(high))})"
            return f"{plain(float(value['mean']))}{limits}"
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return plain(value)
    return "–" if value is None else str(value)


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")


def _span(of: Span | None) -> str:
    if of is None:
        return "–"
    limits = "" if of.low is None or of.high is None else f" ({signed(of.low)} to {signed(of.high)})"
    return f"{signed(of.mean)}{limits}"


def _gained(of: Contrast | None) -> str:
    return _span(None if of is None else of.gained)
