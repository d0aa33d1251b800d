"""The report: a study's artifacts in, one self-contained HTML file out. The same artifacts give the same bytes."""

import base64
import hashlib
import shlex
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import vez
from vez.report import caveats, choices, dataset_section, figures, motif, sheets, view, witnesses
from vez.report.arms import Arm, arms_of, efforts_of
from vez.report.evidence import Evidence, Run, gather
from vez.report.pictures import Album, Picture, embed
from vez.report.verdict import Verdict, judge
from vez.store import write_atomic

HERE = Path(__file__).parent
PICTURE_BUDGET = 14_000_000  # bytes of base64; with the rest, a page that a mail server still takes
MOST_COLUMNS = 7  # of the grid; above that a sweep's undeclared arms stand below it
SHEETS = {
    "representatives": sheets.representatives,
    "neighbours": sheets.neighbours,
    "drifted": sheets.drifted,
}
EXPECTED = ("T0", "T1", "T2", "similarity")


def report(study_dir: Path, to: Path, *, weight: float = 0.5, picture_budget: int = PICTURE_BUDGET) -> Path:
    """Write the report of a study.

    Args:
        study_dir: `studies/<study>`; only what lies there, and the datasets its runs name, is read.
        to: the file to write; its folder is made where it is missing.
        weight: what the concept counts against the rest of the prompt.
        picture_budget: the most bytes that all embedded pictures may take, in base64.
    Returns:
        `to`.
    Raises:
        StoreError: there is nothing to report on, or a file of an artifact is damaged.
    """
    write_atomic(to, page(gather(study_dir), weight=weight, picture_budget=picture_budget).encode("utf-8"))
    return to


def headline(study_dir: Path, *, weight: float = 0.5) -> str:
    """The verdict on a study in one line, from what lies on disk. Raises StoreError as `report` does."""
    return verdict_of(gather(study_dir), weight=weight).sentence


def verdict_of(evidence: Evidence, *, weight: float = 0.5) -> Verdict:
    """The verdict on a study."""
    return judge(evidence.scores, efforts_of(arms_of(evidence)), weight=weight)


