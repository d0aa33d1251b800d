"""What a study left on disk, read once and checked: runs, samples, scores, datasets. Nothing is computed here.

Every row of a .jsonl file passes through a model that knows its fields; fields that a later version adds are ignored.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from vez import events
from vez.errors import StoreError
from vez.judging import results as judging
from vez.judging.results import Results
from vez.lint.artifact import Lint
from vez.lint.artifact import load as load_lint
from vez.metrics import expected, probed
from vez.metrics.expected import Trained
from vez.metrics.probed import Probes
from vez.report import scored
from vez.report.scored import Row, Scores, read_rows
from vez.store import Artifact, file_sha256, open_artifact
from vez.sweep import LAST

EVENTS_FILE = "events.jsonl"


class SampleRow(Row):
    """One picture that was drawn."""

    arm: str
    prompt: str
    group: str = ""
    role: str = ""
    set: str = ""
    text: str
    seed: int
    file: str


class DatasetRow(Row):
    """One picture of a dataset and its caption."""

    file: str
    caption: str
    machine: str | None = None
    hand: bool = False
    split: str = "train"
    source: str = ""


class FindingRow(Row):
    """Something the checks saw in a picture."""

    file: str
    check: str
    value: float | str | None = None
    threshold: float | str | None = None
    why: str = ""
    fix: str = ""
    level: str = "warning"
    waived: str = ""
    left_out: bool = False


class DroppedRow(Row):
    """A picture that was thrown out."""

    file: str
    reason: str = Field(default="no reason was recorded")


@dataclass(frozen=True)
class Run:
    """One LoRA, finished or not; `steps` of `of` were taken in `seconds`.

    `losses`, `held_out` and `relearned` are (step, loss): of the steps' own pictures, and at fixed noise of held-out
    pictures and of pictures trained on.
    """

    name: str
    variant: str
    folder: Path
    artifact: Artifact | None
    settings: dict[str, Any]
    steps: int
    of: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    held_out: tuple[tuple[int, float], ...]
    relearned: tuple[tuple[int, float], ...]
    last_words: str
    lora_bytes: int | None
    lora_sha256: str | None

    @property
    def finished(self) -> bool:
        """Whether the artifact and its LoRA file are there."""
        return self.artifact is not None and self.lora_bytes is not None


@dataclass(frozen=True)
class Data:
    """One dataset artifact."""

    artifact: Artifact
    rows: tuple[DatasetRow, ...]
    findings: tuple[FindingRow, ...]
    dropped: tuple[DroppedRow, ...]


@dataclass(frozen=True)
class Evidence:
    """All that the report knows. What was not found is None or empty; `absent` says so in sentences."""

    study: str
    runs: tuple[Run, ...]
    samples: Artifact | None
    drawn: tuple[SampleRow, ...]
    scores: Scores | None
    datasets: tuple[Data, ...]
    absent: tuple[str, ...]
    lints: tuple[Lint, ...] = ()
    changes: tuple[str, ...] = ()  # names of the pages that compare one dataset with the next
    people: Results | None = None  # what people said of the pictures
    probes: Probes | None = None  # what losses say without sampling
    trained: Trained | None = None  # controls that were trained; nothing that chooses looks at them


def gather(study_dir: Path, *, datasets_dir: Path | None = None) -> Evidence:
    """Read a study's folder and the datasets its runs were trained on.

    Args:
        study_dir: `studies/<study>`.
        datasets_dir: where dataset artifacts lie; by default `.vez/datasets` of the project that holds the study.
    Raises:
        StoreError: the folder is not there, holds no run and no samples, or a file in it is not what it should be.
    """
    study_dir = study_dir.resolve()
    if not study_dir.is_dir():
        raise StoreError(f"there is no study at {study_dir}; run `vez study` first")
    absent: list[str] = []
    runs = tuple(_read_run(folder) for folder in _run_folders(study_dir / "runs"))
    samples = _artifact_if_there(study_dir / "samples", absent, "No pictures were drawn")
    scores_artifact = _artifact_if_there(study_dir / "scores", absent, "No scores were computed")
    if not runs and samples is None:
        raise StoreError(f"{study_dir} holds neither runs nor samples; run `vez study` first")
    drawn = () if samples is None else tuple(read_rows(samples.path / "samples.jsonl", SampleRow))
    for row in drawn:
        inside(study_dir / "samples", row.file)
    where = datasets_dir or study_dir.parent.parent / ".vez" / "datasets"
    datasets = tuple(_read_datasets(where, runs, absent))
    scores = None if scores_artifact is None else scored.read(scores_artifact)
    lints = tuple(_read_lints(where.parent / "lints", {data.artifact.id for data in datasets}))
    pages = tuple(sorted(page.name for page in (study_dir / "changes").glob("*.html")))
    people, probes = None if samples is None else judging.gather(study_dir), probed.results(study_dir)
    trained = _read_trained(study_dir, runs, absent)
    return Evidence(
        study_dir.name, runs, samples, drawn, scores, datasets, tuple(absent), lints, pages, people, probes, trained
    )


def inside(folder: Path, relative: str) -> Path:
    """The path of a file that a row names. Raises StoreError where it would lie outside the folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative:
        raise StoreError(f"a row in {folder} names {relative!r}, which lies outside it; do not use this folder")
    return folder / path


