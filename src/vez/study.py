"""A study from its file to its report: build → train → sample → score → report.

Each stage is a function of (config, name) that makes artifacts and yields events; `run` is all of them in order. What
exists is not made again, what was cut goes on: every stage asks the store by id, so a change in vez.toml remakes
what depends on it and nothing else.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vez import controls, curate, probing, rates, suite, sweep
from vez import plan as planning
from vez.config import Config
from vez.dataset import Dataset, build
from vez.dataset import load as load_dataset
from vez.errors import ConfigError, RunStopped, StoreError
from vez.events import Done, Event, Note, Sampled, Step
from vez.foresight import check_room, fitted, plan, sizes
from vez.images.wording import visible
from vez.metrics.probed import FOLDER as PROBES
from vez.mirror import check, mirrored
from vez.plan import named
from vez.sources import clip_source, load_base, others
from vez.store import open_artifact
from vez.sweep import BASE, LAST, Arm

# What brings torch is imported by the stage that needs it: planning, building and reporting answer at once.
if TYPE_CHECKING:
    from vez.base import Base

__all__ = [
    "build_datasets",
    "check_room",
    "compare_datasets",
    "control_runs",
    "draw_samples",
    "fitted",
    "folder_of",
    "lint_datasets",
    "named",
    "plan",
    "probe_runs",
    "run",
    "score_samples",
    "shared_pictures",
    "sizes",
    "train_runs",
    "verdict",
    "write_report",
]

SAMPLES, CONFIRMED = "samples", "confirm"


def folder_of(config: Config, name: str) -> Path:
    """Where a study's runs, samples, scores and report lie."""
    return config.root / "studies" / name


def run(config: Config, name: str, *, device: str = "auto") -> Iterator[Event]:
    """The whole study; the last event is Done with its report. Raises what its stages raise."""
    others(config, name, device="cpu")  # what is missing to judge by is said before the work, not after it
    if not _is_trained(config, name):
        check_room(config, name, device=device)
    base: Base | None = load_base(config, device, study=config.study[name])
    datasets = yield from build_datasets(config, [*_datasets_of(config, name), *_priors_of(config, name)])
    if "shuffled" in config.study[name].controls:  # what cannot be shuffled is said before the work, too
        dataset = config.study[name].variant[config.study[name].controlled].dataset
        controls.permutation(load_dataset(datasets[dataset]).train, name=dataset)
    yield from lint_datasets(config, name, datasets)
    yield from train_runs(config, name, base=base, datasets=datasets)
    yield from compare_datasets(config, name, datasets)
    if config.study[name].precision != "fp32" or config.study[name].quantize != "none":
        base = None  # LoRAs are asked and drawn with merged into the base's own numbers, in fp32; one copy at a time
        base = load_base(config, device)
    if probing.is_part_of(config.study[name]):
        yield from probe_runs(config, name, base=base, datasets=datasets)
    yield from draw_samples(config, name, device=device, base=base)
    if suite.asked(config.study[name], config.project).prompts:
        yield from score_samples(config, name, device=device, datasets=datasets)
    yield from control_runs(config, name, device=device, base=base, datasets=datasets)
    yield write_report(config, name)


def build_datasets(config: Config, names: Sequence[str] | None = None) -> Generator[Event, None, dict[str, Path]]:
    """Check, crop, caption and freeze datasets, all of the file's if none is named; returns their folders by name."""
    folders: dict[str, Path] = {}
    for name in list(config.dataset) if names is None else names:
        for event in build(config, name):
            if isinstance(event, Done):
                folders[name] = event.artifact_path
            yield event
    return folders


def lint_datasets(config: Config, name: str, datasets: Mapping[str, Path]) -> Iterator[Event]:
    """Lint a study's datasets, and say which pictures two of them share. Stops at no finding."""
    for dataset, folder in datasets.items():
        found = yield from curate.lint(config, dataset, load_dataset(folder))
        for finding in found.findings:
            if finding.level == "error" and finding.is_open:
                yield Note(f"{dataset}: {visible(finding.file)}: {finding.check}: {visible(finding.why)}")
    yield from shared_pictures({dataset: load_dataset(folder) for dataset, folder in datasets.items()})


