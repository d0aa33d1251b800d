"""The score stage: samples → one number per picture and metric, and what may be said of each arm."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from vez.config import Project
from vez.dataset import Dataset
from vez.errors import StoreError
from vez.events import Done, Event, Note, Stage
from vez.metrics.definitions import (
    METRICS,
    PREFIX,
    WEIGHT,
    Drawn,
    Material,
    Vectors,
    alike,
    describing,
    likeness_span,
    real_likeness,
)
from vez.metrics.embed import PUBLISHED, Clip, image_features, text_features
from vez.metrics.summary import EXPLAINED, Settings, Values, summarise
from vez.sample import read_rows
from vez.store import Artifact, artifact_id, find, making, open_artifact, write_atomic

VERSION: Final = 2
"""Counts up when the same samples would give other scores."""

CONFIRMING: Final = "G"
"""The set of the suite whose prompts have no say in a choice, and confirm it (docs/evaluate.md)."""


def score(
    samples: Path,
    datasets: Mapping[str, Dataset],
    *,
    project: Project,
    clip: Clip,
    into: Path,
    cache: Path | None = None,
    confirm: Path | None = None,
) -> Iterator[Event]:
    """Measure a samples artifact; the last event is Done.

    The artifact at ``into`` holds scores.jsonl, a row {arm, prompt, seed, metric, value} per number, and summary.json:
    {metrics, not_measured, reference, clip, explained} and the tables of `summary.summarise`.

    Args:
        samples: the artifact that `sample` made; its arm without a LoRA is the base.
        datasets: arm → the dataset its LoRA was trained on; arms may be missing. Held-out pictures of all of them are
            the reference, but for those that some arm was trained on.
        project: trigger, noun and describing words.
        clip: who looks.
        into: the artifact's folder.
        cache: folder for picture vectors, by content; None keeps none.
        confirm: samples of prompts that had no say in a choice, of some of the same arms; None where none were drawn.
    Raises:
        StoreError: ``samples`` or ``confirm`` is no whole samples artifact, or ``into`` cannot be written.
        DataError: a picture cannot be read.
    """
    drawn_from = {"samples": _samples(samples)} | ({} if confirm is None else {"confirm": _samples(confirm)})
    parents = {role: of.id for role, of in drawn_from.items()}
    parents |= {f"dataset:{arm}": of.id for arm, of in sorted(datasets.items())}
    words = project.model_dump(include={"trigger", "noun", "describes"})
    config = {"project": words, "clip": clip.sha256}
    id = artifact_id("scores", parents, config, VERSION)
    if find(into, id) is None:
        with making(into, kind="scores", parents=parents, config=config, version=VERSION) as made:
            arms = drawn_from["samples"].config["arms"]
            bare = [arm for arm, lora in arms.items() if lora is None]
            drawn, pictures = _drawn([of.path for of in drawn_from.values()])
            yield Stage("score", len(drawn), f"{len(METRICS)} metrics")
            material = _look(
                pictures, drawn, datasets, project=project, clip=clip, base=next(iter(bare), None), cache=cache
            )
            values = {metric.name: metric.measure(material) for metric in METRICS}
            for metric in METRICS:
                if not values[metric.name]:
                    yield Note(f"{metric.name} was not measured: it {metric.needs}")
            _write(made.path, values, material, clip, settings=settings_of(arms))
    yield Done(into, id)


def settings_of(arms: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Arm → its setting and training seed, by a samples manifest's ``arms``; what does not say so is left out.

    A setting is what several training seeds share: the variant, and the checkpoint and strength where those were swept.
    """
    found = {}
    for arm, record in arms.items():
        if isinstance(record, Mapping) and record.get("variant") is not None and record.get("seed") is not None:
            run, variant = str(record.get("run")), str(record["variant"])
            found[arm] = (variant + arm.removeprefix(run) if arm.startswith(run) else arm, int(record["seed"]))
    return found


def _samples(folder: Path) -> Artifact:
    artifact = open_artifact(folder)
    if artifact.kind != "samples":
        raise StoreError(f"{folder} is a {artifact.kind}, not samples; give the folder that sampling made")
    return artifact


