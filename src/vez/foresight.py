"""What is seen before a study starts: its plan from what lies on this machine, and whether that fits onto it.

Loads no model. `vez.plan` has the arithmetic; here are the pictures, the base's configuration and the free room.
"""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

from vez import controls, demo, rates
from vez import plan as planning
from vez.config import Checkpointing, Config, Study
from vez.dataset import read_sources
from vez.errors import ConfigError, StoreError
from vez.plan import GB, Cost, Pass, Plan, peak_bytes
from vez.probing import planned
from vez.room import Sizes
from vez.suite import PROFILES, asked

PRIMARY = ("B", "trigger")  # the set and role whose prompts decide
SURELY = 0.8  # a prediction is off by up to a fifth: refused is only what would not fit even then


def plan(config: Config, name: str, *, device: str = "auto") -> Plan:
    """What the study will do, without doing it.

    Raises ConfigError where its pictures or its base cannot be found, and for an optimizer that cannot be made.
    """
    config = fitted(config, name, device=device)
    variants = config.study[name].variant
    datasets = {dataset for v in variants.values() for dataset in (v.dataset, v.prior) if dataset is not None}
    _check_optimizers(config.study[name])
    known = rates.read(config.root)
    where = _device_kind(device) if known or device != "auto" else ""
    made = planning.plan(
        config,
        name,
        pictures={dataset: _training_pictures(config, dataset) for dataset in sorted(datasets)},
        cost=planning.cost_of(_base_folder(config)),
        rates=known,
        device=where,
    )
    made = replace(made, probes=planned(config, name, made.passes, device=where), doubt=too_few(config, name))
    cost = planning.cost_of(_base_folder(config))
    more = {"controls": controls.added_bytes(config, made, cost)} if config.study[name].controls else {}
    return replace(made, controls=controls.planned(config, made), disk_bytes=made.disk_bytes | more)


def fitted(config: Config, name: str, *, device: str = "auto") -> Config:
    """The same with as much of a study's base computed again as its memory target asks; as it is where it has none.

    Blocks that are computed again change no number (`vez.base.checkpointing`), so the study is the same study.
    """
    study = config.study[name]
    if study.memory is None:
        return config
    target, cost, where = study.memory * GB, planning.cost_of(_base_folder(config)), _device_kind(device)
    passes = [names for _, _, names in planning.groups(study)]
    for again in get_args(Checkpointing)[get_args(Checkpointing).index(study.checkpointing) :]:
        study = study.model_copy(update={"checkpointing": again})
        if all(peak_bytes(config, study, n, cost=cost, device=where) <= target for n in passes):
            break
    return config.model_copy(update={"study": {**config.study, name: study}})


def too_few(config: Config, name: str) -> str:
    """Why no LoRA can be called better than none however good it is, as a sentence; "" where one can.

    The sign-flip test's smallest p over the prompts that decide, times the runs that Holm's adjustment counts, against
    what of the error the first look may spend.
    """
    from vez.metrics.looks import Look
    from vez.metrics.stats import smallest_p

    study = config.study[name]
    asking = [prompt for prompt in asked(study, config.project).prompts if prompt.role == "trigger"]
    prompts = len([prompt for prompt in asking if prompt.set == "B"] or asking)
    runs = len(study.variant) * len(study.seeds)
    alpha = Look(1, study.looks).alpha
    most = int(alpha / smallest_p(prompts)) if prompts else runs
    if runs <= most:
        return ""
    needed = next((n for n in range(prompts, 20) if smallest_p(n) * runs <= alpha), 0)
    larger = next((name for name in ("standard", "thorough") if 0 < needed <= PROFILES[name][PRIMARY][0]), "")
    ways = [f"{needed} could"] if needed else []
    ways += [f'profile = "{larger}" has {PROFILES[larger][PRIMARY][0]}'] if larger and study.suite != "own" else []
    told = f"tell {runs} LoRAs from none, {most} at most" if most else "tell a LoRA from none"
    first = f"at the first of {study.looks} looks " if study.looks > 1 else ""
    return (
        f"{first}{prompts} prompt{'s' if prompts > 1 else ''} with the trigger word cannot {told}, however large the "
        f"difference{': ' if ways else ''}{', and '.join(ways)}"
    )


def check_room(config: Config, name: str, *, device: str = "auto") -> None:
    """Raise ConfigError where the study cannot fit into the memory, StoreError where its files cannot onto the disk.

    ConfigError too where it is to be compiled and nothing here can. The sentence names what to set instead.
    """
    from vez.device import choose
    from vez.nets.kernels.regions import check as can_compile
    from vez.preflight import free_memory

    where = choose(device)
    if config.study[name].compile:
        can_compile(where.type)
    made, cost = plan(config, name, device=device), planning.cost_of(_base_folder(config))
    check_memory(fitted(config, name, device=device), made, cost=cost, free=free_memory(where), device=where.type)
    folders = (config.root / "studies" / name, *(config.root / ".vez" / part for part in ("latents", "datasets")))
    there = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    check_disk(made, free=shutil.disk_usage(config.root).free, there=there, folder=config.root)


