"""What else speaks for or against the numbers: people’s votes, and controls of the evaluator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vez.judging.analysis import Rate, Verdicts
from vez.judging.results import Results
from vez.judging.words import TITLES, headline
from vez.metrics.expected import Trained
from vez.report.arms import BASE_LABEL
from vez.report.charts import Dot, dots
from vez.report.contest import BASE
from vez.report.phrases import capital, interval, name_of, plain, probability, signed

CONTROLS: Mapping[str, str] = {
    "strength_0": "A LoRA at strength 0 draws what no LoRA draws",
    "held_out": "Your held-out photographs, scored as if drawn: about 1 on similarity, and no copies",
    "training_copies": "Your training pictures, scored as if drawn: they must raise the alarm for copies",
    "halves": "An arm’s even noises against its odd ones: no difference",
    "wrong_trigger": "A wrong trigger word does nothing",
}


@dataclass(frozen=True)
class Judged:
    """One question as people answered it.

    ``rows`` are cells of a table; ``preferences`` the pairs of which one was preferred, in sentences; ``open`` how many
    showed none; ``metrics`` (name, share of votes, of how many) whether the scores say the same.
    """

    title: str
    counted: str
    headline: str
    chart: Markup
    rows: tuple[tuple[str, ...], ...]
    preferences: tuple[str, ...]
    open: int
    metrics: tuple[tuple[str, str, str], ...]
    trusted: str


@dataclass(frozen=True)
class Check:
    """One thing that a control was made on; ``ok`` is None where nothing is asked of it."""

    of: str
    found: str
    ok: bool | None


@dataclass(frozen=True)
class Control:
    """One control with all that it was made on; ``ok`` is None where nothing is asked of it, or nothing was made."""

    name: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool | None:
        """Whether nothing that was asked is off."""
        asked = [check.ok for check in self.checks if check.ok is not None]
        return all(asked) if asked else None

    @property
    def says(self) -> str:
        """How many were made, and which are off."""
        asked = [check for check in self.checks if check.ok is not None]
        off = [check.of or check.found for check in asked if not check.ok]
        if not self.checks or not asked:
            return "not made" if all(check.found == NOT_MADE for check in self.checks) else "nothing is asked of it"
        if off:
            return f"off {len(off)} of {len(asked)} times: {'; '.join(off)}"
        return self.checks[0].found if len(asked) == 1 else f"{len(asked)} of {len(asked)}"


NOT_MADE = "not made"


def judged(results: Results | None) -> tuple[Judged, ...]:
    """A part per question that was judged; none where nobody voted."""
    if results is None:
        return ()
    trusted = {of.question: of for of in results.trusted}
    return tuple(_question(of, trusted.get(of.question), results.base) for of in results.questions)


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
    return tuple(
        Control(CONTROLS.get(name, capital(_spaced(name))), tuple(_checks(value))) for name, value in found.items()
    )


def trained(found: Trained | None) -> tuple[tuple[str, ...], ...]:
    """A row for each score that was asked of a trained control: control, score, what was expected, found, outcome."""
    rows = [] if found is None else [(one.title, asked) for one in found.controls for asked in one.asked]
    return tuple((title, capital(name_of(of.metric)), of.expected, of.found, of.outcome) for title, of in rows)


def _question(of: Verdicts, trusted: Verdicts | None, base: str | None) -> Judged:
    arms = sorted(of.arms, key=lambda arm: (-arm.strength, arm.arm))
    marks = [
        Dot(
            _name(arm.arm, base),
            arm.strength,
            arm.low,
            arm.high,
            f"{_name(arm.arm, base)}: strength {plain(arm.strength)}, 95 % interval {interval(arm.low, arm.high)}",
            "base" if arm.arm == base else "plain",
        )
        for arm in arms
    ]
    title = f"{TITLES[of.question]} How strongly each arm was preferred, with 95 % intervals"
    preferences = []
    for pairing in of.pairings:
        if pairing.preferred is not None:
            loser = pairing.second if pairing.preferred == pairing.first else pairing.first
            preferences.append(f"{_name(pairing.preferred, base)} is preferred to {_name(loser, base)}.")
    metrics = sorted((one for one in of.metrics if one.votes.n), key=lambda one: (-(one.votes.rate or 0.0), one.metric))
    without = ""
    if trusted is not None:
        without = f"Without the judges that are doubted below: {headline(trusted, base)}"
    return Judged(
        title=TITLES[of.question],
        counted=f"{_many(of.comparisons, 'comparison')} by {_many(of.judges, 'judge')}, {_many(of.prompts, 'prompt')}",
        headline=headline(of, base),
        chart=Markup(
            dots(marks, title=title, axis="further right: preferred more often", zero=0.0, zero_label="average")
        ),
        rows=tuple(
            (
                _name(arm.arm, base),
                str(arm.wins),
                str(arm.ties),
                str(arm.losses),
                _rate(arm.over_base),
                f"{arm.best:.0%}",
            )
            for arm in arms
        ),
        preferences=tuple(preferences),
        open=len(of.pairings) - len(preferences),
        metrics=tuple((capital(name_of(m.metric)), f"{m.votes.rate:.0%}", str(m.votes.n)) for m in metrics),
        trusted=without,
    )


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _name(arm: str, base: str | None) -> str:
    return BASE_LABEL if arm in (base, BASE) else arm


def _rate(of: Rate | None) -> str:
    if of is None:
        return "–"
    return f"{of.rate:.0%}" + ("" if of.low is None or of.high is None else f" ({of.low:.0%} to {of.high:.0%})")


def _checks(value: Any, of: str = "") -> Iterator[Check]:
    if value is None:
        yield Check(of, NOT_MADE, None)
    elif isinstance(value, Mapping) and {"ok", "mean", "diff"} & set(value):
        ok = value.get("ok")
        rest = {key: inner for key, inner in value.items() if key != "ok"}
        yield Check(of, _short(rest), None if ok is None else bool(ok))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            name = BASE_LABEL if str(key) == BASE else name_of(str(key)) if of else _spaced(str(key))
            yield from _checks(inner, f"{of}, {name}" if of else name)
    else:
        yield Check(of, _short(value), None)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        middle = next((key for key in ("mean", "diff") if isinstance(value.get(key), (int, float))), None)
        if middle is not None:
            low, high = value.get("low"), value.get("high")
            write = signed if middle == "diff" else plain
            limits = "" if low is None or high is None else f" ({write(float(low))} to {write(float(high))})"
            p = next((value[key] for key in ("p_holm", "p") if value.get(key) is not None), None)
            return f"{write(float(value[middle]))}{limits}" + ("" if p is None else f", p {probability(float(p))}")
        if set(value) == {"levels"}:
            return f"apart by at most {max(value['levels'].values(), default=0)} of 255 levels"
        return "; ".join(f"{_spaced(str(key))} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return plain(value)
    return "–" if value is None else str(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
