"""Trained controls: what each of them must score if the scores mean what they say, and what was found on this data.

A control is a LoRA of which it is known beforehand what it cannot have learned. Where it scores as one that has, the
score measures something else here, and no LoRA of the study can be chosen by it. Nothing of this has a say in the
verdict; `vez.controls` makes them, in an artifact of their own.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from vez.errors import StoreError
from vez.store import open_artifact

FOLDER: Final = "controls"
"""Where they lie in a study's folder."""

PREFIX: Final = "control-"
"""How the arms of trained controls begin."""

Kind = Literal["shuffled", "class", "random"]
Outcome = Literal["as expected", "against expectation", "not shown", "not measured"]

TITLES: Final[Mapping[str, str]] = {
    "shuffled": "Trained with the captions shuffled",
    "class": "Trained on the base's own pictures of the class",
    "random": "Not trained: random numbers of the same norms",
}

_LIKENESS: Final = ("similarity", "T1")
"""What says whether the concept was learned: the first of these that was measured."""


@dataclass(frozen=True)
class Expectation:
    """What one score of a control must do, in words, and what it did; ``found`` are the numbers."""

    metric: str
    expected: str
    found: str
    outcome: Outcome


@dataclass(frozen=True)
class TrainedControl:
    """One control: what was asked of it, and the sentence that warns where it behaves like a LoRA that has learned."""

    kind: Kind
    title: str
    asked: tuple[Expectation, ...]
    warning: str


