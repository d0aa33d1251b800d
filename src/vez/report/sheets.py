"""Pictures that are chosen by a rule, never by hand: three of the LoRA to use, its nearest neighbours, what drifted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vez.report.arms import arms_of
from vez.report.contest import BASE
from vez.report.evidence import Evidence, SampleRow, inside
from vez.report.phrases import name_of, plain
from vez.report.pictures import Wanted
from vez.report.verdict import Verdict
from vez.report.view import GRID_EDGE, THUMB_EDGE, Cell

NEIGHBOURS, DRIFTED = 12, 6
RANKS = ((0.5, "Typical: half are better."), (0.1, "Bad: one in ten is worse."), (0.9, "Good: one in ten is better."))


@dataclass(frozen=True)
class Plate:
    """A picture, or several beside each other, with a line below; `labels` say what each of several is."""

    cells: tuple[Cell, ...]
    title: str
    line: str
    labels: tuple[str, ...] = ()


def representatives(evidence: Evidence, verdict: Verdict) -> tuple[Plate, ...]:
    """The chosen arm's pictures at the median and the 10th and 90th percentile of what decides; none without scores."""
    arm, scores = verdict.use or verdict.nearest, evidence.scores
    if arm is None or scores is None or verdict.axes is None or evidence.samples is None:
        return ()
    metric = verdict.axes.concept
    sign = 1 if scores.metrics[metric].higher_is_better else -1
    cells = scores.cells.get((metric, arm), {})
    rows = {(row.prompt, row.seed): row for row in evidence.drawn if row.arm == arm}
    order = sorted((key for key in cells if key in rows), key=lambda key: (sign * cells[key], key))
    plates = []
    for rank, title in RANKS if len(order) >= len(RANKS) else ():
        key = order[round(rank * (len(order) - 1))]
        cell = _cell(evidence, rows[key])
        plates.append(Plate((cell,), title, f"{name_of(metric)} {plain(cells[key])}: {rows[key].text}"))
    return tuple(plates)


def neighbours(evidence: Evidence, verdict: Verdict) -> tuple[Plate, ...]:
    """The chosen arm's pictures that lie nearest to a training picture, each beside that picture, the worst first."""
    arm, scores = verdict.use or verdict.nearest, evidence.scores
    if arm is None or scores is None or evidence.samples is None:
        return ()
    drawn = {row.file: row for row in evidence.drawn}
    trained = {data.artifact.id: data for data in evidence.datasets}
    plates = []
    for near in scores.nearest.get(arm, ())[:NEIGHBOURS]:
        if near.file not in drawn or near.dataset not in trained:
            continue
        data = trained[near.dataset]
        source = next((row.source for row in data.rows if row.file == near.training), near.training)
        picture = Cell(Wanted(inside(data.artifact.path, near.training), THUMB_EDGE), f"training picture {source}")
        line = f"cosine {plain(near.cosine)}; trained on: {source}"
        both = (_cell(evidence, drawn[near.file]), picture)
        plates.append(Plate(both, drawn[near.file].text, line, ("drawn", "trained on")))
    return tuple(plates)


def drifted(evidence: Evidence, verdict: Verdict) -> tuple[Plate, ...]:
    """Unrelated prompts without and with the chosen arm at the same noise, and a map of where the two differ.

    Those that moved most where that was measured, else the first. Where the same LoRA was drawn at another strength
    too, that picture stands between them.
    """
    arm, scores = verdict.use or verdict.nearest, evidence.scores
    if arm is None or evidence.samples is None:
        return ()
    rows = {(row.arm, row.prompt, row.seed): row for row in evidence.drawn if row.role == "drift"}
    moved = {} if scores is None else scores.cells.get(("drift", arm), {})
    keys = [(prompt, seed) for of, prompt, seed in rows if of == arm and (BASE, prompt, seed) in rows]
    keys.sort(key=lambda key: (-moved.get(key, 0.0), key))
    shown = {BASE: "no LoRA", **_other_strength(evidence, arm)}
    plates = []
    for key in keys[:DRIFTED]:
        drawn = {label: rows[(of, *key)] for of, label in shown.items() if (of, *key) in rows}
        cells = [_cell(evidence, row) for row in drawn.values()]
        line = f"moved by {plain(moved[key])} of what another noise would" if key in moved else f"seed {key[1]}"
        text = rows[(arm, *key)].text
        changed = _difference(evidence, rows[(BASE, *key)], rows[(arm, *key)])
        plates.append(Plate((*cells, changed), text, line, (*drawn, "where it changed")))
    return tuple(plates)


def _other_strength(evidence: Evidence, arm: str) -> dict[str, str]:
    """The arm, and before or after it the same LoRA at the nearest other strength where one was drawn, with labels."""
    arms = {one.name: one for one in arms_of(evidence)}
    ours = arms.get(arm)
    if ours is None or ours.run is None:
        return {arm: arm}
    same = [one for one in arms.values() if one.run is ours.run and one.step == ours.step and one.name != arm]
    near = sorted(same, key=lambda one: (abs(one.strength - ours.strength), one.strength))[:1]
    both = sorted([ours, *near], key=lambda one: one.strength)
    return {one.name: f"strength {one.strength:g}" if near else arm for one in both}


def _difference(evidence: Evidence, before: SampleRow, after: SampleRow) -> Cell:
    folder = Path() if evidence.samples is None else evidence.samples.path
    wanted = Wanted(inside(folder, before.file), THUMB_EDGE, against=inside(folder, after.file))
    name = "no LoRA" if before.arm == BASE else before.arm
    return Cell(wanted, f"where {after.arm} differs from {name}, seed {after.seed}: {after.text}")


def wanted(*sheets: Sequence[Plate]) -> list[Wanted]:
    """The pictures of these sheets."""
    cells = [cell for sheet in sheets for plate in sheet for cell in plate.cells]
    return [cell.wanted for cell in cells if cell.wanted is not None]


def _cell(evidence: Evidence, row: SampleRow) -> Cell:
    name = "no LoRA" if row.arm == BASE else row.arm
    folder = Path() if evidence.samples is None else evidence.samples.path
    path = inside(folder, row.file)
    return Cell(Wanted(path, GRID_EDGE), f"{name}, seed {row.seed}: {row.text}")