def compare_datasets(config: Config, name: str, datasets: Mapping[str, Path]) -> Iterator[Event]:
    """Write what changed from each of a study's datasets to the next, for the report: nothing before it needs it."""
    versions = {dataset: folder for dataset, folder in datasets.items() if config.dataset[dataset].role == "concept"}
    yield from curate.compare(config, versions, folder_of(config, name) / "changes")


def shared_pictures(datasets: Mapping[str, Dataset]) -> Iterator[Note]:
    """A word on each picture that one dataset holds out and another trains on: it cannot judge both."""
    for one, other in permutations(datasets, 2):
        trained = {row.source_sha256 for row in datasets[other].train}
        for row in datasets[one].held_out:
            if row.source_sha256 in trained:
                yield Note(
                    f"{visible(row.source)} is held out of {one}, but {other} trains on it: a LoRA of {other} is "
                    f"judged by a picture it has seen; leave it out of {other}"
                )


def train_runs(
    config: Config,
    name: str,
    *,
    device: str = "auto",
    base: "Base | None" = None,
    datasets: Mapping[str, Path] | None = None,
) -> Iterator[Event]:
    """Train every variant with every seed: variants of one dataset and batch side by side, a pass per seed.

    Before a pass's first run, one step of it is tried (`vez.preflight`).
    Raises RunStopped, after all that could be finished is, where runs came to numbers that are not finite.
    """
    from vez.preflight import preflight
    from vez.preview import preview_of
    from vez.train import train

    config = fitted(config, name, device=device)
    study, stopped = config.study[name], list[str]()
    check(study.log)
    if datasets is None:
        if not _is_trained(config, name):
            check_room(config, name, device=device)
        datasets = yield from build_datasets(config, _datasets_of(config, name))
    beside = yield from build_datasets(config, _priors_of(config, name))
    base = base or load_base(config, device, study=study)
    yield Note(base.described)
    for dataset, _, variants in planning.groups(study):
        frozen = load_dataset(datasets[dataset])
        todo = {v: study.variant[v] for v in variants if _to_train(config, name, v)}
        prior = study.variant[variants[0]].prior
        how: dict[str, Any] = {key: getattr(study, key) for key in ("precision", "checkpointing", "compile")}
        how |= {"trigger": config.project.trigger, "noun": config.project.noun}
        how["prior"] = None if prior is None else load_dataset(beside[prior])
        if todo:
            yield from preflight(base, frozen, todo, sampling=study.sampling, seed=study.seeds[0], **how)
        how |= {key: getattr(study, key) for key in ("save_every", "keep", "validate_every")}
        how["preview"] = preview_of(study, config.project)
        for seed in study.seeds:
            steps: list[Step] = []
            events = train(
                base,
                frozen,
                {variant: study.variant[variant] for variant in variants},
                seed=seed,
                steps=study.steps_of(study.variant[variants[0]], len(frozen.train)),
                into=(into := {variant: _run_folder(config, name, variant, seed) for variant in variants}),
                cache=config.root / ".vez" / "latents",
                **how,
            )
            try:
                for event in mirrored(events, study.log, runs=into.values(), folder=folder_of(config, name)):
                    if isinstance(event, Step):
                        steps.append(event)
                    yield event
            except RunStopped as error:
                stopped.append(str(error))
            _keep_rate(config, name, steps, device=base.device.type)
    if stopped:
        raise RunStopped("; ".join(stopped))


def _keep_rate(config: Config, name: str, steps: Sequence[Step], *, device: str) -> None:
    """Keep how long the steps of a pass took, for the next plan."""
    ran = list(dict.fromkeys(step.run for step in steps))  # fewer than the group where some were finished
    if ran:
        some = [run.rpartition("-")[0] for run in ran]
        key = planning.rate_key(config, name, some, device=device)
        rates.record(config.root, key, [step.seconds for step in steps if step.run == ran[0]])