def _drawn(folders: Sequence[Path]) -> tuple[tuple[Drawn, ...], tuple[Path, ...]]:
    """Every picture of the samples, and of the confirmation its own set; and where it lies."""
    drawn, pictures = [], []
    for folder in folders:
        for row in read_rows(folder):
            of = Drawn(**{key: row[key] for key in Drawn.__annotations__ if key in row})
            if folder == folders[0] or of.set == CONFIRMING:
                drawn.append(of)
                pictures.append(folder / of.file)
    return tuple(drawn), tuple(pictures)


def _look(
    pictures: Sequence[Path],
    drawn: tuple[Drawn, ...],
    datasets: Mapping[str, Dataset],
    *,
    project: Project,
    clip: Clip,
    base: str | None,
    cache: Path | None,
) -> Material:
    """Embed everything once."""

    def see(paths: Sequence[Path]) -> Vectors:
        return image_features(clip, paths, cache=cache).astype(np.float64)

    plain, described = _trigger_texts(project)
    said = [d.text for d in drawn] + [d.context for d in drawn if d.context]
    said += [describing(d.text, project) for d in drawn] + [plain, described]
    texts = list(dict.fromkeys(said))
    vectors = text_features(clip, [PREFIX + text for text in texts]).astype(np.float64)
    return Material(
        drawn=drawn,
        images=see(pictures),
        texts=dict(zip(texts, vectors, strict=True)),
        reference=see(reference_pictures(datasets.values())),
        training={arm: see([of.path / row.file for row in of.train]) for arm, of in datasets.items()},
        project=project,
        base=base,
    )


def reference_pictures(datasets: Iterable[Dataset]) -> list[Path]:
    """The held-out pictures that none of the datasets trains on, each once: the fair reference for all arms together.

    What one dataset holds out another may train on; likeness to it would then reward memory.
    """
    datasets = list(datasets)
    trained = {mark for of in datasets for row in of.train for mark in (row.sha256, row.source_sha256)}
    found: dict[str, Path] = {}
    for of in datasets:
        for row in of.held_out:
            if trained.isdisjoint((row.sha256, row.source_sha256)):
                found.setdefault(row.source_sha256, of.path / row.file)
    return list(found.values())


def _trigger_texts(project: Project) -> tuple[str, str]:
    """The same plain text with the trigger and with the describing words."""
    return f"a photo of {project.trigger} {project.noun}", f"a photo of {project.describes}"


def _write(folder: Path, values: Mapping[str, Values], material: Material, clip: Clip, *, settings: Settings) -> None:
    rows = [
        {"arm": arm, "prompt": prompt, "seed": seed, "metric": name, "value": value}
        for name, of_arm in values.items()
        for arm, scores in of_arm.items()
        for (prompt, seed), value in scores.items()
    ]
    confirming = {d.prompt for d in material.drawn if d.set == CONFIRMING}
    rules = {metric.name: metric.rule for metric in METRICS}
    summary = {
        "metrics": {
            metric.name: {"definition": metric.definition, **asdict(metric.rule)}
            for metric in METRICS
            if values[metric.name]
        },
        "not_measured": {metric.name: metric.needs for metric in METRICS if not values[metric.name]},
        **summarise(values, rules=rules, base=material.base, settings=settings, confirming=confirming),
        "reference": _reference(material),
        # not clip.name: it may be a folder of this machine
        "clip": {"name": Path(clip.name).name, "sha256": clip.sha256, "published": clip.name == PUBLISHED},
        "explained": EXPLAINED,
    }
    write_atomic(folder / "scores.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / "summary.json", text.encode())


def _reference(m: Material) -> dict[str, Any]:
    """What the scores are to be read against; all from real pictures, none from a LoRA.

    ``trigger_cost`` is CLIPscore with the trigger minus with the describing words on the real pictures: what the
    made-up word itself costs. ``training_alike`` is, per arm, the limit of the metric copying.
    """
    real = np.concatenate([m.reference, *m.training.values()])
    plain, described = (m.texts[text] for text in _trigger_texts(m.project))
    cost = WEIGHT * (np.maximum(real @ plain, 0) - np.maximum(real @ described, 0))
    return {
        "held_out": len(m.reference),
        "real_likeness": _rounded(real_likeness(m)),
        "likeness_span": _rounded(likeness_span(m)),
        "trigger_cost": _rounded(float(cost.mean()) if len(cost) else None),
        "training_alike": {arm: _rounded(alike(seen)) for arm, seen in m.training.items()},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
