"""The shape of a LoRA: which modules of a base it adapts, at which rank and alpha, and at which share of the rates.

Pure: `spec_of` turns a variant of vez.toml into a `LoraSpec`, and everything that needs the shape asks that one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from vez.config import Block, Variant
from vez.errors import ConfigError
from vez.family import Layout, Network, Target, kohya_keys

_T = TypeVar("_T")


@dataclass(frozen=True)
class Part:
    """One module's LoRA: rank, alpha (its scale is alpha/rank), and what its network's learning rate is times."""

    rank: int
    alpha: float
    lr: float = 1.0

    @property
    def scale(self) -> float:
        """What up·down is multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class LoraSpec:
    """One variant's LoRA: its rank and alpha (scale = alpha/rank), and which networks it adapts.

    ``text2``: the second text encoder, None as the first. ``conv`` is what 3×3 convolutions get, None nothing;
    ``resnets``: the U-Net's ResNets and samplers are adapted too. ``blocks`` has what parts of the U-Net have
    otherwise, alphas filled in. ``root``: alphas are rsLoRA's.
    """

    rank: int
    alpha: float
    unet: bool = True
    text: bool = True
    text2: bool | None = None
    conv: Part | None = None
    resnets: bool = False
    blocks: Mapping[str, Block] = field(default_factory=dict)
    root: bool = False

    def trains(self, network: Network, encoder: int = 0) -> bool:
        """Whether it adapts a network."""
        if network == "unet":
            return self.unet
        return self.text if encoder == 0 or self.text2 is None else self.text2

    def lr_of(self, block: str) -> float:
        """What the U-Net's learning rate is times in a block."""
        return _first([self.blocks[name].lr for name in _around(block) if name in self.blocks], 1.0)

    def of(self, target: Target) -> Part | None:
        """What a module gets; None: it is not adapted."""
        if not self.trains(target.network, target.encoder) or (target.resnet and not self.resnets):
            return None
        spatial = target.kernel > 1
        own = self.conv if spatial else Part(self.rank, self.alpha)
        given = [self.blocks[name] for name in _around(target.block) if name in self.blocks]
        lr = self.lr_of(target.block)
        rank = _first([block.conv_rank if spatial else block.rank for block in given], own.rank if own else 0)
        if rank == 0 or lr == 0:
            return None
        alpha = _first([block.conv_alpha if spatial else block.alpha for block in given], None)
        if alpha is not None:
            return Part(rank, _rooted(alpha, rank) if self.root else alpha, lr)
        like = own or Part(self.rank, self.alpha)
        return Part(rank, like.alpha if rank == like.rank else self._as_much(like, rank), lr)

    def _as_much(self, like: Part, rank: int) -> float:
        """The alpha of another rank that is as much of it as ``like``'s is of its."""
        nominal = like.alpha / (math.sqrt(like.rank) if self.root else 1.0) / like.rank * rank
        if self.root:
            return _rooted(nominal, rank)
        return nominal if like.alpha == like.rank else short(nominal)


def spec_of(variant: Variant) -> LoraSpec:
    """The shape that a variant's settings ask for."""
    linear = Part(variant.rank, variant.scale_alpha)
    made = LoraSpec(linear.rank, linear.alpha, root=variant.rslora)
    conv = None
    if variant.conv_rank:
        given = variant.conv_alpha
        if given is None:
            alpha = made._as_much(linear, variant.conv_rank) if variant.conv_rank != linear.rank else linear.alpha
        else:
            alpha = _rooted(given, variant.conv_rank) if variant.rslora else given
        conv = Part(variant.conv_rank, alpha)
    return LoraSpec(
        linear.rank,
        linear.alpha,
        unet=variant.lr_unet > 0,
        text=variant.lr_text > 0,
        text2=None if variant.lr_text2 is None else variant.lr_text2 > 0,
        conv=conv,
        resnets=variant.adapts_resnets,
        blocks=variant.blocks,
        root=variant.rslora,
    )


def modules_of(layout: Layout, spec: LoraSpec) -> dict[str, tuple[Target, Part]]:
    """Every module that a LoRA of this shape adapts in a base, by kohya's name.

    Raises ConfigError where it names a block, or a text encoder, that the base lacks, or adapts nothing.
    """
    known = layout.block_names()
    if odd := next((name for name in spec.blocks if name not in known), None):
        levels = [name for name in known if name.count(".") == 1]
        raise ConfigError(
            f"this base's U-Net has no block {odd!r}; it has down, mid, up, {', '.join(levels)}, and down.0.0 to "
            f"{known[-1]}"
        )
    if spec.text2 is not None and len(layout.text_layers) == 1:
        raise ConfigError("lr_text2 is for SDXL's second text encoder, and this base has one; leave it out")
    parts = {key: (target, spec.of(target)) for key, target in kohya_keys(layout, resnets=spec.resnets).items()}
    found = {key: (target, part) for key, (target, part) in parts.items() if part is not None}
    if not found:
        raise ConfigError("with these blocks no module would be adapted; give one of them a rank")
    return found


def short(alpha: float) -> float:
    """Rounded to 8 significant bits, which bf16, fp16 and fp32 all hold: every reader of a file gets the same."""
    mantissa, exponent = math.frexp(alpha)
    return math.ldexp(round(mantissa * 256), exponent - 8)


def _rooted(alpha: float, rank: int) -> float:
    return short(alpha * math.sqrt(rank))


def _around(block: str) -> list[str]:
    """down.1.0 → down.1.0, down.1, down: the narrower first."""
    parts = block.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _first(values: list[_T | None], otherwise: _T) -> _T:
    return next((value for value in values if value is not None), otherwise)
