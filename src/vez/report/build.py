"""The report: a study's artifacts in, one self-contained HTML file out. The same artifacts give the same bytes."""

import base64
import hashlib
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import vez
from vez.report import caveats, dataset_section, figures, motif, view
from vez.report.arms import Arm, arms_of, efforts_of
from vez.report.evidence import Evidence, Run, gather
from vez.report.pictures import Album, Picture, embed
from vez.report.verdict import judge
from vez.store import write_atomic

HERE = Path(__file__).parent
PICTURE_BUDGET = 12_000_000  # bytes of base64; with the rest, a page that a mail server still takes
EXPECTED = ("T0", "T1", "T2", "similarity")


def report(study_dir: Path, to: Path, *, picture_budget: int = PICTURE_BUDGET) -> Path:
    """Write the report of a study.

    Args:
        study_dir: `studies/<study>`; only what lies there, and the datasets its runs name, is read.
        to: the file to write; its folder is made where it is missing.
        picture_budget: the most bytes that all embedded pictures may take, in base64.
    Returns:
        `to`.
    Raises:
        StoreError: there is nothing to report on, or a file of an artifact is damaged.
    """
    write_atomic(to, page(gather(study_dir), picture_budget=picture_budget).encode("utf-8"))
    return to


def headline(study_dir: Path) -> str:
    """The verdict on a study in one line, from what lies on disk. Raises StoreError as `report` does."""
    evidence = gather(study_dir)
    return judge(evidence.scores, efforts_of(arms_of(evidence))).sentence


def page(evidence: Evidence, *, picture_budget: int = PICTURE_BUDGET) -> str:
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
    style = (HERE / "page.css").read_text(encoding="utf-8").strip()
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        **_context(evidence, picture_budget),
    )


def shown(picture: Picture, size: int) -> tuple[int, int, str]:
    """Width and height on the page in CSS pixels, and the class; a small picture is enlarged by a whole factor."""
    longer = max(picture.width, picture.height)
    factor = round(size / longer)
    if factor > 1:
        return picture.width * factor, picture.height * factor, "dots"
    ratio = min(1.0, size / longer)
    return round(picture.width * ratio), round(picture.height * ratio), "smooth"


def _context(evidence: Evidence, picture_budget: int) -> dict[str, Any]:
    arms = arms_of(evidence)
    verdict = judge(evidence.scores, efforts_of(arms))
    grids, tests = view.seed_grids(evidence, arms), view.trigger_tests(evidence, arms)
    data = view.data_parts(evidence.datasets)
    album = embed(view.wanted_cells(grids, tests, data), budget=picture_budget)
    chosen_run = _chosen_run(arms, verdict.use)
    with_lora = [arm.name for arm in arms if arm.run is not None]
    return {
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
        "training": figures.training_chart(
            evidence.runs, chosen_run=chosen_run, title="Training loss of each run, smoothed"
        ),
        "held_out": figures.held_out_chart(
            evidence.runs, chosen_run=chosen_run, title="Loss of each run on held-out pictures at fixed noise"
        ),
        "gap": figures.gap_chart(
            evidence.runs, chosen_run=chosen_run, title="Held-out minus trained-on loss of each run at fixed noise"
        ),
        "run_columns": figures.RUN_COLUMNS,
        "runs": figures.run_lines(evidence.runs, chosen_run=chosen_run),
        "data": data,
        "changes": [(f"changes/{quote(page)}", page.removesuffix(".html")) for page in evidence.changes],
        "lints": dataset_section.lint_parts(evidence.lints),
        "origins": view.origins(evidence),
        "album": album,
        "picture_note": f"{_picture_note(album)} {view.suite_note(evidence)}".rstrip(),
        "commands": _commands(evidence.study),
    }


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
    stages = ("train", "sample", "score", "report")
    return {"build": "vez build", "lint": "vez lint", **{stage: f"vez {stage} {name}" for stage in stages}}
