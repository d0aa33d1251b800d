"""The report: a study's artifacts in, one self-contained HTML file out. The same artifacts give the same bytes."""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import vez
from vez.report import caveats, choices, dataset_section, figures, losses, motif, onward, sheets, view, witnesses
from vez.report.arms import Arm, arms_of, efforts_of
from vez.report.contest import BASE, turned_mean
from vez.report.evidence import Evidence, Run, gather
from vez.report.pictures import Album, Picture, Wanted, embed
from vez.report.places import Places
from vez.report.verdict import Verdict, judge
from vez.store import write_atomic

HERE = Path(__file__).parent
LIMIT = 20_000_000  # bytes of the whole page: one that a mail server still takes
PICTURE_BUDGET = 14_000_000  # of them for pictures, in base64, where the text leaves so many
MOST_COLUMNS = 7  # of the grid; above that other arms stand below it
SHEETS = {
    "representatives": sheets.representatives,
    "neighbours": sheets.neighbours,
    "drifted": sheets.drifted,
}
EXPECTED = ("T0", "T1", "T2", "similarity")
TRIES = 3  # at a page within the limit
NO_ALBUM = Album({}, {}, (), 0, 1.0)


def report(
    study_dir: Path,
    to: Path,
    *,
    weight: float = 0.5,
    vary: Mapping[str, Sequence[Any]] | None = None,
    picture_budget: int = PICTURE_BUDGET,
) -> Path:
    """Write the report of a study.

    Args:
        study_dir: `studies/<study>`; only what lies there, and the datasets its runs name, is read.
        to: the file to write; its folder is made where it is missing.
        weight: what the concept counts against the rest of the prompt.
        vary: the settings that the study searched, with the values that were tried.
        picture_budget: the most bytes that all embedded pictures may take, in base64.
    Returns:
        `to`.
    Raises:
        StoreError: there is nothing to report on, or a file of an artifact is damaged.
    """
    text = page(gather(study_dir), weight=weight, vary=vary, picture_budget=picture_budget)
    write_atomic(to, text.encode("utf-8"))
    return to


def headline(study_dir: Path, *, weight: float = 0.5) -> str:
    """The verdict on a study in one line, from what lies on disk. Raises StoreError as `report` does."""
    return verdict_of(gather(study_dir), weight=weight).sentence


def verdict_of(evidence: Evidence, *, weight: float = 0.5) -> Verdict:
    """The verdict on a study."""
    return judge(evidence.scores, efforts_of(arms_of(evidence)), weight=weight)


def page(
    evidence: Evidence,
    *,
    weight: float = 0.5,
    vary: Mapping[str, Sequence[Any]] | None = None,
    picture_budget: int = PICTURE_BUDGET,
) -> str:
    """The HTML of the report. Its pictures get what the text leaves of `LIMIT`, at most `picture_budget`."""
    context, wanted, spare = _context(evidence, weight, vary or {})
    room = min(picture_budget, LIMIT - len(_rendered(context, NO_ALBUM).encode("utf-8")))
    text = ""
    for _ in range(TRIES):
        text = _rendered(context, embed(wanted, budget=max(0, room), spare=spare))
        over = len(text.encode("utf-8")) - LIMIT
        if over <= 0:
            break
        room -= over + over // 4  # what frames a picture takes room too
    return text


def _rendered(context: Mapping[str, Any], album: Album) -> str:
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
    environment.globals["places"] = Places(album)
    style = (HERE / "page.css").read_text(encoding="utf-8").strip()
    grids, no_room = view.with_room(context["grids"], album)
    rest, _ = view.with_room(context["rest_grids"], album)
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        **{**context, "grids": grids, "no_room": no_room, "rest_grids": rest, "album": album},
        picture_note=f"{_picture_note(album)} {context['suite_note']}".rstrip(),
    )


def shown(picture: Picture, size: int) -> tuple[int, int, str]:
    """Width and height on the page in CSS pixels, and the class; a small picture is enlarged by a whole factor."""
    longer = max(picture.width, picture.height)
    factor = round(size / longer)
    if factor > 1:
        return picture.width * factor, picture.height * factor, "dots"
    ratio = min(1.0, size / longer)
    return round(picture.width * ratio), round(picture.height * ratio), "smooth"