def draw_samples(
    config: Config,
    name: str,
    *,
    device: str = "auto",
    base: "Base | None" = None,
    profile: str | None = None,
    only: Sequence[str] | None = None,
) -> Iterator[Event]:
    """Draw the study's prompts with every run's LoRA, its checkpoints and strengths, and without any.

    ``profile`` draws another part of the suite than the study says; "confirm" lies beside the samples, in its own
    folder. ``only`` names the arms, besides no LoRA. Raises StoreError where a run is not finished, ConfigError where
    an arm is not one.
    """
    from vez.sample import sample

    study, asked = config.study[name], suite.asked(config.study[name], config.project, profile=profile)
    if not asked.prompts:
        yield Note(f"the profile {asked.about['profile']} draws no pictures: what can be said is in the losses")
        return
    arms = _arms(config, name, only)
    base = base or load_base(config, device)
    key = planning.image_rate_key(config, name, device=base.device.type)
    told = planning.Drawn(len(arms), asked.images, asked.about["profile"] or "", rates.read(config.root).get(key))
    yield Note(told.text())
    took: list[float] = []
    events = sample(
        base,
        arms,
        asked.prompts,
        sampling=asked.sampling,
        into=folder_of(config, name) / (CONFIRMED if asked.about["profile"] == suite.CONFIRM else SAMPLES),
        project=config.project,
        precision=study.precision,
        about=asked.about,
        cache=config.root / ".vez" / "images",
    )
    for event in events:
        if isinstance(event, Sampled) and event.seconds:
            took.append(event.seconds)
        yield event
    rates.record(config.root, key, took)


def probe_runs(
    config: Config,
    name: str,
    *,
    device: str = "auto",
    base: "Base | None" = None,
    datasets: Mapping[str, Path] | None = None,
) -> Iterator[Event]:
    """Ask every saved LoRA of the study, at its strengths, what it can tell without drawing."""
    if datasets is None:
        datasets = yield from build_datasets(config, _datasets_of(config, name))
    arms, base = _arms(config, name, checkpoints="all"), base or load_base(config, device)
    yield from probing.probe(config, name, arms, base=base, datasets=datasets, into=folder_of(config, name) / PROBES)


def score_samples(
    config: Config, name: str, *, device: str = "auto", datasets: Mapping[str, Path] | None = None
) -> Iterator[Event]:
    """Measure the samples and compare the arms."""
    from vez.device import choose
    from vez.metrics import embed, readings
    from vez.metrics.scores import score

    if datasets is None:
        datasets = yield from build_datasets(config, _datasets_of(config, name))
    loaded = {dataset: load_dataset(path) for dataset, path in datasets.items()}
    confirmed, (dino, gallery) = folder_of(config, name) / CONFIRMED, others(config, name, device=str(choose(device)))
    yield from score(
        folder_of(config, name) / "samples",
        _datasets_of_arms(config, name, loaded),
        project=config.project,
        clip=embed.load(clip_source(config, name), device=choose(device)),
        dino=dino,
        gallery=gallery,
        into=folder_of(config, name) / "scores",
        cache=config.root / ".vez" / "vectors",
        confirm=confirmed if (confirmed / "manifest.json").is_file() else None,
        ledger=readings.Ledger(folder_of(config, name) / readings.FILE, config.study[name].looks),
    )


def control_runs(
    config: Config,
    name: str,
    *,
    device: str = "auto",
    base: "Base | None" = None,
    datasets: Mapping[str, Path] | None = None,
) -> Iterator[Event]:
    """Make, draw and score the trained controls that the study asks for, in artifacts of their own; nothing for none.

    Raises StoreError where the variant they are made after is not trained and drawn yet.
    """
    config = fitted(config, name, device=device)
    study = config.study[name]
    if not study.controls:
        return
    from vez.controls.stage import make

    wanted = [study.variant[study.controlled].dataset, *_priors_of(config, name)]
    datasets = datasets or (yield from build_datasets(config, list(dict.fromkeys(wanted))))
    yield from make(config, name, folder=folder_of(config, name), datasets=datasets, device=device, base=base)


