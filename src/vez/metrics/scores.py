"""The score stage: samples → one number per picture and metric, and what may be said of each arm."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from vez.config import Project
from vez.dataset import Dataset
from vez.errors import StoreError
from vez.events import Done, Event, Note, Stage
from vez.metrics.controls import controls, failed
from vez.metrics.copying import alike, worst
from vez.metrics.definitions import METRICS, Drawn, Material, measure
from vez.metrics.drift import colour_shift
from vez.metrics.embed import PUBLISHED, Clip, Dino
from vez.metrics.gather import gather
from vez.metrics.likeness import likeness_span, real_likeness
from vez.metrics.looks import Look
from vez.metrics.readings import FILE, Ledger, Role, count, counted, keep, mend, notes
from vez.metrics.rules import Rule, declared
from vez.metrics.stats import ALPHA
from vez.metrics.summary import EXPLAINED, Values, summarise
from vez.metrics.texts import trigger_cost
from vez.sample import CONTROLS, read_rows
from vez.store import Artifact, artifact_id, file_sha256, find, making, open_artifact, write_atomic
from vez.sweep import explored

VERSION: Final = 7
"""Counts up when the same samples would give other scores."""

CONFIRMING: Final = "G"
"""The set of the suite whose prompts have no say in a choice, and confirm it (docs/evaluate.md)."""


TELLING: Final = ("similarity", "T0", "T1", "T2", "leak", "copying", "drift")
"""Metrics whose absence is worth a sentence of its own."""

NEEDED: Final = {
    "dino": 'needs a DINOv2: dino = "facebook/dinov2-base", or a folder, in the study; until then CLIP judges likeness',
    "foreground": "needs a mask for each held-out picture: masks in the dataset",
    "lookalikes": "needs lookalikes in [project]: what the concept could be mistaken for, in words",
    "gallery": "needs gallery in [project]: a folder of pictures of look-alikes",
}
"""What a tier of the measurement lacks where it is not there."""


def score(
    samples: Path,
    datasets: Mapping[str, Dataset],
    *,
    project: Project,
    clip: Clip,
    into: Path,
    dino: Dino | None = None,
    gallery: Sequence[Path] = (),
    cache: Path | None = None,
    confirm: Path | None = None,
    ledger: Ledger | None = None,
) -> Iterator[Event]:
    """Measure a samples artifact; the last event is Done.

    The artifact at ``into`` holds scores.jsonl, a row {arm, prompt, seed, metric, value} per number, and summary.json,
    the tables of `summary.summarise` and what they are to be read with (docs/files.md).

    Args:
        samples: the artifact that `sample` made; its arm without a LoRA is the base.
        datasets: arm → the dataset its LoRA was trained on; arms may be missing. Held-out pictures of all of them are
            the reference, but for those that some arm was trained on.
        project: trigger, noun, describing words and look-alikes.
        clip: who compares with texts, and judges likeness where there is no ``dino``.
        into: the artifact's folder.
        dino: who judges likeness.
        gallery: pictures of look-alikes.
        cache: folder for what was seen of pictures, by content; None keeps none.
        confirm: samples of prompts that had no say in a choice, of some of the same arms; None where none were drawn.
        ledger: where the looks at these LoRAs are counted, and how many are planned; None counts none.
    Raises:
        StoreError: ``samples`` or ``confirm`` is no whole samples artifact, ``ledger`` is damaged, or ``into`` cannot
            be written.
        DataError: a picture cannot be read.
    """
    drawn_from = {"samples": _samples(samples)} | ({} if confirm is None else {"confirm": _samples(confirm)})
    parents = {role: of.id for role, of in drawn_from.items()}
    parents |= {f"dataset:{arm}": of.id for arm, of in sorted(datasets.items())}
    config = _recipe(project, clip, dino, gallery, ledger)
    if ledger is not None and mend(ledger, into / FILE):
        yield Note(f"{ledger.path} was gone; it was written again from the copy beside the scores")
    id = artifact_id("scores", parents, config, VERSION)
    if find(into, id) is None:
        with making(into, kind="scores", parents=parents, config=config, version=VERSION) as made:
            arms = drawn_from["samples"].config["arms"]
            bare = [arm for arm, lora in arms.items() if lora is None]
            drawn, pictures = _drawn([of.path for of in drawn_from.values()])
            yield Stage("score", len(drawn), f"{len(METRICS)} metrics")
            base = next(iter(bare), None)
            material = _looked(pictures, drawn, datasets, gallery, project=project, clip=clip, base=base, dino=dino,
                               cache=cache)  # fmt: skip
            values = measure(material)
            yield from _unmeasured(values)
            measured = [name for name, of_arm in values.items() if of_arm]
            rules = declared(measured, clip=clip.sha256, judge=(dino or clip).sha256)
            told = yield from _told(material, values, rules, drawn_from, ledger, files=pictures, judges=(clip, dino))
            keep(ledger, made.path)
            _write(made.path, values, told | {"nearest": _nearest(material, datasets)}
                   | {"tiers": _tiers(material, clip, dino), **_judge(clip)})  # fmt: skip
    yield Done(into, id)


def _looked(
    pictures: Sequence[Path],
    drawn: Sequence[Drawn],
    datasets: Mapping[str, Dataset],
    gallery: Sequence[Path],
    **who: Any,
) -> Material:
    references = reference_rows(datasets.values())
    return gather(
        pictures,
        drawn,
        reference=[picture for picture, _ in references],
        masks=[mask for _, mask in references],
        training={arm: [of.path / row.file for row in of.train] for arm, of in datasets.items()},
        gallery=gallery,
        **who,
    )


def _confirming(m: Material) -> set[str]:
    return {d.prompt for d in m.drawn if d.set == CONFIRMING}


def _told(
    m: Material,
    values: Mapping[str, Values],
    rules: Mapping[str, Rule],
    drawn_from: Mapping[str, Artifact],
    ledger: Ledger | None,
    *,
    files: Sequence[Path],
    judges: tuple[Clip, Dino | None],
) -> Generator[Event, None, dict[str, Any]]:
    """What the numbers say, and whether they are to be relied on. The look is counted before anything is told."""
    checked = controls(m, values, rules, strength_0=_strength_0(drawn_from["samples"]))
    for sentence in failed(checked):
        yield Note(f"a control failed: {sentence}")
    looks = count(
        ledger,
        {role: of.config["arms"] for role, of in drawn_from.items()},
        [values[name] for name, of in rules.items() if of.primary],
        dict(zip(((d.arm, d.prompt, d.seed) for d in m.drawn), files, strict=True)),
        confirming=_confirming(m),
        judges=[of.sha256 for of in judges if of is not None],
    )
    yield from notes(looks, ledger)
    told = _summary(m, values, rules, drawn_from["samples"].config["arms"], looks=looks)
    return told | {"controls": checked} | counted(looks, ledger)


def _summary(
    m: Material,
    values: Mapping[str, Values],
    rules: Mapping[str, Rule],
    arms: Mapping[str, Any],
    *,
    looks: Mapping[Role, Look],
) -> dict[str, Any]:
    """The part of summary.json that is made of the numbers."""
    about = {metric.name: {"definition": metric.definition, "family": metric.family} for metric in METRICS}
    return {
        "metrics": {name: about[name] | asdict(rule) for name, rule in rules.items()},
        "not_measured": {metric.name: metric.needs for metric in METRICS if metric.name not in rules},
        **summarise(
            {name: values[name] for name in rules},
            rules=rules,
            base=m.base,
            settings=settings_of(arms),
            confirming=_confirming(m),
            explored=explored(arms),
            alpha=looks["choice"].alpha if "choice" in looks else ALPHA,
            alpha_confirming=looks["confirmation"].alpha if "confirmation" in looks else ALPHA,
        ),
        "reference": _reference(m),
        "colour": colour_shift(m),
        "explained": EXPLAINED,
    }


def _judge(clip: Clip) -> dict[str, Any]:
    # not clip.name: it may be a folder of this machine
    return {"clip": {"name": Path(clip.name).name, "sha256": clip.sha256, "published": clip.name == PUBLISHED}}


def _unmeasured(values: Mapping[str, Values]) -> Iterator[Note]:
    """What could not be measured: why, for what decides; the names of the rest."""
    rest = []
    for metric in METRICS:
        if not values[metric.name] and metric.name in TELLING:
            yield Note(f"{metric.name} was not measured: it {metric.needs}")
        elif not values[metric.name]:
            rest.append(metric.name)
    if rest:
        yield Note(f"also not measured, and not needed for a verdict: {', '.join(rest)} (summary.json says why)")


def _recipe(
    project: Project, clip: Clip, dino: Dino | None, gallery: Sequence[Path], ledger: Ledger | None
) -> dict[str, Any]:
    """What decides the scores besides the pictures drawn; only what there is, so that what is not asked for does not
    change an id."""
    words = project.model_dump(include={"trigger", "noun", "describes"})
    if project.lookalikes:
        words["lookalikes"] = list(project.lookalikes)
    config: dict[str, Any] = {"project": words, "clip": clip.sha256}
    if dino is not None:
        config["dino"] = dino.sha256
    if gallery:
        config["gallery"] = [file_sha256(path) for path in gallery]
    if ledger is not None and ledger.planned != 1:
        config["looks"] = ledger.planned
    return config


def _strength_0(samples: Artifact) -> dict[str, int] | None:
    """What sampling found of LoRAs at strength 0; None where it did not look."""
    try:
        levels = json.loads((samples.path / CONTROLS).read_bytes())["strength_0"]
        return {str(arm): int(level) for arm, level in levels.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


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


def reference_rows(datasets: Iterable[Dataset]) -> list[tuple[Path, Path | None]]:
    """The held-out pictures that none of the datasets trains on, each once, with its mask: the fair reference for all
    arms together.

    What one dataset holds out another may train on; likeness to it would then reward memory.
    """
    datasets = list(datasets)
    trained = {mark for of in datasets for row in of.train for mark in (row.sha256, row.source_sha256)}
    found: dict[str, tuple[Path, Path | None]] = {}
    for of in datasets:
        for row in of.held_out:
            if trained.isdisjoint((row.sha256, row.source_sha256)):
                found.setdefault(row.source_sha256, (of.path / row.file, of.path / row.mask if row.mask else None))
    return list(found.values())


def _write(folder: Path, values: Mapping[str, Values], summary: Mapping[str, Any]) -> None:
    rows = [
        {"arm": arm, "prompt": prompt, "seed": seed, "metric": name, "value": value}
        for name, of_arm in values.items()
        for arm, scores in of_arm.items()
        for (prompt, seed), value in scores.items()
    ]
    write_atomic(folder / "scores.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / "summary.json", text.encode())


def _tiers(m: Material, clip: Clip, dino: Dino | None) -> dict[str, dict[str, Any]]:
    """Who looked, and what was lacking: a tier that is not there is named, never filled in."""
    seen = {
        "dino": dino is not None,
        "foreground": m.judge.foreground is not None,
        "lookalikes": bool(m.project.lookalikes),
        "gallery": m.judge.gallery is not None,
    }
    tiers: dict[str, dict[str, Any]] = {"clip": {"measured": True, "judges_likeness": m.judge is m.clip}}
    for name, measured in seen.items():
        tiers[name] = {"measured": measured} | ({} if measured else {"needs": NEEDED[name]})
    for encoder in (clip, dino):
        if encoder is not None:
            tiers[encoder.kind] |= {"name": Path(encoder.name).name, "sha256": encoder.sha256}
    return tiers


def _reference(m: Material) -> dict[str, Any]:
    """What the scores are to be read against; all from real pictures, none from a LoRA.

    ``trigger_cost`` is CLIPscore with the trigger minus with the describing words on the real pictures: what the
    made-up word itself costs. ``training_alike`` is, per arm, the limit of the metric copying.
    """
    real = np.concatenate([m.clip.reference, *m.clip.training.values()])
    return {
        "judge": m.judge.name,
        "held_out": len(m.judge.reference),
        "real_likeness": _rounded(real_likeness(m.judge)),
        "likeness_span": _rounded(likeness_span(m)),
        "trigger_cost": _rounded(trigger_cost(m, real)),
        "training_alike": {arm: _rounded(alike(seen)) for arm, seen in m.judge.training.items()},
    }


def _nearest(m: Material, datasets: Mapping[str, Dataset]) -> dict[str, list[dict[str, Any]]]:
    """Arm → the pictures that lie nearest to a training picture: {file, training, dataset, cosine}."""
    return {
        arm: [row | {"training": datasets[arm].train[row["training"]].file, "dataset": datasets[arm].id} for row in of]
        for arm, of in worst(m).items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
