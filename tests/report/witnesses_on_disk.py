"""Votes and probes of a study on disk: judges who prefer by a rule, and probes of every run at two checkpoints."""

import random
from pathlib import Path

from vez.judging import material
from vez.judging.plan import Question, plan
from vez.judging.votes import FOLDER, Answer, Ballots
from vez.metrics import probed
from vez.metrics.probed import ArmProbes, Change, Contrast, Gap, Limits, Probes, Span, Window
from vez.store import making

ORDER = ("v2", "v4", "v1", "base")
QUESTIONS: tuple[Question, ...] = ("concept", "text")


def vote(study: Path) -> None:
    """Two judges who like v2 best and v4 next, nine times in ten, and one who always takes the left side."""
    judged = material.read(study)
    for judge in ("ana", "ben", "lefty"):
        dice = random.Random(judge)
        with Ballots(study / FOLDER, judge) as ballots:
            for question in QUESTIONS:
                for pair in plan(judged, judge=judge, question=question, votes=60):
                    ranks = [ORDER.index(side.arm.partition("@")[0]) for side in (pair.left, pair.right)]
                    answer: Answer = "tie" if ranks[0] == ranks[1] else "left" if ranks[0] < ranks[1] else "right"
                    if dice.random() < 0.1:
                        answer = dice.choice(("left", "right"))
                    if judge == "lefty":
                        answer = "left"
                    ballots.vote(pair, answer, question=question, seconds=4.0, material=judged)


def probe(study: Path) -> None:
    """Probes as `vez probe` writes them; the second checkpoint of v2 has learned more, and more by heart."""
    arms = {"base": _arm(None, 0, 0.0)}
    for variant, steps in (("v1", (160, 320)), ("v2", (20, 40)), ("v4", (40,))):
        for place, step in enumerate(steps):
            name = f"{variant}@{step}" if step != steps[-1] else variant
            arms[name] = _arm(variant, step, 0.1 + 0.1 * place)
    found = Probes(
        timesteps=(62, 187, 312, 437, 562, 687, 812, 937), bands=((62, 187), (312,), (437, 562), (687,), (812, 937)),
        noises=2, wrong="gebulo", class_texts=("a woman in a red dress",), arms=arms,
        limits=Limits(fall=0.9, gap=0.25, rise=2.0, calibrated=False),
        windows=(Window(run="v2-0", variant="v2", seed=0, strength=1.0, first=20, last=40, arms=("v2@20", "v2"),
                        why="from step 20, where 90 % of the fall is reached"),),
        not_measured={"leak": "no certain fall with the trigger"}, explained={},
    )  # fmt: skip
    with making(study / probed.FOLDER, kind=probed.KIND, parents={}, config={}, version=1) as made:
        (made.path / probed.SUMMARY).write_text(found.model_dump_json(), encoding="utf-8")
        (made.path / probed.ROWS).write_bytes(b"")


def _span(mean: float) -> Span:
    return Span(mean=mean, low=mean - 0.03, high=mean + 0.03, n=4)


def _arm(variant: str | None, step: int, learned: float) -> ArmProbes:
    contrast = Contrast(own=_span(learned / 2), base=_span(0.0), gained=_span(learned / 2))
    change = Change(loss=0.2, change=_span(-learned), bands=(_span(-learned),) * 5)
    return ArmProbes(
        run=variant and f"{variant}-0", variant=variant, seed=None if variant is None else 0,
        step=step if variant else None, strength=1.0, held_out=change, train=change, prior=change,
        gap=Gap(middle=_span(learned / 3), bands=(_span(0.0),) * 5), binding=contrast, specificity=contrast,
        alone=None, gains={"caption": _span(learned)}, leak=None, says=("it learned something that holds",),
    )  # fmt: skip
