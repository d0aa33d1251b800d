"""What a study will do, said before it does it: steps, pictures seen, file sizes, passes, time. Loads no model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vez.config import Config, Study, Variant
from vez.errors import ConfigError
from vez.family import layout_of

# Sizes of Stable Diffusion 1.x, for a base whose own configuration is not on this machine yet.
_SD1_UNET: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
}
_SD1_TEXT: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
HALF = 2  # bytes of an fp16 number: what a LoRA is saved in


@dataclass(frozen=True)
class Cost:
    """LoRA parameters per unit of rank: what a base adds to a file for each rank."""

    unet: int
    text: int
    assumed: bool = False
    """The base is not on this machine; it is taken to be of the family SD 1.x."""

    def file_bytes(self, variant: Variant) -> int:
        """Bytes of the weights in a saved LoRA (fp16); names and metadata add some tens of kilobytes."""
        per_rank = (self.unet if variant.lr_unet > 0 else 0) + (self.text if variant.lr_text > 0 else 0)
        return per_rank * variant.rank * HALF


@dataclass(frozen=True)
class Pass:
    """Variants that share dataset and batch and so train side by side. ``seconds`` is per seed, None if not known."""

    dataset: str
    pictures: int
    batch: int
    """Pictures per step: batch × accumulate."""
    variants: tuple[str, ...]
    steps: int
    seconds: float | None

    @property
    def seen(self) -> int:
        """Pictures shown to each variant."""
        return self.steps * self.batch


@dataclass(frozen=True)
class Plan:
    """What a study comes to. ``images`` are the samples drawn."""

    study: str
    passes: tuple[Pass, ...]
    seeds: tuple[int, ...]
    file_bytes: dict[str, int]
    images: int
    assumed: bool
    length: str

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
        for i, one in enumerate(self.passes, start=1):
            time = "time unknown until the first steps" if one.seconds is None else f"about {span(one.seconds)}"
            side = f"{_count(len(one.variants), 'variant')} in one pass" if len(one.variants) > 1 else "1 variant"
            lines.append(
                f"  pass {i}: dataset {one.dataset}, at most {one.pictures} pictures, batch {one.batch} → "
                f"{one.steps} steps, {one.seen} pictures seen; {side}; {time}"
            )
            lines += [f"    {name:{width}}  {self.file_bytes[name] / 2**20:6.2f} MiB" for name in one.variants]
        lines.append(f"  then {self.images} images to compare them")
        if self.seconds is not None and len(self.passes) * len(self.seeds) > 1:
            lines.append(f"  training takes about {span(self.seconds)} in all")
        if self.assumed:
            lines.append("  (sizes: as for an SD 1.x base, since this one is not on the machine yet)")
        return "\n".join(lines)


def plan(
    config: Config, name: str, *, pictures: Mapping[str, int], cost: Cost, rates: Mapping[str, float], device: str
) -> Plan:
    """The plan of ``config.study[name]``.

    ``pictures``: training pictures per dataset. ``rates``: measured seconds per step by `rate_key`. Pure.
    """
    study = config.study[name]
    passes = []
    for (dataset, batch, accumulate), names in groups(study).items():
        steps = study.steps_of(study.variant[names[0]], pictures[dataset])
        rate = rates.get(rate_key(config, name, dataset, batch=batch * accumulate, variants=len(names), device=device))
        seconds = None if rate is None else rate * steps
        passes.append(Pass(dataset, pictures[dataset], batch * accumulate, names, steps, seconds))
    arms = 1 + len(study.variant) * len(study.seeds)
    lengths = (f"{study.steps} steps each", f"{study.images_seen} pictures seen each", f"{study.epochs} epochs each")
    given = (study.steps, study.images_seen, study.epochs)
    return Plan(
        study=name,
        passes=tuple(passes),
        seeds=study.seeds,
        file_bytes={variant: cost.file_bytes(setting) for variant, setting in study.variant.items()},
        images=arms * len(study.prompts) * study.sampling.seeds,
        assumed=cost.assumed,
        length=next(text for text, value in zip(lengths, given, strict=True) if value is not None),
    )


def groups(study: Study) -> dict[tuple[str, int, int], tuple[str, ...]]:
    """Variants by (dataset, batch, accumulate): what shares them shares the tape's steps, and trains in one pass."""
    found: dict[tuple[str, int, int], tuple[str, ...]] = {}
    for name, variant in study.variant.items():
        key = (variant.dataset, variant.batch, variant.accumulate)
        found[key] = (*found.get(key, ()), name)
    return found


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
    """What a rank costs on a base in diffusers' layout, from its two configurations; None: taken to be SD 1.x.

    A LoRA of rank r on a module in → out has r·(in + out) parameters. Per Transformer2DModel of width c, text width d:
    proj_in and proj_out 4c; and per block in it: self-attention 8c; cross-attention q and out 4c, k and v 2(d + c);
    feed-forward c + 8c (gated) and 4c + c. Per layer of the text encoder: q, k, v, out 8w; fc1 and fc2 2(w + f).
    Raises ConfigError where the folder cannot be read, BaseModelError where the U-Net is of an unknown build.
    """
    try:
        unet = _SD1_UNET if base is None else json.loads((base / "unet" / "config.json").read_bytes())
        text: dict[str, Any] = (
            _SD1_TEXT if base is None else json.loads((base / "text_encoder" / "config.json").read_bytes())
        )
        layout = layout_of(unet, [text])
        channels, d = list(unet["block_out_channels"]), int(unet["cross_attention_dim"])
        w, f = int(text["hidden_size"]), int(text["intermediate_size"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"the base {base} is not a Stable Diffusion folder that can be read ({error})") from error
    found = [(channels[level], depth) for *_, level, depth in layout.transformers()]
    per_rank = sum(4 * c + depth * (26 * c + 2 * (d + c)) for c, depth in found)
    return Cost(per_rank, sum(layout.text_layers) * (8 * w + 2 * (w + f)), assumed=base is None)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def span(seconds: float) -> str:
    """A length of time as a person says it: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
