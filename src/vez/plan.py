"""What a study will do, said before it does it: steps, time, memory, file sizes; and whether this machine has the room.

Loads no model. The memory is a prediction (`vez.room` has the formula); time is known from runs that were measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vez.config import Config, Study, Variant
from vez.errors import ConfigError, StoreError
from vez.family import Family, family_of
from vez.room import FACTOR, FULL, Sizes, lora_parameters, memory, sizes_of
from vez.suite import asked
from vez.sweep import counted

HALF = 2  # bytes of an fp16 number: what a LoRA is saved in
BUFFERS = 3  # a state to go on from holds weights and two moments, fp32
HEADER = 600_000  # bytes of names and metadata in a LoRA file, at most (SD 1.x: 0.12 million, SDXL: 0.46)
GB = 1e9
SURELY = 0.8  # a prediction is off by up to a fifth: refused is only what would not fit even then


@dataclass(frozen=True)
class Cost:
    """What a base costs: LoRA parameters per unit of rank, and by its sizes the memory of a step."""

    sizes: Sizes

    @property
    def unet(self) -> int:
        """LoRA parameters of the U-Net per unit of rank."""
        return lora_parameters(self.sizes)[0]

    @property
    def text(self) -> int:
        """LoRA parameters of the text encoders per unit of rank."""
        return lora_parameters(self.sizes)[1]

    @property
    def family(self) -> Family:
        """The base's family. Raises BaseModelError where its parts do not belong together."""
        return family_of(self.sizes.unet, self.sizes.texts, self.sizes.layout)

    @property
    def assumed(self) -> bool:
        """The base is not on this machine; it is taken to be of the family SD 1.x."""
        return self.sizes.assumed

    def parameters(self, variant: Variant) -> int:
        """Parameters of a variant's LoRA."""
        per_rank = (self.unet if variant.lr_unet > 0 else 0) + (self.text if variant.lr_text > 0 else 0)
        return per_rank * variant.rank

    def file_bytes(self, variant: Variant) -> int:
        """Bytes of the weights in a saved LoRA (fp16); names and metadata add some tens of kilobytes."""
        return self.parameters(variant) * HALF


@dataclass(frozen=True)
class Pass:
    """Variants that share dataset and batch and so train side by side. ``seconds`` is per seed, None if not known.

    ``peak_bytes`` is the predicted peak of memory.
    """

    dataset: str
    pictures: int
    batch: int
    """Pictures per step: batch × accumulate."""
    variants: tuple[str, ...]
    steps: int
    seconds: float | None
    peak_bytes: float

    @property
    def seen(self) -> int:
        """Pictures shown to each variant."""
        return self.steps * self.batch


@dataclass(frozen=True)
class Drawn:
    """The pictures that compare a study's arms: ``each`` for each of ``arms``, the base's among them.

    ``profile`` is "" for all of an own suite; ``seconds`` are those of one picture, None if not known.
    """

    arms: int
    each: int
    profile: str
    seconds: float | None

    @property
    def images(self) -> int:
        """Pictures in all."""
        return self.arms * self.each

    def text(self) -> str:
        """Its cost as a person reads it."""
        if not self.images:
            return "no pictures to compare them: the losses alone"
        how = f"profile {self.profile}, " if self.profile else ""
        time = "time unknown until the first are drawn"
        if self.seconds is not None:
            time = f"about {span(self.seconds * self.images)}"
        return f"{self.images} images to compare them ({how}{self.each} for each of {self.arms} arms), {time}"


