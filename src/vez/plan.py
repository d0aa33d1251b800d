"""What a study will do, said before it does it: steps, time, memory, file sizes; and whether this machine has the room.

Loads no model. The memory is a prediction (`vez.room` has the formula); time is known from runs that were measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vez.config import Config, Study, Variant
from vez.errors import ConfigError
from vez.family import Family, family_of
from vez.room import FACTOR, FULL, KEPT_TEXT, SPREAD, TOKENS, Sizes, lora_numbers, lora_parameters, memory, sizes_of
from vez.shape import spec_of
from vez.suite import asked
from vez.sweep import counted

LONG = 3600  # seconds of drawing after which a smaller profile is named
QUICK = 16  # pictures of the profile quick for each arm
SHOWN = 3  # pictures drawn of each variant at a time while it trains, where the study names none
HALF = 2  # bytes of an fp16 number: what a LoRA is saved in
_MOMENTS = {"adamw8bit": 0.5, "prodigy": 4.0}  # of which prodigy's also holds the first weights and a sum
HEADER = 600_000  # bytes of names and metadata in a LoRA file, at most (SD 1.x: 0.12 million, SDXL: 0.46)
GB = 1e9


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
        """Parameters of a variant's LoRA. Raises ConfigError where it names a block that the base lacks."""
        return lora_numbers(self.sizes, spec_of(variant))

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
    prior: str | None = None
    """The class pictures that every step sees as many of besides."""
    preserves: bool = False
    """Every step is also held to what the base says without the trigger."""

    @property
    def seen(self) -> int:
        """Pictures of the concept shown to each variant."""
        return self.steps * self.batch

    @property
    def besides(self) -> str:
        """What a step does besides learning the concept, for a person; "" where that is all."""
        class_pictures = f", and as many of {self.prior}" if self.prior else ""
        return class_pictures + (", held to the base without the trigger" if self.preserves else "")


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
            if self.seconds * self.images > LONG and self.profile in ("standard", "thorough"):
                time += f'; profile = "quick" takes about {span(self.seconds * self.arms * QUICK)}'
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
    probes: str = ""
    """What asking the LoRAs without drawing costs (`vez.probing`); "" where that is not done."""
    controls: str = ""
    """What the trained controls cost (`vez.controls`); "" where none is asked for."""
    compiles: bool = False
    doubt: str = ""
    """Why so few prompts could not tell so many LoRAs from none; "" where they can (`vez.foresight`)."""

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
                f"{one.steps} steps, {one.seen} pictures seen{one.besides}; {side}; {time}; "
                f"about {one.peak_bytes / GB:.1f} GB of memory"
            )
            lines += [f"    {name:{width}}  {self.file_bytes[name] / 2**20:6.2f} MiB" for name in one.variants]
        lines += ["  compiled before the first step: minutes the first time, seconds later"] if self.compiles else []
        lines += [f"  then {said}" for said in (self.probes, self.drawn.text(), self.controls) if said]
        lines += [f"  but {self.doubt}"] if self.doubt else []
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

    ``pictures``: training pictures per dataset, class pictures included. ``rates``: measured seconds per step by
    `rate_key`. ``device``: its kind; "", one not known, is taken to be a CPU. Pure.
    """
    study = config.study[name]
    passes = []
    for dataset, batch, names in groups(study):
        first = study.variant[names[0]]
        steps = study.steps_of(first, pictures[dataset])
        rate = rates.get(rate_key(config, name, names, device=device))
        peak = peak_bytes(config, study, names, cost=cost, device=device)
        time = None if rate is None else rate * steps
        kept = bool(first.preserve)
        passes.append(Pass(dataset, pictures[dataset], batch, names, steps, time, peak, first.prior, kept))
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
        disk_bytes=_disk_bytes(config, study, passes, pictures=pictures, images=drawn.images, cost=cost),
        compiles=study.compile,
    )


def drawings(config: Config, name: str, passes: Sequence[Pass], *, rates: Mapping[str, float], device: str) -> Drawn:
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


def peak_bytes(config: Config, study: Study, names: Sequence[str], *, cost: Cost, device: str) -> float:
    """The predicted peak of training these variants side by side, by `vez.room`'s formula; and what they keep besides.

    Class pictures and what is preserved are computed after the concept's part of a step and need no more than it, but
    class pictures may be larger.
    """
    variants = [study.variant[name] for name in names]
    recipes = {variants[0].dataset, variants[0].prior or variants[0].dataset}
    plain = memory(
        cost.sizes,
        side=max(config.dataset[name].resolution for name in recipes),
        batch=variants[0].batch,
        ranks=[variant.rank for variant in variants],
        number_bytes=FULL if study.precision == "fp32" else HALF,
        on_cpu=device in ("", "cpu"),
        unet=any(variant.lr_unet > 0 for variant in variants),
        text=any(variant.trains_text for variant in variants),
        specs=[spec_of(variant) for variant in variants],
        checkpointing=study.checkpointing,
        quantize=study.quantize,
    )
    return plain.peak + _kept_besides(variants, cost) + _long_captions(config, study, variants, cost)


def _kept_besides(variants: Sequence[Variant], cost: Cost) -> float:
    """Bytes of averages and of other optimizers' states; AdamW's moments are there whatever the optimizer.

    A row of the flat buffers is as wide as the largest variant; another optimizer works on copies where it is not.
    """
    widest = max(cost.parameters(variant) for variant in variants)
    numbers = float(widest * len(variants)) if any(variant.ema for variant in variants) else 0.0
    for variant in variants:
        if variant.optimizer != "adamw":
            own = cost.parameters(variant)
            numbers += own * (moments(variant) + (2 if own < widest else 0))
    return FULL * numbers


def _long_captions(config: Config, study: Study, variants: Sequence[Variant], cost: Cost) -> float:
    """Bytes that text encoders in training keep of the second and third pieces of long captions."""
    pieces = config.project.tokens // (TOKENS - 2)
    if not any(variant.trains_text for variant in variants):
        return 0.0
    kept = sum(int(t["num_hidden_layers"]) * TOKENS * KEPT_TEXT * int(t["hidden_size"]) for t in cost.sizes.texts)
    number = FULL if study.precision == "fp32" else HALF
    return SPREAD * number * variants[0].batch * len(variants) * (pieces - 1) * kept


def moments(variant: Variant) -> float:
    """fp32 numbers that a variant's optimizer remembers for each parameter; of an unknown one, as many as Adam."""
    return _MOMENTS.get(variant.optimizer, 2.0)


