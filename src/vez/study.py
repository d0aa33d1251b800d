"""A study from its file to its report: build → train → sample → score → report.

Each stage is a function of (config, name) that makes artifacts and yields events; `run` is all of them in order. What
exists is not made again, what was cut goes on: every stage asks the store by id, so a change in vez.toml remakes
what depends on it and nothing else.
"""

import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from vez import curate, demo, rates, suite, sweep
from vez import plan as planning
from vez.config import Config
from vez.dataset import Dataset, build, read_sources
from vez.dataset import load as load_dataset
from vez.errors import ConfigError, RunStopped, StoreError
from vez.events import Done, Event, Note, Sampled, Step
from vez.images.wording import visible
from vez.plan import Plan, named
from vez.report.arms import BASE
from vez.report.build import headline
from vez.report.build import report as write_page
from vez.report.evidence import LORA_FILE, gather
from vez.room import Sizes
from vez.store import open_artifact
from vez.sweep import Arm

# What brings torch is imported by the stage that needs it: planning, building and reporting answer at once.
if TYPE_CHECKING:
    from vez.base import Base

__all__ = [
    "build_datasets",
    "check_room",
    "draw_samples",
    "folder_of",
    "lint_datasets",
    "named",
    "plan",
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


def plan(config: Config, name: str, *, device: str = "auto") -> Plan:
    """What the study will do, without doing it. Raises ConfigError where its pictures or its base cannot be found."""
    datasets = {variant.dataset for variant in config.study[name].variant.values()}
    known = rates.read(config.root)
    return planning.plan(
        config,
        name,
        pictures={dataset: _training_pictures(config, dataset) for dataset in sorted(datasets)},
        cost=planning.cost_of(_base_folder(config)),
        rates=known,
        device=_device_kind(device) if known or device != "auto" else "",
    )


def run(config: Config, name: str, *, device: str = "auto") -> Iterator[Event]:
    """The whole study; the last event is Done with its report. Raises what its stages raise."""
    check_room(config, name, device=device)
    base: Base | None = _load_base(config, device, precision=config.study[name].precision)
    datasets = yield from build_datasets(config, _datasets_of(config, name))
    yield from lint_datasets(config, name, datasets)
    yield from train_runs(config, name, base=base, datasets=datasets)
    if config.study[name].precision != "fp32":
        base = None  # what is drawn is drawn with the base's own numbers: LoRAs are merged into them in fp32
    yield from draw_samples(config, name, device=device, base=base)
    if suite.asked(config.study[name], config.project).prompts:
        yield from score_samples(config, name, device=device, datasets=datasets)
    yield write_report(config, name)


def check_room(config: Config, name: str, *, device: str = "auto") -> None:
    """Raise ConfigError where the study cannot fit into the memory, StoreError where its files cannot onto the disk.

    The sentence names what to set instead. A study whose runs are all finished is not asked.
    """
    from vez.device import choose
    from vez.preflight import free_memory

    if all((folder / LORA_FILE).is_file() for *_, folder in _runs(config, name)):
        return
    where = choose(device)
    made, cost = plan(config, name, device=device), planning.cost_of(_base_folder(config))
    planning.check_memory(config, made, cost=cost, free=free_memory(where), device=where.type)
    folders = (folder_of(config, name), config.root / ".vez" / "latents")
    there = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    planning.check_disk(made, free=shutil.disk_usage(config.root).free, there=there, folder=config.root)


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
    """Lint a study's datasets, and write what changed from one to the next, for the report. Stops at no finding."""
    for dataset, folder in datasets.items():
        found = yield from curate.lint(config, dataset, load_dataset(folder))
        for finding in found.findings:
            if finding.level == "error" and finding.is_open:
                yield Note(f"{dataset}: {visible(finding.file)}: {finding.check}: {visible(finding.why)}")
    yield from curate.compare(config, datasets, folder_of(config, name) / "changes")
    yield from shared_pictures({dataset: load_dataset(folder) for dataset, folder in datasets.items()})


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
    from vez.train import train

    study = config.study[name]
    if datasets is None:
        check_room(config, name, device=device)
        datasets = yield from build_datasets(config, _datasets_of(config, name))
    priors = [variant.prior for variant in study.variant.values() if variant.prior is not None]
    beside = yield from build_datasets(config, list(dict.fromkeys(priors)))
    base = base or _load_base(config, device, precision=study.precision)
    yield Note(base.described)
    stopped: list[str] = []
    for dataset, batch, variants in planning.groups(study):
        frozen = load_dataset(datasets[dataset])
        todo = {v: study.variant[v] for v in variants if _to_train(config, name, v)}
        if todo:
            yield from preflight(base, frozen, todo, precision=study.precision, sampling=study.sampling)
        prior = study.variant[variants[0]].prior
        for seed in study.seeds:
            steps: list[Step] = []
            events = train(
                base,
                frozen,
                {variant: study.variant[variant] for variant in variants},
                seed=seed,
                steps=study.steps_of(study.variant[variants[0]], len(frozen.train)),
                into={variant: _run_folder(config, name, variant, seed) for variant in variants},
                save_every=study.save_every,
                keep=study.keep,
                validate_every=study.validate_every,
                precision=study.precision,
                prior=None if prior is None else load_dataset(beside[prior]),
                trigger=config.project.trigger,
                noun=config.project.noun,
                cache=config.root / ".vez" / "latents",
            )
            try:
                for event in events:
                    if isinstance(event, Step):
                        steps.append(event)
                    yield event
            except RunStopped as error:
                stopped.append(str(error))
            side = len({step.run for step in steps})  # fewer than the group where some were finished before
            key = planning.rate_key(config, name, dataset, batch=batch, variants=side, device=base.device.type)
            rates.record(config.root, key, [step.seconds for step in steps if step.run == steps[0].run])
    if stopped:
        raise RunStopped("; ".join(stopped))


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
    base = base or _load_base(config, device)
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
        bf16=study.precision == "bf16",
        about=asked.about,
        cache=config.root / ".vez" / "images",
    )
    for event in events:
        if isinstance(event, Sampled) and event.seconds:
            took.append(event.seconds)
        yield event
    rates.record(config.root, key, took)