def check_memory(config: Config, made: Plan, *, cost: Cost, free: float, device: str) -> None:
    """Raise ConfigError, naming the next setting to try, where a pass would need more than the ``free`` bytes.

    A base whose sizes are only assumed refuses nothing.
    """
    study = config.study[made.study]
    said = f"{free / GB:.1f} GB are free"
    if study.memory is not None and study.memory * GB < free:
        free, said = SURELY * study.memory * GB, f"memory = {study.memory:g} allows no more"
    for one in sorted(made.passes, key=lambda one: -one.peak_bytes):  # what helps the largest mostly helps all
        if SURELY * one.peak_bytes <= free or made.assumed:
            continue
        raise ConfigError(
            f"training {', '.join(one.variants)} needs about {one.peak_bytes / GB:.1f} GB of memory, and {said}; "
            f"{_way_out(config, study, one, cost=cost, free=free, device=device)}"
        )


def _way_out(config: Config, study: Study, one: Pass, *, cost: Cost, free: float, device: str) -> str:
    """The settings to change, one after the other until it fits: first what leaves the results as they are."""
    tried: list[str] = []
    before = study.checkpointing

    def fits(now: Study) -> bool:
        return all(SURELY * peak_bytes(config, now, names, cost=cost, device=device) <= free for names in chunks)

    chunks: list[tuple[str, ...]] = [one.variants]
    if len(one.variants) > 1:
        for most in range(len(one.variants) - 1, 0, -1):
            chunks = [one.variants[i : i + most] for i in range(0, len(one.variants), most)]
            if fits(study):
                break
        tried.append(f"side_by_side = {most}")
    if not fits(study) and study.precision == "fp32":
        study = study.model_copy(update={"precision": "bf16"})
        tried.append('precision = "bf16"')
    for again in get_args(Checkpointing)[get_args(Checkpointing).index(study.checkpointing) + 1 :]:
        if fits(study):
            break
        study = study.model_copy(update={"checkpointing": again})
    if study.checkpointing != before:
        tried.append(f'checkpointing = "{study.checkpointing}"')
    first = study.variant[one.variants[0]]
    batch = first.batch
    while not fits(study) and batch > 1:
        batch = max(1, batch // 2)
        variants = {name: variant.model_copy(update={"batch": batch}) for name, variant in study.variant.items()}
        study = study.model_copy(update={"variant": variants})
    if batch < first.batch:
        tried.append(f"batch = {batch} and accumulate = {math.ceil(first.batch * first.accumulate / batch)}")
    lighter = study if fits(study) else study.model_copy(update={"quantize": "int8"})
    tried += ['quantize = "int8"'] * (lighter is not study)
    if not fits(lighter):
        return "no setting makes it fit: take smaller pictures (resolution), or a machine with more memory"
    return f"set {' and '.join(tried)}"


def check_disk(made: Plan, *, free: float, there: float, folder: Path) -> None:
    """Raise StoreError where the planned files do not fit; ``there``: bytes of them that lie in ``folder`` already."""
    needed = sum(made.disk_bytes.values())
    if needed - there <= free:
        return
    largest = max(made.disk_bytes, key=lambda name: made.disk_bytes[name])
    ways = {
        "LoRAs": "a larger save_every keeps fewer of them",
        "controls": "fewer of them, or a smaller sampling.profile, need less",
        "states": "a smaller rank makes them smaller",
        "images": "a smaller sampling.profile, fewer checkpoints or strengths draw fewer of them",
        "latents": "fewer pictures or a smaller resolution make fewer of them",
        "datasets": "fewer pictures or a smaller resolution make them smaller",
    }
    raise StoreError(
        f"the study writes up to {needed / GB:.2f} GB to {folder}, and {free / GB:.2f} GB are free there; free some "
        f"room. Most of it is for {largest} ({made.disk_bytes[largest] / GB:.2f} GB): {ways[largest]}"
    )


def sizes(config: Config) -> Sizes:
    """The sizes of the project's base, as far as they are known without asking the network."""
    return planning.cost_of(_base_folder(config)).sizes


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


def _check_optimizers(study: Study) -> None:
    """Make each optimizer once, over a single number: what is wrong with its name or arguments is said at once."""
    for variant in study.variant.values():
        if variant.optimizer != "adamw":
            from vez.foreign import check

            check(variant.optimizer, variant.optimizer_args, weight_decay=variant.weight_decay)