@dataclass(frozen=True)
class Trained:
    """The trained controls of a study. ``of`` is the variant they were made after, ``run`` the id of its run."""

    of: str
    run: str
    controls: tuple[TrainedControl, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why scores are not to be trusted on this data; none where all is well."""
        return tuple(one.warning for one in self.controls if one.warning)


def read(study: Path) -> Trained | None:
    """The trained controls in a study's folder; None where none were scored. Raises StoreError for damaged files."""
    folder = study / FOLDER
    if not (folder / "scores" / "manifest.json").is_file():
        return None
    try:
        summary = json.loads((folder / "scores" / "summary.json").read_bytes())
        samples = open_artifact(folder / "samples")
        arms: Mapping[str, Any] = samples.config["arms"]
        of = next(name for name, arm in arms.items() if arm is not None and not name.startswith(PREFIX))
        return judged(summary, of=of, run=samples.parents[f"run:{of}"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise StoreError(f"{folder} holds no trained controls ({error}); delete it, and run the study again") from error


def judged(summary: Mapping[str, Any], *, of: str, run: str = "") -> Trained:
    """What the controls' summary.json says of each, besides ``of``, the LoRA they were made after.

    Raises KeyError or TypeError for what is no such summary.
    """
    kinds: tuple[Kind, ...] = ("shuffled", "class", "random")
    there = [kind for kind in kinds if PREFIX + kind in summary["arms"]]
    return Trained(of, run, tuple(_control(summary, kind, of) for kind in there))


def _control(summary: Mapping[str, Any], kind: Kind, of: str) -> TrainedControl:
    asked = tuple({"shuffled": _shuffled, "class": _unlearned, "random": _random}[kind](summary, PREFIX + kind, of))
    against = [one.metric for one in asked if one.outcome == "against expectation"]
    return TrainedControl(kind, TITLES[kind], asked, _warning(kind, of, against))


def _warning(kind: Kind, of: str, against: list[str]) -> str:
    deaf = [metric for metric in against if metric not in _LIKENESS]
    like = [metric for metric in against if metric in _LIKENESS]
    if kind == "shuffled":
        said = []
        if deaf:
            said.append(
                f"A LoRA whose captions were shuffled scores as well as {of} on {' and '.join(deaf)}: on this data "
                "that does not tell right captions from wrong ones, so do not choose by it."
            )
        if like:
            said.append(
                f"A LoRA whose captions were shuffled is not like your pictures by {like[0]}: on this data that score "
                "hangs on the captions, not on the concept alone."
            )
        return " ".join(said)
    what = "trained on plain pictures of the class" if kind == "class" else "of random numbers"
    said = []
    if like:
        said.append(
            f"A LoRA {what} scores as one that has learned the concept ({like[0]}): that score cannot be trusted on "
            "this data, for any LoRA."
        )
    if deaf:
        said.append(
            f"A LoRA {what} scores better than no LoRA on {' and '.join(deaf)}: on this data a rise of that is no "
            "merit."
        )
    return " ".join(said)


def _shuffled(summary: Mapping[str, Any], arm: str, of: str) -> Iterator[Expectation]:
    expected, metric = "above no LoRA: the pictures were the right ones", _likeness(summary)
    change = _row(summary, "against_base", arm, metric) if metric else None
    if metric is None or change is None:
        yield Expectation(metric or _LIKENESS[0], expected, "", "not measured")
    else:
        yield Expectation(metric, expected, _change(change), _above(change, against=("worse",)))
    for name in ("T2", "trigger_effect"):
        pair = summary.get("pairs", {}).get(of, {}).get(arm, {}).get(name)
        if pair is None:
            yield Expectation(name, f"below {of}", "", "not measured")
        else:
            outcome = _above(pair, against=("worse", "equivalent"))
            yield Expectation(name, f"below {of}", f"{of} minus it: {_change(pair)}", outcome)


def _above(change: Mapping[str, Any], *, against: Collection[str]) -> Outcome:
    """Whether a difference that was asked of this control beforehand lies above 0.

    It is one question, so its own interval answers it. The verdict, corrected for all pairs of arms that are compared
    (Holm), raises the alarm: only what stands among so many may discredit a score.
    """
    if change["verdict"] in against:
        return "against expectation"
    return "as expected" if change["low"] is not None and change["low"] > 0 else "not shown"


def _unlearned(summary: Mapping[str, Any], arm: str, of: str) -> Iterator[Expectation]:
    """Likeness of about 0: below its gate where it has one, else no better than no LoRA."""
    metric = _likeness(summary)
    score = _row(summary, "arms", arm, metric) if metric else None
    limit = (_row(summary, "gates", arm, metric) or {}).get("limit") if metric else None
    change = _row(summary, "against_base", arm, metric) if metric else None
    words: Mapping[str, Outcome]
    if metric and score is not None and limit is not None:
        words = {"passed": "against expectation", "failed": "as expected"}
        expected = f"below {limit['limit']:g}, as what is not learned"
        yield Expectation(metric, expected, _mean(score), words.get(limit["word"], "not shown"))
    else:
        yield _no_better(metric or _LIKENESS[0], change)


def _no_better(metric: str, change: Mapping[str, Any] | None) -> Expectation:
    """Nothing is learned: a score may fall, and not rise."""
    expected = "no better than no LoRA"
    if change is None:
        return Expectation(metric, expected, "", "not measured")
    words: Mapping[str, Outcome] = {
        "better": "against expectation", "equivalent": "as expected", "worse": "as expected"
    }  # fmt: skip
    return Expectation(metric, expected, _change(change), words.get(change["verdict"], "not shown"))


def _random(summary: Mapping[str, Any], arm: str, of: str) -> Iterator[Expectation]:
    yield from _unlearned(summary, arm, of)
    yield _no_better("T2", _row(summary, "against_base", arm, "T2"))
    moved, expected = _row(summary, "arms", arm, "drift"), "above 0: it moves unrelated pictures"
    if moved is None:
        yield Expectation("drift", expected, "", "not measured")
    else:
        shown = moved["low"] is not None and moved["low"] > 0
        yield Expectation("drift", expected, _mean(moved), "as expected" if shown else "not shown")


def _likeness(summary: Mapping[str, Any]) -> str | None:
    return next((name for name in _LIKENESS if name in summary["metrics"]), None)


def _row(summary: Mapping[str, Any], table: str, arm: str, metric: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = summary.get(table, {}).get(arm, {}).get(metric)
    return found


def _mean(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f}{_interval(row)}"


def _change(row: Mapping[str, Any]) -> str:
    return f"{row['diff']:+.3f}{_interval(row)}"


def _interval(row: Mapping[str, Any]) -> str:
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f" (95 % interval {row['low']:.3f} to {row['high']:.3f})"