@dataclass(frozen=True)
class Plan:
    """What a study comes to. ``drawn`` are the samples; ``disk_bytes`` is what is written, by what it is."""

    study: str
    passes: tuple[Pass, ...]
    seeds: tuple[int, ...]
    file_bytes: dict[str, int]
    drawn: Drawn
    assumed: bool
    base: str
    """The base and the family that its files were found to be of; only its name where it is not here yet."""
    length: str
    disk_bytes: dict[str, float]

    @property
    def images(self) -> int:
        """Samples in all."""
        return self.drawn.images

    @property
    def seconds(self) -> float | None:
        """Expected seconds of training, all passes and seeds."""
        times = [one.seconds for one in self.passes]
        return None if None in times else sum(t for t in times if t is not None) * len(self.seeds)

    def text(self) -> str:
        """The plan as a person reads it."""
        width = max(len(name) for name in self.file_bytes)
        lines = [
            f"Study {self.study}: {len(self.file_bytes)} variants × {_count(len(self.seeds), 'seed')}, {self.length}"
        ]
        lines.append(f"  base {self.base}")
        for i, one in enumerate(self.passes, start=1):
            time = "time unknown until the first steps" if one.seconds is None else f"about {span(one.seconds)}"
            side = f"{_count(len(one.variants), 'variant')} in one pass" if len(one.variants) > 1 else "1 variant"
            lines.append(
                f"  pass {i}: dataset {one.dataset}, at most {one.pictures} pictures, batch {one.batch} → "
                f"{one.steps} steps, {one.seen} pictures seen; {side}; {time}; "
                f"about {one.peak_bytes / GB:.1f} GB of memory"
            )
            lines += [f"    {name:{width}}  {self.file_bytes[name] / 2**20:6.2f} MiB" for name in one.variants]
        lines.append(f"  then {self.drawn.text()}")
        lines.append(f"  at most {sum(self.disk_bytes.values()) / GB:.2f} GB on the disk")
        if self.seconds is not None and len(self.passes) * len(self.seeds) > 1:
            lines.append(f"  training takes about {span(self.seconds)} in all")
        if self.assumed:
            lines.append("  (sizes: as for an SD 1.x base, since this one is not on the machine yet)")
        return "\n".join(lines)


def plan(
    config: Config, name: str, *, pictures: Mapping[str, int], cost: Cost, rates: Mapping[str, float], device: str
) -> Plan:
    """The plan of ``config.study[name]``.

    ``pictures``: training pictures per dataset. ``rates``: measured seconds per step by `rate_key`. ``device``: its
    kind; "", one not known, is taken to be a CPU. Pure.
    """
    study = config.study[name]
    passes = []
    for dataset, batch, names in groups(study):
        steps = study.steps_of(study.variant[names[0]], pictures[dataset])
        rate = rates.get(rate_key(config, name, dataset, batch=batch, variants=len(names), device=device))
        peak = peak_bytes(study, names, cost=cost, side=config.dataset[dataset].resolution, device=device)
        passes.append(
            Pass(dataset, pictures[dataset], batch, names, steps, None if rate is None else rate * steps, peak)
        )
    drawn = drawings(config, name, passes, rates=rates, device=device)
    lengths = (f"{study.steps} steps each", f"{study.images_seen} pictures seen each", f"{study.epochs} epochs each")
    given = (study.steps, study.images_seen, study.epochs)
    return Plan(
        study=name,
        passes=tuple(passes),
        seeds=study.seeds,
        file_bytes={variant: cost.file_bytes(setting) for variant, setting in study.variant.items()},
        drawn=drawn,
        assumed=cost.assumed,
        base=config.project.base if cost.assumed else f"{config.project.base}: {cost.family.title}",
        length=next(text for text, value in zip(lengths, given, strict=True) if value is not None),
        disk_bytes=_disk_bytes(config, study, passes, images=drawn.images, cost=cost),
    )


def drawings(
    config: Config, name: str, passes: Sequence[Pass], *, rates: Mapping[str, float], device: str
) -> Drawn:
    """What will be drawn of these passes' runs. Raises ConfigError for prompts that cannot be drawn together."""
    study, arms = config.study[name], 1
    how = study.sampling
    for one in passes:
        saved = counted(one.steps, save_every=study.save_every, keep=study.keep, checkpoints=how.checkpoints)
        arms += len(one.variants) * len(study.seeds) * saved * len(how.strengths)
    wanted = asked(study, config.project)
    rate = rates.get(image_rate_key(config, name, device=device))
    return Drawn(arms, wanted.images, wanted.about["profile"] or "", rate)