def setting(settings: Mapping[str, Any], name: str) -> Any:
    """The value of a setting wherever it lies in a nested configuration, outermost first; None if it is nowhere."""
    if name in settings:
        return settings[name]
    for _, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            found = setting(value, name)
            if found is not None:
                return found
    return None


def _read_trained(study_dir: Path, runs: tuple[Run, ...], absent: list[str]) -> Trained | None:
    """The trained controls, if they were made after a run as it is now."""
    trained = expected.read(study_dir)
    if trained is None or trained.run in {run.artifact.id for run in runs if run.artifact}:
        return trained
    absent.append(f"The trained controls were made after an earlier {trained.of}; `vez controls` makes them again.")
    return None


def _artifact_if_there(folder: Path, absent: list[str], sentence: str) -> Artifact | None:
    if (folder / "manifest.json").is_file():
        return open_artifact(folder)
    cut = folder.with_name(f".{folder.name}.partial").is_dir()
    absent.append(f"{sentence}{' to the end: the stage was cut short' if cut else ''}.")
    return None


def _run_folders(runs: Path) -> list[Path]:
    """Finished runs and the `.<name>.partial` of those that never finished, by name."""
    if not runs.is_dir():
        return []
    visible = (folder for folder in runs.iterdir() if not folder.name.startswith("."))
    found = {folder.name: folder for folder in visible if (folder / "manifest.json").is_file()}
    for folder in runs.iterdir():
        if folder.name.startswith(".") and folder.name.endswith(".partial") and folder.is_dir():
            found.setdefault(folder.name[1 : -len(".partial")], folder)
    return [found[name] for name in sorted(found)]


def _read_run(folder: Path) -> Run:
    finished = not folder.name.startswith(".")
    name = folder.name if finished else folder.name[1 : -len(".partial")]
    artifact = open_artifact(folder) if finished else None
    steps: dict[int, events.Step] = {}
    fixed: dict[str, dict[int, float]] = {"held_out": {}, "train": {}}
    seconds, of, last_words = 0.0, 0, ""
    log = folder / EVENTS_FILE
    for event in events.read(log) if log.is_file() else ():
        if isinstance(event, events.Step):
            steps[event.step] = event  # a step redone after an interruption stands once: as it counted
            seconds, of = seconds + event.seconds, event.of
        elif isinstance(event, events.Validated):
            fixed.setdefault(event.split, {})[event.step] = event.loss
        elif isinstance(event, events.Note):
            last_words = event.text
    if steps and not math.isfinite(steps[max(steps)].loss):
        last_words = last_words or "the loss was no longer finite"
    lora = folder / LAST
    return Run(
        name=name,
        variant=name.rpartition("-")[0] or name,
        folder=folder,
        artifact=artifact,
        settings=dict(artifact.config) if artifact else {},
        steps=max(steps, default=0),
        of=of,
        seconds=seconds,
        losses=_curve({step: event.loss for step, event in steps.items()}),
        held_out=_curve(fixed["held_out"]),
        relearned=_curve(fixed["train"]),
        last_words=last_words,
        lora_bytes=lora.stat().st_size if finished and lora.is_file() else None,
        lora_sha256=file_sha256(lora) if finished and lora.is_file() else None,
    )


def _curve(losses: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    return tuple((step, losses[step]) for step in sorted(losses) if math.isfinite(losses[step]))


def _read_datasets(where: Path, runs: tuple[Run, ...], absent: list[str]) -> Iterator[Data]:
    """The datasets that the runs name as parents, in the order of their folders' names."""
    wanted = {id for run in runs if run.artifact for role, id in run.artifact.parents.items() if role == "dataset"}
    found = set()
    for folder in sorted(where.iterdir()) if where.is_dir() else ():
        if not (folder / "manifest.json").is_file():
            continue
        artifact = open_artifact(folder)
        if artifact.id in wanted and artifact.id not in found:
            found.add(artifact.id)
            yield _read_dataset(artifact)
    for id in sorted(wanted - found):
        absent.append(
            f"The dataset {id[:8]} that a run was trained on is no longer in the store; `vez build` makes it again."
        )


def _read_lints(where: Path, datasets: set[str]) -> Iterator[Lint]:
    """What lint says about these datasets, in the order of the folders' names."""
    for folder in sorted(where.iterdir()) if where.is_dir() else ():
        if (folder / "manifest.json").is_file() and open_artifact(folder).parents.get("dataset") in datasets:
            yield load_lint(folder)


def _read_dataset(artifact: Artifact) -> Data:
    rows = tuple(read_rows(artifact.path / "rows.jsonl", DatasetRow))
    for row in rows:
        inside(artifact.path, row.file)
    findings, dropped = artifact.path / "findings.jsonl", artifact.path / "dropped.jsonl"
    return Data(
        artifact,
        rows,
        tuple(read_rows(findings, FindingRow)) if findings.is_file() else (),
        tuple(read_rows(dropped, DroppedRow)) if dropped.is_file() else (),
    )
