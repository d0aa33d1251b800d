"""The stage of the trained controls: made after the variants, drawn with the same prompts and noises, scored apart."""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vez import suite
from vez.config import Config, Variant
from vez.controls.classes import class_pictures
from vez.controls.noise import random_lora
from vez.controls.shuffled import shuffled
from vez.dataset import Dataset
from vez.dataset import load as load_dataset
from vez.errors import StoreError
from vez.events import Event, Note, Stage
from vez.metrics.expected import FOLDER, PREFIX, read
from vez.sources import clip_source, load_base, others
from vez.sweep import BASE, LAST, Arm

if TYPE_CHECKING:
    from vez.base import Base

RANDOM_SEED: Final = 0


def make(
    config: Config,
    name: str,
    *,
    folder: Path,
    datasets: Mapping[str, Path],
    device: str = "auto",
    base: "Base | None" = None,
) -> Iterator[Event]:
    """Train, draw and score the controls that a study asks for; what exists is not made again, what was cut goes on.

    Args:
        folder: the study's; controls lie in `controls` inside it, and nothing else there is changed.
        datasets: the frozen datasets by name, that of the variant which the controls are made after among them.
        base: with its networks in fp32, or in the study's precision; None: loaded here.
    Raises:
        StoreError: the variant is not trained yet, or its pictures are not drawn.
        ConfigError: captions that cannot be shuffled.
    """
    study, seed = config.study[name], config.study[name].seeds[0]
    run = folder / "runs" / f"{study.controlled}-{seed}"
    if not (run / LAST).is_file():
        raise StoreError(f"the controls are made after {run.name}, which is not finished; go on with: vez train {name}")
    if not (folder / "samples" / "manifest.json").is_file():
        raise StoreError(f"the controls are drawn after the study's pictures; go on with: vez sample {name}")
    into, made = folder / FOLDER, dict[str, Path]()
    concept = load_dataset(datasets[study.variant[study.controlled].dataset])
    taught = {study.controlled: concept}
    drawer = base if base is not None and base.dtype.itemsize == 4 else load_base(config, device)
    if "shuffled" in study.controls:
        taught["shuffled"] = shuffled(concept, into / "data" / "shuffled")
    if "class" in study.controls:
        taught["class"] = yield from class_pictures(
            drawer, concept, into / "data" / "class", project=config.project, sampling=study.sampling,
            precision=study.precision,
        )  # fmt: skip
    own = study.precision == "fp32" and study.quantize == "none"
    teacher = drawer if base is not None and own else load_base(config, device, study=study)
    for kind in study.controls:
        file = into / "runs" / f"{PREFIX}{kind}-{seed}"
        if kind == "random":
            yield Stage("controls", 1, f"a random LoRA of {run.name}'s norms")
            made[kind] = random_lora(run, file, seed=RANDOM_SEED)
        else:
            made[kind] = yield from _trained(config, name, kind, taught[kind], concept, datasets, teacher, file)
    yield from _drawn_and_scored(config, name, folder, run, made, taught, drawer, device)
    found = read(folder)
    yield from (Note(f"a trained control warns: {warning}") for warning in (found.warnings if found else ()))


def _trained(
    config: Config,
    name: str,
    kind: str,
    dataset: Dataset,
    concept: Dataset,
    datasets: Mapping[str, Path],
    base: "Base",
    into: Path,
) -> Generator[Event, None, Path]:
    """One control with the variant's setting and as many steps; returns its LoRA.

    Class pictures have no masks: the control learns from them whole.
    """
    from vez.train import train

    study = config.study[name]
    variant: Variant = study.variant[study.controlled]
    setting = variant.model_copy(update={"masked": False}) if kind == "class" else variant
    how: dict[str, Any] = {key: getattr(study, key) for key in ("precision", "checkpointing", "compile")}
    yield from train(
        base,
        dataset,
        {PREFIX + kind: setting},
        seed=study.seeds[0],
        steps=study.steps_of(variant, len(concept.train)),
        into={PREFIX + kind: into},
        trigger=config.project.trigger,
        noun=config.project.noun,
        prior=None if variant.prior is None else load_dataset(datasets[variant.prior]),
        cache=config.root / ".vez" / "latents",
        **how,
    )
    return into / LAST


def _drawn_and_scored(
    config: Config,
    name: str,
    folder: Path,
    run: Path,
    made: Mapping[str, Path],
    taught: Mapping[str, Dataset],
    base: "Base",
    device: str,
) -> Iterator[Event]:
    """Draw the controls beside their variant and no LoRA, whose pictures are taken from the study, and score them."""
    from vez.device import choose
    from vez.metrics import embed
    from vez.metrics.scores import score
    from vez.sample import sample

    study, seed, into = config.study[name], config.study[name].seeds[0], folder / FOLDER
    asked = suite.asked(study, config.project)
    of = study.controlled if len(study.seeds) == 1 else run.name
    arms = {of: Arm(run / LAST, variant=study.controlled, run=run.name, seed=seed)}
    for kind, lora in made.items():
        arms[PREFIX + kind] = Arm(lora, variant=PREFIX + kind, run=lora.parent.name, seed=seed)
    yield from sample(
        base,
        arms | {BASE: Arm(None)},
        asked.prompts,
        sampling=asked.sampling,
        into=into / "samples",
        project=config.project,
        precision=study.precision,
        about=asked.about,
        cache=config.root / ".vez" / "images",
        known=(folder / "samples",),
    )
    dino, gallery = others(config, name, device=str(choose(device)))
    yield from score(
        into / "samples",
        {of: taught[study.controlled]} | ({PREFIX + "shuffled": taught["shuffled"]} if "shuffled" in taught else {}),
        project=config.project,
        clip=embed.load(clip_source(config, name), device=choose(device)),
        dino=dino,
        gallery=gallery,
        into=into / "scores",
        cache=config.root / ".vez" / "vectors",
    )