def write_report(config: Config, name: str) -> Done:
    """Write studies/<name>/report.html from what lies on disk; Done names the page and the id of what it is about."""
    from vez.report import card
    from vez.report.build import report
    from vez.report.evidence import gather

    folder = folder_of(config, name)
    weight = config.study[name].weight
    page = report(folder, folder / "report.html", weight=weight, vary=config.study[name].vary)
    evidence = gather(folder)
    card.write(evidence, folder / card.FOLDER, weight=weight)
    newest = evidence.scores.artifact if evidence.scores else evidence.samples
    return Done(page, newest.id if newest else "")


def verdict(config: Config, name: str) -> str:
    """The report's one sentence: which LoRA to use, or why none can be named."""
    from vez.report.build import headline

    return headline(folder_of(config, name), weight=config.study[name].weight)


def _datasets_of(config: Config, name: str) -> list[str]:
    return list(dict.fromkeys(variant.dataset for variant in config.study[name].variant.values()))


def _priors_of(config: Config, name: str) -> list[str]:
    """The datasets of class pictures that the study's variants see besides."""
    return list(dict.fromkeys(v.prior for v in config.study[name].variant.values() if v.prior is not None))


def _is_trained(config: Config, name: str) -> bool:
    return all((folder / LAST).is_file() for *_, folder in _runs(config, name))


def _run_folder(config: Config, name: str, variant: str, seed: int) -> Path:
    return folder_of(config, name) / "runs" / f"{variant}-{seed}"


def _to_train(config: Config, name: str, variant: str) -> bool:
    folders = [_run_folder(config, name, variant, seed) for seed in config.study[name].seeds]
    return not all((folder / LAST).is_file() for folder in folders)


def _runs(config: Config, name: str) -> Iterator[tuple[str, str, Path]]:
    """(arm, variant, run folder) of every run. An arm is called after its variant; of several seeds, after its run."""
    study = config.study[name]
    for variant in study.variant:
        for seed in study.seeds:
            folder = _run_folder(config, name, variant, seed)
            yield variant if len(study.seeds) == 1 else folder.name, variant, folder


def _arms(
    config: Config, name: str, only: Sequence[str] | None = None, *, checkpoints: Literal["all"] | None = None
) -> dict[str, Arm]:
    """All arms, or those named; the base without a LoRA last. ``checkpoints``: others than are to be drawn."""
    how = config.study[name].sampling
    taken = checkpoints or how.checkpoints
    arms: dict[str, Arm] = {}
    for stem, variant, folder in _runs(config, name):
        if not (folder / LAST).is_file():
            raise StoreError(f"the run {folder.name} is not finished; go on with: vez train {name}")
        seed = int(folder.name.rpartition("-")[2])
        arms |= sweep.swept(stem, folder, variant=variant, seed=seed, checkpoints=taken, strengths=how.strengths)
    unknown = sorted(set(only or ()) - arms.keys() - {BASE})
    if unknown:
        raise ConfigError(f"there is no arm {unknown[0]!r}; known are {', '.join(arms)}")
    return {arm: of for arm, of in arms.items() if only is None or arm in only} | {BASE: Arm(None)}


def _datasets_of_arms(config: Config, name: str, loaded: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """What each arm that was drawn had learned from."""
    variants = config.study[name].variant
    drawn = sweep.arms_of(open_artifact(folder_of(config, name) / SAMPLES))
    known = {arm: variants[of.variant] for arm, of in drawn.items() if of and of.variant in variants}
    return {arm: loaded[variant.dataset] for arm, variant in known.items()}
