"""What there is to judge: a study's samples, the words a person may read of them, and real pictures to compare with."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vez.config import Project
from vez.dataset import Dataset
from vez.dataset import load as load_dataset
from vez.dataset.rows import KIND as DATASET
from vez.dataset.rows import lines
from vez.errors import ConfigError, StoreError
from vez.metrics.definitions import describing
from vez.store import MANIFEST, Artifact, open_artifact

JUDGED_ROLE: Final = "trigger"
"""Only prompts that call the concept by its trigger are judged: they are what a LoRA is trained for."""

MOST_REFERENCES: Final = 5
"""Real pictures on the page: more would be too small to compare with."""


class SampleRow(BaseModel):
    """A line of samples.jsonl, as far as judging needs it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    arm: str
    prompt: str
    role: str = ""
    text: str
    seed: int
    file: str


class ScoreRow(BaseModel):
    """A line of scores.jsonl: one number about one picture."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: str
    prompt: str
    seed: int
    metric: str
    value: float


@dataclass(frozen=True, order=True)
class Cell:
    """One picture of a study."""

    arm: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Material:
    """The pictures that can be judged.

    ``arms`` are in the order they were drawn, the one without a LoRA (``base``, None where there is none) last;
    ``texts`` says for every prompt what a person reads; ``files`` and ``sha256`` are of the pictures.
    """

    samples: str
    arms: tuple[str, ...]
    base: str | None
    texts: Mapping[str, str]
    files: Mapping[Cell, Path]
    sha256: Mapping[Cell, str]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Their ids, in the order they were drawn."""
        return tuple(self.texts)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The numbers of the noises."""
        return tuple(sorted({cell.seed for cell in self.files}))

    def only(self, arms: tuple[str, ...]) -> "Material":
        """The same with these arms, and the one without a LoRA. Raises ConfigError for an arm that was not drawn."""
        for arm in arms:
            if arm not in self.arms:
                raise ConfigError(f"there is no arm {arm!r} to judge; there are: {', '.join(self.arms)}")
        kept = tuple(arm for arm in self.arms if not arms or arm in arms or arm == self.base)
        files = {cell: path for cell, path in self.files.items() if cell.arm in kept}
        sums = {cell: self.sha256[cell] for cell in files}
        return Material(self.samples, kept, self.base, self.texts, files, sums)


def read(study_dir: Path, project: Project | None = None) -> Material:
    """The samples of a study.

    Args:
        study_dir: ``studies/<name>``.
        project: replaces the trigger word in what a person reads by the words that describe the concept; None: the
            prompts are shown as they were drawn.
    Raises:
        StoreError: nothing was drawn, or what lies there is damaged.
    """
    folder = study_dir / "samples"
    if not (folder / MANIFEST).is_file():
        raise StoreError(f"there are no pictures at {folder}; draw them with: vez sample {study_dir.name}")
    artifact = open_artifact(folder)
    rows = [row for row in _rows(artifact) if row.role == JUDGED_ROLE]
    if not rows:
        raise StoreError(f"no picture in {folder} was drawn with the trigger word; there is nothing to judge")
    loras = artifact.config.get("arms")
    bare = [arm for arm, lora in loras.items() if lora is None] if isinstance(loras, dict) else ["base"]
    drawn = dict.fromkeys(row.arm for row in rows)
    base = next((arm for arm in bare if arm in drawn), None)
    cells = {Cell(row.arm, row.prompt, row.seed): row for row in rows}
    return Material(
        samples=artifact.id,
        arms=tuple(sorted(drawn, key=lambda arm: arm == base)),  # stable: only moves the base
        base=base,
        texts={row.prompt: readable(row.text, project) if project else row.text for row in rows},
        files={cell: folder / row.file for cell, row in cells.items()},
        sha256={cell: artifact.files[row.file] for cell, row in cells.items()},
    )


def readable(text: str, project: Project) -> str:
    """A prompt as a person reads it: the words that describe the concept instead of the trigger, and nothing twice.

    Prompts often begin with the trigger as a tag and repeat it in the sentence; the tag is left out then.
    """
    words, describes = describing(text, project), project.describes
    tag = re.match(rf"{re.escape(describes)}\s*,\s*", words, flags=re.IGNORECASE)
    if tag and describes.casefold() in words[tag.end() :].casefold():
        words = words[tag.end() :]
    return re.sub(r"\b(\w+)(\s+\1\b)+", r"\1", words, flags=re.IGNORECASE)


def references(study_dir: Path, datasets_dir: Path) -> tuple[Path, ...]:
    """Held-out pictures of the datasets that the study's runs were trained on, none of which any of them trained on.

    At most `MOST_REFERENCES`, evenly spread over what there is; empty where a dataset is no longer in the store.
    """
    runs = [folder for folder in (study_dir / "runs").glob("*") if (folder / MANIFEST).is_file()]
    wanted = {open_artifact(folder).parents.get("dataset") for folder in runs if not folder.name.startswith(".")}
    datasets = []
    for folder in sorted(datasets_dir.glob("*")):
        if (folder / MANIFEST).is_file() and not folder.name.startswith("."):
            artifact = open_artifact(folder)
            if artifact.kind == DATASET and artifact.id in wanted:
                datasets.append(load_dataset(folder))
    found = _held_out(datasets)
    step = max(1.0, len(found) / MOST_REFERENCES)
    return tuple(found[int(i * step)] for i in range(min(MOST_REFERENCES, len(found))))


def scores(study_dir: Path, samples: str) -> tuple[list[ScoreRow], dict[str, bool]]:
    """What was measured of the same samples: (numbers, metric → whether higher is better); empty where nothing was.

    Raises StoreError where the scores are damaged.
    """
    folder = study_dir / "scores"
    if not (folder / MANIFEST).is_file():
        return [], {}
    artifact = open_artifact(folder)
    if artifact.parents.get("samples") != samples:
        return [], {}
    try:
        summary = Summary.model_validate_json((folder / "summary.json").read_bytes())
        rows = TypeAdapter(list[ScoreRow]).validate_python(lines(folder / "scores.jsonl"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} cannot be read ({_first(error)}); delete it and score again") from error
    better = {name: metric.higher_is_better for name, metric in summary.metrics.items()}
    return [row for row in rows if math.isfinite(row.value) and row.metric in better], better


class MetricRow(BaseModel):
    """What summary.json says of a metric."""

    model_config = ConfigDict(extra="ignore")

    higher_is_better: bool = True


class Summary(BaseModel):
    """summary.json, as far as judging needs it."""

    model_config = ConfigDict(extra="ignore")

    metrics: dict[str, MetricRow]


def _rows(artifact: Artifact) -> list[SampleRow]:
    path = artifact.path / "samples.jsonl"
    try:
        rows = TypeAdapter(list[SampleRow]).validate_python(lines(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({_first(error)}); delete {artifact.path} and sample again") from error
    for row in rows:
        if row.file not in artifact.files:  # the manifest's own names were checked to lie inside
            raise StoreError(f"{path} names {row.file!r}, which is not of the artifact; delete it and sample again")
    return rows


def _held_out(datasets: list[Dataset]) -> list[Path]:
    trained = {mark for of in datasets for row in of.train for mark in (row.sha256, row.source_sha256)}
    found: dict[str, Path] = {}
    for of in datasets:
        for row in of.held_out:
            if trained.isdisjoint((row.sha256, row.source_sha256)):
                found.setdefault(row.source_sha256, of.path / row.file)
    return list(found.values())


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
    return str(error)