def _context(
    evidence: Evidence, weight: float, vary: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], list[Wanted], list[Wanted]]:
    """All that the page says, the pictures that it needs, and those that it would have besides."""
    arms, verdict = arms_of(evidence), verdict_of(evidence, weight=weight)
    shown_arms, rest = _columns(evidence, arms, verdict)
    grids, rest_grids = view.seed_grids(evidence, shown_arms), view.seed_grids(evidence, rest)[:1]
    tests = view.trigger_tests(evidence, shown_arms)
    data = view.data_parts(evidence.datasets)
    plates = {name: of(evidence, verdict) for name, of in SHEETS.items()}
    wanted = [*sheets.wanted(*plates.values()), *view.wanted_cells(grids[:1], tests[:1], data)]
    spare = [*view.wanted_cells((), tests[1:], ()), *view.wanted_cells((*rest_grids, *grids[1:]), (), ())]
    chosen = next((arm for arm in arms if arm.name in (verdict.use, verdict.nearest)), None)
    with_lora = [arm.name for arm in arms if arm.run is not None]
    words = view.words_of(evidence)
    context = {
        **plates,
        "file": chosen.file if chosen and verdict.use else None,
        "strength": chosen.strength if chosen else 1,
        "shown_arm": chosen.label if chosen else "",
        "steps": onward.steps(evidence, verdict, chosen, trigger=words["trigger"]),
        "would_change": onward.unsaid(verdict.would_change),
        "searched": onward.searched(evidence, verdict, vary),
        "pareto": choices.pareto(evidence.scores, arms, verdict),
        "sweeps": choices.sweep_figures(evidence.scores, arms, verdict),
        "limited": choices.limited_figures(evidence.scores, arms, verdict),
        "matrices": _matrices(evidence, arms, verdict),
        "grid_arms": shown_arms,
        "rest_arms": rest,
        "rest_grids": rest_grids,
        "as_reported": figures.as_reported(evidence.scores, arms),
        "judged": witnesses.judged(evidence.people),
        "flags": witnesses.flags(evidence.people),
        **_controls(evidence),
        "probed": losses.probed(evidence.probes),
        "vez_version": vez.__version__,
        "study": evidence.study,
        "words": words,
        "band": Markup(motif.band()),
        "verdict": verdict,
        "warning": evidence.scores and caveats.disagreement(evidence.scores, with_lora),
        "absent": evidence.absent,
        "unfinished": [run for run in evidence.runs if not run.finished],
        "arms": arms,
        "grids": grids,
        "drawn": bool(grids),
        "tests": tests,
        "metrics": figures.metric_parts(evidence.scores, arms, expected=EXPECTED, chosen=verdict.use),
        "main": EXPECTED,
        **_read(evidence),
        **_runs(evidence, chosen_run=_chosen_run(arms, verdict.use)),
        "data": data,
        "changes": [(f"changes/{quote(page)}", page.removesuffix(".html")) for page in evidence.changes],
        "lints": dataset_section.lint_parts(evidence.lints),
        "origins": view.origins(evidence),
        "suite_note": view.suite_note(evidence),
        "commands": _commands(evidence.study),
    }
    return context, wanted, spare


def _read(evidence: Evidence) -> dict[str, Any]:
    """Who looked at the pictures, how often, and what the scores are read against."""
    scores = evidence.scores
    looks = caveats.looks(scores) if scores else ()
    return {"clip": scores and scores.clip, "looks": looks, "reference": figures.reference_lines(scores)}


def _controls(evidence: Evidence) -> dict[str, Any]:
    """What was checked of the evaluator itself, always and with trained controls."""
    return {
        "controls": witnesses.controls(evidence.scores.controls if evidence.scores else {}),
        "trained": witnesses.trained(evidence.trained),
        "trained_of": evidence.trained.of if evidence.trained else "",
        "distrusted": evidence.trained.warnings if evidence.trained else (),
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


def _columns(evidence: Evidence, arms: tuple[Arm, ...], verdict: Verdict) -> tuple[tuple[Arm, ...], tuple[Arm, ...]]:
    """The arms that have a column of the grid, and those that stand below it.

    Of many: the chosen one, the one next to it, no LoRA, then those that were declared, the best by their means first.
    """
    if len(arms) <= MOST_COLUMNS:
        return arms, ()
    scores, axes = evidence.scores, verdict.axes
    explored = scores.explored if scores else frozenset()
    declared = [arm.name for arm in arms if arm.name not in explored and arm.name != BASE]
    if scores is not None and axes is not None:
        declared.sort(key=lambda arm: -turned_mean(scores, arm, axes.concept))
    first = [name for name in (verdict.use or verdict.nearest, verdict.runner_up, BASE) if name is not None]
    kept = set(list(dict.fromkeys([*first, *declared]))[:MOST_COLUMNS])
    shown = tuple(arm for arm in arms if arm.name in kept)
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
        note += f", at {album.scale:.0%} of the usual size to stay within the page's limit"
    if album.spare_scale < album.scale:
        note += f"; those of later seeds at {album.spare_scale:.0%}"
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