def _disk_bytes(
    config: Config, study: Study, passes: list[Pass], *, pictures: Mapping[str, int], images: int, cost: Cost
) -> dict[str, float]:
    """What the study writes at most: pictures counted as if they could not be compressed."""
    loras = 0.0
    for one in passes:
        if study.sample_every is not None:  # before the first step, on the way, and after the last
            looks = 2 + (one.steps - 1) // study.sample_every
            images += looks * (len(study.sample_prompts) or SHOWN) * len(one.variants) * len(study.seeds)
        saved = 0 if study.save_every is None else (one.steps - 1) // study.save_every
        files = 1 + (saved if study.keep is None else min(saved, study.keep))
        for name in one.variants:
            loras += (cost.file_bytes(study.variant[name]) + HEADER) * files * len(study.seeds)
    # A state is written beside the one before it, which goes afterwards.
    states = [sum(_state_bytes(study.variant[name], cost) for name in one.variants) for one in passes]
    side = study.sampling.size or int(cost.sizes.unet.get("sample_size") or 64) * FACTOR
    latents = datasets = 0.0
    for name, count in pictures.items():
        area = config.dataset[name].resolution ** 2
        turned = 2 if any(v.flip for v in study.variant.values() if name in (v.dataset, v.prior)) else 1
        count *= config.dataset[name].random_crops
        latents += count * turned * 2 * 4 * FULL * area / FACTOR**2
        datasets += (count + config.dataset[name].held_out * len(config.dataset[name].crops)) * 3 * area
    return {
        "LoRAs": loras,
        "states": 2 * float(max(states)),
        "images": 3.0 * images * side**2,
        "latents": latents,
        "datasets": datasets,
    }


def _state_bytes(variant: Variant, cost: Cost) -> float:
    """What a run goes on from: its weights, what its optimizer remembers, their average; fp32."""
    return cost.parameters(variant) * FULL * (1 + moments(variant) + (1 if variant.ema else 0))


def groups(study: Study) -> list[tuple[str, int, tuple[str, ...]]]:
    """(dataset, pictures per step, variants) of each pass.

    Variants that share dataset, batch, accumulate and prior share every step of the tape, and train side by side, at
    most ``side_by_side`` of them. Those that preserve nothing are apart: a step of the others takes twice their time.
    """
    found: dict[tuple[str, int, int, str | None, bool], list[str]] = {}
    for name, v in study.variant.items():
        found.setdefault((v.dataset, v.batch, v.accumulate, v.prior, v.preserve > 0), []).append(name)
    return [
        (dataset, batch * accumulate, tuple(names[i : i + (study.side_by_side or len(names))]))
        for (dataset, batch, accumulate, *_), names in found.items()
        for i in range(0, len(names), study.side_by_side or len(names))
    ]


def rate_key(config: Config, study: str, variants: Sequence[str], *, device: str) -> str:
    """Under which name a measured rate is kept: all that the time of a step of these variants mostly depends on."""
    one = config.study[study]
    several = [one.variant[name] for name in variants]
    first, tokens = several[0], config.project.tokens
    batch = f"{first.batch}" if first.accumulate == 1 else f"{first.batch}*{first.accumulate}"
    besides = [
        *(["text"] if any(variant.trains_text for variant in several) else []),
        *(["convolutions"] if any(variant.adapts_resnets for variant in several) else []),
        *([f"{tokens} tokens"] if tokens > 75 else []),
        *([f"prior {config.dataset[first.prior].resolution}px"] if first.prior else []),
        *([f"checkpointing {one.checkpointing}"] if one.checkpointing != "none" else []),
        *(["compiled"] if one.compile else []),
        *([one.quantize] if one.quantize != "none" else []),
        *(["preserve"] if any(variant.preserve for variant in several) else []),
    ]
    how = f"{device} {one.precision} {config.dataset[first.dataset].resolution}px batch {batch} x {len(several)}"
    return " + ".join([f"{config.project.base} {how}", *besides])


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
