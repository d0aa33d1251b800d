"""What a reader does next, and what was searched: both from what is on disk, in sentences with the commands."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vez.report import caveats
from vez.report.arms import Arm
from vez.report.contest import BASE
from vez.report.evidence import Evidence, Run, setting
from vez.report.phrases import name_of, plain
from vez.report.verdict import Verdict

SAID = ("vez judge", "--profile confirm")
"""Commands of sentences in the verdict that the steps give in full."""


@dataclass(frozen=True)
class Step:
    """Something to do: a sentence, and the commands for it."""

    says: str
    commands: tuple[str, ...] = ()


def steps(evidence: Evidence, verdict: Verdict, chosen: Arm | None, *, trigger: str) -> tuple[Step, ...]:
    """What to do with this verdict, the next thing first."""
    study = shlex.quote(evidence.study)
    if evidence.samples is None:
        return (Step("Draw pictures with every LoRA and without.", (f"vez sample {study}",)),)
    if evidence.scores is None:
        return (Step("Measure what was drawn.", (f"vez score {study}", f"vez report {study}")),)
    people = Step(
        "Ask people: ten minutes, two pictures at a time, without knowing which is which.", (f"vez judge {study}",)
    )
    asked = [] if evidence.people is not None else [people]
    if verdict.use is None or chosen is None:
        tries = list(dict.fromkeys(of.attempt for of in verdict.refused if of.attempt))[:2]
        again = [Step(f"Train again, with: {attempt}.") for attempt in tries]
        return (*again, *asked)
    words = f" and put {trigger} into the prompt" if trigger else ""
    at = f" at strength {chosen.strength:g}"
    use = Step(
        f"Load {chosen.file}{at}{words}. With its model card, ready to pass on:", (f"vez report {study} --card",)
    )
    sure = []
    confirmed = verdict.axes is not None and caveats.confirmed(evidence.scores, verdict.use, verdict.axes)
    if not confirmed:
        told = "See whether it holds on prompts and noises that had no say in the choice."
        only = ",".join([verdict.use, *([verdict.runner_up] if verdict.runner_up else [])])
        commands = (
            f"vez sample {study} --profile confirm --arms {shlex.quote(only)}",
            f"vez score {study}",
            f"vez report {study}",
        )
        sure = [Step(told, commands)]
    return (use, *sure, *asked)


def unsaid(sentences: Sequence[str]) -> list[str]:
    """The sentences that the steps do not say better, with the whole command."""
    return [sentence for sentence in sentences if not any(command in sentence for command in SAID)]


def searched(evidence: Evidence, verdict: Verdict, vary: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Which settings were searched, how much of the grid was run, and what the best of several is worth.

    ``vary`` is the study's. Nothing where nothing was searched.
    """
    if not vary:
        return ()
    listed = " · ".join(f"{name}: {', '.join(map(_value, values))}" for name, values in vary.items())
    total = math.prod(len(values) for values in vary.values())
    run = {_combination(run, vary) for run in evidence.runs if run.finished}
    of = (
        f"All {total} combinations"
        if len(run) >= total
        else f"{len(run)} of the {total} combinations, spread evenly over the grid,"
    )
    said = [f"{listed}. {of} {'was' if len(run) == 1 else 'were'} trained."]
    arms = [] if evidence.scores is None else [arm for arm in evidence.scores.arms if arm != BASE]
    axes = verdict.axes
    if evidence.scores is None or axes is None or len(arms) < 2:
        return tuple(said)
    picked = evidence.scores.selection.get(axes.concept)
    luck = (
        ""
        if picked is None or picked.expected_bias is None
        else (
            f": if all {picked.candidates} were equally good, the luckiest would still score "
            f"{plain(abs(picked.expected_bias))} too high on {name_of(axes.concept)}"
        )
    )
    said.append(f"The best of {len(arms)} looks better than it is, because luck was picked along{luck}.")
    if verdict.use is not None and (found := caveats.confirmed(evidence.scores, verdict.use, axes)):
        said.append(f"So it was drawn again on prompts that had no say. {found[0]}")
    else:
        said.append("It was not confirmed yet; the command for that stands at the top, under what to do next.")
    return tuple(said)


def _combination(run: Run, vary: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    return tuple(_value(setting(run.settings, name)) for name in vary)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