def score_samples(
    config: Config, name: str, *, device: str = "auto", datasets: Mapping[str, Path] | None = None
) -> Iterator[Event]:
    """Measure the samples and compare the arms."""
    from vez.device import choose
    from vez.metrics import embed
    from vez.metrics.scores import score

    if datasets is None:
        datasets = yield from build_datasets(config, _datasets_of(config, name))
    loaded = {dataset: load_dataset(path) for dataset, path in datasets.items()}
    yield from score(
        folder_of(config, name) / "samples",
        _datasets_of_arms(config, name, loaded),
        project=config.project,
        clip=embed.load(_clip_source(config, name), device=choose(device)),
        into=folder_of(config, name) / "scores",
        cache=config.root / ".vez" / "vectors",
    )


def write_report(config: Config, name: str) -> Done:
    """Write studies/<name>/report.html from what lies on disk; Done names the page and the id of what it is about."""
    folder = folder_of(config, name)
    page = write_page(folder, folder / "report.html")
    evidence = gather(folder)
    newest = evidence.scores.artifact if evidence.scores else evidence.samples
    return Done(page, newest.id if newest else "")


def verdict(config: Config, name: str) -> str:
    """The report's one sentence: which LoRA to use, or why none can be named."""
    return headline(folder_of(config, name))


def _datasets_of(config: Config, name: str) -> list[str]:
    return list(dict.fromkeys(variant.dataset for variant in config.study[name].variant.values()))


def _run_folder(config: Config, name: str, variant: str, seed: int) -> Path:
    return folder_of(config, name) / "runs" / f"{variant}-{seed}"


def _to_train(config: Config, name: str, variant: str) -> bool:
    folders = [_run_folder(config, name, variant, seed) for seed in config.study[name].seeds]
    return not all((folder / LORA_FILE).is_file() for folder in folders)


def _runs(config: Config, name: str) -> Iterator[tuple[str, str, Path]]:
    """(arm, variant, run folder) of every run. An arm is called after its variant; of several seeds, after its run."""
    study = config.study[name]
    for variant in study.variant:
        for seed in study.seeds:
            folder = _run_folder(config, name, variant, seed)
            yield variant if len(study.seeds) == 1 else folder.name, variant, folder


def _arms(config: Config, name: str, only: Sequence[str] | None = None) -> dict[str, Arm]:
    """All arms, or those named; the base without a LoRA last."""
    how = config.study[name].sampling
    arms: dict[str, Arm] = {}
    for stem, variant, folder in _runs(config, name):
        if not (folder / LORA_FILE).is_file():
            raise StoreError(f"the run {folder.name} is not finished; go on with: vez train {name}")
        seed = int(folder.name.rpartition("-")[2])
        arms |= sweep.swept(
            stem, folder, variant=variant, seed=seed, checkpoints=how.checkpoints, strengths=how.strengths
        )
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


def _training_pictures(config: Config, dataset: str) -> int:
    """Pictures to train on at most: what lies in the folder, less the held-out ones, before anything is checked."""
    recipe = config.dataset[dataset]
    found = len(read_sources(config.root / recipe.images).keys() - {one.file for one in recipe.exclude})
    if found <= recipe.held_out:
        raise ConfigError(
            f"{recipe.images} holds {found} pictures, and [dataset.{dataset}] keeps held_out = {recipe.held_out} of "
            "them from training; add pictures, or lower held_out"
        )
    return (found - recipe.held_out) * len(recipe.crops)


def _load_base(config: Config, device: str, *, precision: str = "fp32") -> "Base":
    """The project's base; its networks in the precision that it is trained in, so that no second copy is kept."""
    from vez.base import load
    from vez.device import choose
    from vez.preflight import DTYPES

    project = config.project
    return load(
        config.source(project.base),
        device=choose(device),
        dtype=DTYPES[precision],
        vae=project.vae and config.source(project.vae),
        tokenizer=project.tokenizer and config.source(project.tokenizer),
        prediction="v_prediction" if project.prediction == "v" else project.prediction,
        clip_skip=project.clip_skip,
        tokens=project.tokens,
    )


def _clip_source(config: Config, name: str) -> str:
    """The CLIP that the study names, a folder relative to vez.toml; else the base's own."""
    from vez.metrics.embed import clip_for

    clip = config.study[name].clip
    if clip is None:
        return clip_for(config.project.base)
    return str(config.root / clip) if (config.root / clip).is_dir() else clip


def _device_kind(device: str) -> str:
    from vez.device import choose

    return choose(device).type


def _base_folder(config: Config) -> Path | None:
    """Where the base's configuration lies, if it is on this machine without asking the network."""
    if config.project.base == "tiny":
        return Path(demo.__file__).parent / "base"
    source = config.root / config.project.base
    if source.exists() or config.project.base.count("/") != 1:
        return source if source.exists() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:  # a hub id that was fetched before
        found = try_to_load_from_cache(config.project.base, "unet/config.json")
    except HFValidationError:
        return None
    return Path(found).parents[1] if isinstance(found, str) else None


def sizes(config: Config) -> Sizes:
    """The sizes of the project's base, as far as they are known without asking the network."""
    return planning.cost_of(_base_folder(config)).sizes