def page(evidence: Evidence, *, weight: float = 0.5, picture_budget: int = PICTURE_BUDGET) -> str:
    """The HTML of the report."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # captions, prompts and file names are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pieces"] = view.pieces
    environment.filters["number_of"] = figures.number_of
    environment.globals["shown"] = shown
    environment.globals["counter"] = count(1).__next__
    style = (HERE / "page.css").read_text(encoding="utf-8").strip()
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        **_context(evidence, weight, picture_budget),
    )


def shown(picture: Picture, size: int) -> tuple[int, int, str]:
    """Width and height on the page in CSS pixels, and the class; a small picture is enlarged by a whole factor."""
    longer = max(picture.width, picture.height)
    factor = round(size / longer)
    if factor > 1:
        return picture.width * factor, picture.height * factor, "dots"
    ratio = min(1.0, size / longer)
    return round(picture.width * ratio), round(picture.height * ratio), "smooth"


def _context(evidence: Evidence, weight: float, picture_budget: int) -> dict[str, Any]:
    arms, verdict = arms_of(evidence), verdict_of(evidence, weight=weight)
    shown_arms, rest = _columns(evidence, arms, verdict.use)
    grids, more = view.seed_grids(evidence, shown_arms), view.seed_grids(evidence, rest)[:1]
    tests = view.trigger_tests(evidence, shown_arms)
    data = view.data_parts(evidence.datasets)
    plates = {name: of(evidence, verdict) for name, of in SHEETS.items()}
    pictures = [*sheets.wanted(*plates.values()), *view.wanted_cells((*grids, *more), tests, data)]
    album = embed(pictures, budget=picture_budget)
    chosen = next((arm for arm in arms if arm.name in (verdict.use, verdict.nearest)), None)
    with_lora = [arm.name for arm in arms if arm.run is not None]
    return {
        **plates,
        "file": chosen.file if chosen and verdict.use else None,
        "strength": chosen.strength if chosen else 1,
        "shown_arm": chosen.label if chosen else "",
        "pareto": choices.pareto(evidence.scores, arms, verdict),
        "sweeps": choices.sweep_figures(evidence.scores, arms, verdict),
        "matrices": _matrices(evidence, arms, verdict),
        "grid_arms": shown_arms,
        "rest_arms": rest,
        "more_arms": len(rest),
        "more_grid": more[0] if more else None,
        "as_reported": figures.as_reported(evidence.scores, arms),
        "judged": witnesses.judged(evidence.people),
        "flags": witnesses.flags(evidence.people),
        "controls": witnesses.controls(evidence.scores.controls if evidence.scores else {}),
        "probed": witnesses.probed(evidence.probes),
        "vez_version": vez.__version__,
        "study": evidence.study,
        "words": view.words_of(evidence),
        "band": Markup(motif.band()),
        "verdict": verdict,
        "warning": evidence.scores and caveats.disagreement(evidence.scores, with_lora),
        "absent": evidence.absent,
        "unfinished": [run for run in evidence.runs if not run.finished],
        "arms": arms,
        "grids": grids,
        "tests": tests,
        "metrics": figures.metric_parts(evidence.scores, arms, expected=EXPECTED, chosen=verdict.use),
        "main": EXPECTED,
        "clip": evidence.scores and evidence.scores.clip,
        "reference": figures.reference_lines(evidence.scores),
        **_runs(evidence, chosen_run=_chosen_run(arms, verdict.use)),
        "data": data,
        "changes": [(f"changes/{quote(page)}", page.removesuffix(".html")) for page in evidence.changes],
        "lints": dataset_section.lint_parts(evidence.lints),
        "origins": view.origins(evidence),
        "album": album,
        "picture_note": f"{_picture_note(album)} {view.suite_note(evidence)}".rstrip(),
        "commands": _commands(evidence.study),
    }


def _runs(evidence: Evidence, *, chosen_run: str | None) -> dict[str, Any]:
    """The curves of the runs, and their table."""
    runs = evidence.runs
    loss, fixed = "Training loss of each run, smoothed", "at fixed noise"
    held_out, gap = (
        f"Loss of each run on held-out pictures {fixed}",
        f"Held-out minus trained-on loss of each run {fixed}",
    )
    return {
        "training": figures.training_chart(runs, chosen_run=chosen_run, title=loss),
        "held_out": figures.held_out_chart(runs, chosen_run=chosen_run, title=held_out),
        "gap": figures.gap_chart(runs, chosen_run=chosen_run, title=gap),
        "run_columns": figures.RUN_COLUMNS,
        "runs": figures.run_lines(runs, chosen_run=chosen_run),
    }


def _columns(evidence: Evidence, arms: tuple[Arm, ...], use: str | None) -> tuple[tuple[Arm, ...], tuple[Arm, ...]]:
    """The arms that have a column of the grid, and those of a sweep that stand below it."""
    explored = evidence.scores.explored if evidence.scores else frozenset()
    if len(arms) <= MOST_COLUMNS:
        return arms, ()
    shown = tuple(arm for arm in arms if arm.name not in explored or arm.name == use)
    return shown, tuple(arm for arm in arms if arm not in shown)


def _matrices(evidence: Evidence, arms: tuple[Arm, ...], verdict: Verdict) -> list[choices.Matrix]:
    axes = verdict.axes.both if verdict.axes else ()
    found = (choices.matrix(evidence.scores, arms, metric, verdict.use) for metric in axes)
    return [matrix for matrix in found if matrix is not None]


def _chosen_run(arms: tuple[Arm, ...], use: str | None) -> str | None:
    runs: list[Run] = [arm.run for arm in arms if arm.name == use and arm.run is not None]
    return runs[0].name if runs else None


def _picture_note(album: Album) -> str:
    note = f"{figures.number_of(len(album.pictures), 'embedded picture')}, {figures.mebibytes(album.size)} in all"
    if album.scale < 1:
        note += f", at {album.scale:.0%} of the usual size to stay within the budget"
    if album.left_out:
        note += f"; {len(album.left_out)} more had no room"
    if album.failed:
        note += f"; {len(album.failed)} could not be read"
    return note + "."


def _commands(study: str) -> dict[str, str]:
    """The command that makes each part again, as a shell takes it."""
    name = shlex.quote(study)
    stages = ("train", "sample", "score", "report", "judge")
    return {"build": "vez build", "lint": "vez lint", **{stage: f"vez {stage} {name}" for stage in stages}}