def image_rate_key(config: Config, study: str, *, device: str) -> str:
    """Under which name the seconds of one sample are kept."""
    one = config.study[study]
    how, size = one.sampling, one.sampling.size or "own"
    guided = "" if how.cfg == 1 else " cfg"
    return f"sample {config.project.base} {device} {one.precision} {size}px {how.steps} steps{guided} x {how.batch}"


def peak_bytes(study: Study, names: tuple[str, ...], *, cost: Cost, side: int, device: str) -> float:
    """The predicted peak of training these variants side by side, by `vez.room`'s formula."""
    variants = [study.variant[name] for name in names]
    return memory(
        cost.sizes,
        side=side,
        batch=variants[0].batch,
        ranks=[variant.rank for variant in variants],
        number_bytes=FULL if study.precision == "fp32" else HALF,
        on_cpu=device in ("", "cpu"),
        unet=any(variant.lr_unet > 0 for variant in variants),
        text=any(variant.lr_text > 0 for variant in variants),
    ).peak


def _disk_bytes(config: Config, study: Study, passes: list[Pass], *, images: int, cost: Cost) -> dict[str, float]:
    """What the study writes at most: pictures counted as if they could not be compressed."""
    loras = 0.0
    for one in passes:
        saved = 0 if study.save_every is None else (one.steps - 1) // study.save_every
        files = 1 + (saved if study.keep is None else min(saved, study.keep))
        for name in one.variants:
            loras += (cost.file_bytes(study.variant[name]) + HEADER) * files * len(study.seeds)
    # A state is written beside the one before it, which goes afterwards.
    states = [sum(cost.parameters(study.variant[name]) for name in one.variants) * FULL * BUFFERS for one in passes]
    side = study.sampling.size or int(cost.sizes.unet.get("sample_size") or 64) * FACTOR
    seen = {one.dataset: one.pictures for one in passes}
    latents = sum(n * 2 * 4 * FULL * (config.dataset[name].resolution // FACTOR) ** 2 for name, n in seen.items())
    return {"LoRAs": loras, "states": 2 * float(max(states)), "images": 3.0 * images * side**2, "latents": latents}


def check_memory(config: Config, made: Plan, *, cost: Cost, free: float, device: str) -> None:
    """Raise ConfigError, naming the next setting to try, where a pass would need more than the ``free`` bytes.

    A base whose sizes are only assumed refuses nothing.
    """
    study = config.study[made.study]
    for one in sorted(made.passes, key=lambda one: -one.peak_bytes):  # what helps the largest mostly helps all
        if SURELY * one.peak_bytes <= free or made.assumed:
            continue
        side = config.dataset[one.dataset].resolution
        raise ConfigError(
            f"training {', '.join(one.variants)} needs about {one.peak_bytes / GB:.1f} GB of memory, and "
            f"{free / GB:.1f} GB are free; {_way_out(study, one, cost=cost, side=side, free=free, device=device)}"
        )


def _way_out(study: Study, one: Pass, *, cost: Cost, side: int, free: float, device: str) -> str:
    """The settings to change, one after the other until it fits: first what leaves the results as they are."""
    tried: list[str] = []
    names, precision = one.variants, study.precision
    variants = dict(study.variant)

    def fits() -> bool:
        now = study.model_copy(update={"variant": variants, "precision": precision})
        return SURELY * peak_bytes(now, names, cost=cost, side=side, device=device) <= free

    if len(names) > 1:
        most = next((n for n in range(len(names) - 1, 0, -1) if _fits_in(study, one, n, cost, side, free, device)), 1)
        names = max((names[i : i + most] for i in range(0, len(names), most)), key=lambda n: _ranks(study, n))
        tried.append(f"side_by_side = {most}")
    if not fits() and precision == "fp32":
        precision = "bf16"
        tried.append('precision = "bf16"')
    batch = before = study.variant[names[0]].batch
    while not fits() and batch > 1:
        batch = max(1, batch // 2)
        variants = {name: variant.model_copy(update={"batch": batch}) for name, variant in study.variant.items()}
    if batch < before:
        accumulate = math.ceil(before * study.variant[names[0]].accumulate / batch)
        tried.append(f"batch = {batch} and accumulate = {accumulate}")
    if not fits():
        return "no setting makes it fit: take smaller pictures (resolution), or a machine with more memory"
    return f"set {' and '.join(tried)}"


def _ranks(study: Study, names: tuple[str, ...]) -> int:
    return len(names) * max(study.variant[name].rank for name in names)


def _fits_in(study: Study, one: Pass, most: int, cost: Cost, side: int, free: float, device: str) -> bool:
    chunks = [one.variants[i : i + most] for i in range(0, len(one.variants), most)]
    return all(SURELY * peak_bytes(study, names, cost=cost, side=side, device=device) <= free for names in chunks)


def check_disk(made: Plan, *, free: float, there: float, folder: Path) -> None:
    """Raise StoreError where the planned files do not fit; ``there``: bytes of them that lie in ``folder`` already."""
    needed = sum(made.disk_bytes.values())
    if needed - there <= free:
        return
    largest = max(made.disk_bytes, key=lambda name: made.disk_bytes[name])
    ways = {
        "LoRAs": "a larger save_every keeps fewer of them",
        "states": "a smaller rank makes them smaller",
        "images": "a smaller sampling.profile, fewer checkpoints or strengths draw fewer of them",
        "latents": "fewer pictures or a smaller resolution make fewer of them",
    }
    raise StoreError(
        f"the study writes up to {needed / GB:.2f} GB to {folder}, and {free / GB:.2f} GB are free there; free some "
        f"room. Most of it is for {largest} ({made.disk_bytes[largest] / GB:.2f} GB): {ways[largest]}"
    )


def groups(study: Study) -> list[tuple[str, int, tuple[str, ...]]]:
    """(dataset, pictures per step, variants) of each pass.

    Variants that share dataset, batch, accumulate and prior share every step of the tape, and train side by side, at
    most ``side_by_side`` of them.
    """
    found: dict[tuple[str, int, int, str | None], list[str]] = {}
    for name, variant in study.variant.items():
        found.setdefault((variant.dataset, variant.batch, variant.accumulate, variant.prior), []).append(name)
    return [
        (dataset, batch * accumulate, tuple(names[i : i + (study.side_by_side or len(names))]))
        for (dataset, batch, accumulate, _), names in found.items()
        for i in range(0, len(names), study.side_by_side or len(names))
    ]


def rate_key(config: Config, study: str, dataset: str, *, batch: int, variants: int, device: str) -> str:
    """Under which name a measured rate is kept: all that the time of a step mostly depends on."""
    how = f"{device} {config.study[study].precision}"
    return f"{config.project.base} {how} {config.dataset[dataset].resolution}px batch {batch} x {variants}"


def named(config: Config, name: str | None) -> str:
    """The study meant: the one of this name, or the only one. Raises ConfigError where that is not clear."""
    known = ", ".join(config.study) or "none"
    if name is None and len(config.study) == 1:
        return next(iter(config.study))
    if name is None:
        raise ConfigError(f"name the study: {known}" if config.study else "vez.toml has no [study.<name>]; add one")
    if name not in config.study:
        raise ConfigError(f"there is no [study.{name}] in vez.toml; known are: {known}")
    return name


def cost_of(base: Path | None) -> Cost:
    """What a base in diffusers' layout costs, from its configurations; None: taken to be SD 1.x.

    Raises ConfigError where the folder cannot be read, BaseModelError where the U-Net is of an unknown build.
    """
    cost = Cost(sizes_of(base))
    try:
        lora_parameters(cost.sizes)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"the base {base} is not a Stable Diffusion base that can be read ({error!r})") from error
    return cost


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time as a person says it: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
