"""A loaded base: its frozen modules and what is known of it; and the types and attention it computes with."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from vez.base.attention import plain
from vez.config import Quantize
from vez.family import Family, Layout
from vez.nets.attention import Attention
from vez.nets.clip import ProjectedTextEncoder, SelfAttention, TextEncoder
from vez.nets.coded import Scratch, coded_modules
from vez.nets.tokens import Tokenizer
from vez.nets.unet import UNet
from vez.nets.vae import Vae
from vez.store import file_sha256

Prediction = Literal["epsilon", "v_prediction"]
TextNetwork = TextEncoder | ProjectedTextEncoder


@dataclass(frozen=True)
class Schedule:
    """The noise schedule: ``alphas_cumprod`` (T,) fp32 falls from nearly 1 to nearly 0 (DDPM; Ho et al. 2020).

    It ends at 0 where the base has a zero terminal SNR (Lin et al. 2023).
    """

    betas: Tensor
    alphas_cumprod: Tensor
    prediction_type: Prediction

    def __len__(self) -> int:
        return len(self.betas)

    def on(self, device: torch.device) -> Self:
        """The same on a device, where a step looks things up in it."""
        return replace(self, betas=self.betas.to(device), alphas_cumprod=self.alphas_cumprod.to(device))


@dataclass(frozen=True)
class Parts:
    """What is read of a base's files, from whichever layout: networks, and what a file says of itself."""

    unet: UNet
    vae: Vae | None
    """None: not in its files, and another is to take its place."""
    text_encoders: tuple[TextNetwork, ...]
    tokenizers: tuple[Tokenizer, ...]
    pads: tuple[int, ...]
    """The token that fills up a short caption, for each text encoder."""
    family: Family
    layout: Layout
    schedule: Schedule
    size: int
    latent_scale: float
    weights: dict[str, Path]
    files: tuple[Path, ...]
    """All that the base's identity depends on."""
    notes: tuple[str, ...] = ()
    """What was not plainly written in its files, and how it was decided."""


@dataclass(eq=False)
class Base:
    """A loaded base: frozen modules in evaluation mode on one device.

    U-Net and text encoders have ``dtype``; the VAE is fp32.
    """

    name: str
    path: Path
    family: Family
    layout: Layout
    unet: UNet
    vae: Vae | None
    """None where only latents are to be computed with (`vez bench`)."""
    text_encoders: tuple[TextNetwork, ...]
    tokenizers: tuple[Tokenizer, ...]
    schedule: Schedule
    size: int
    """Side of its own pictures, in pixels."""
    device: torch.device
    dtype: torch.dtype
    latent_scale: float
    latent_factor: int
    """Pixels per latent cell along one side."""
    weights: dict[str, Path]
    pads: tuple[int, ...] = ()
    """The token that fills up a short caption, for each text encoder."""
    files: tuple[Path, ...] = ()
    """What its identity depends on."""
    clip_skip: int = 1
    """Which of the text encoders' layers is read, counted from the end; 1 is the last."""
    chunks: int = 1
    """Pieces of 75 tokens that a caption may have."""
    settings: tuple[str, ...] = ()
    """What was asked for besides its files, and makes it another base."""
    notes: tuple[str, ...] = ()
    quantize: Quantize = "none"
    """How its weights are kept; no part of its identity, since what is drawn with is always as it is."""

    @property
    def text_encoder(self) -> TextNetwork:
        """The first text encoder; the only one of most bases."""
        return self.text_encoders[0]

    @property
    def tokenizer(self) -> Tokenizer:
        """The first text encoder's tokenizer."""
        return self.tokenizers[0]

    @property
    def described(self) -> str:
        """One line for a person: the family that was found, what the base predicts, and how captions are read."""
        said = [
            f"{self.family.title}",
            f"predicts {'v' if self.schedule.prediction_type == 'v_prediction' else 'epsilon'}",
            *(["zero terminal SNR"] if float(self.schedule.alphas_cumprod[-1]) == 0 else []),
            f"{self.size} px",
            f"{75 * self.chunks} tokens",
            *([f"clip skip {self.clip_skip}"] if self.clip_skip != self.family.clip_skip else []),
            *(["weights kept as int8"] if self.quantize == "int8" else []),
            *self.notes,
        ]
        return f"base {self.name}: {', '.join(said)}"

    @cached_property
    def sha256(self) -> str:
        """One SHA-256 of the weights, the tokenizer and the schedule: what an artifact names as its base."""
        lines = [*(file_sha256(file) for file in self.files), *self.settings]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def vae_sha256(self) -> str:
        """SHA-256 of the file with the VAE's weights: what cached latents depend on besides the pixels."""
        return file_sha256(self.weights["vae"])


@contextmanager
def computing_in(base: Base, dtype: torch.dtype) -> Iterator[None]:
    """U-Net and text encoders compute in ``dtype`` inside the block; after it they have their own weights back.

    Whole networks are cast, once; autocast would cast every frozen weight anew at every step.
    """
    own, networks = base.dtype, (base.unet, *base.text_encoders)
    kept = [(p, p.data) for network in networks for p in network.parameters() if p.dtype != dtype]
    coded, scratch = list(coded_modules(*networks)), Scratch()
    try:
        for module in coded:
            module.computes, module.scratch = dtype, scratch
        for parameter, data in kept:
            parameter.data = data.to(dtype)
        base.dtype = dtype
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
        for module in coded:
            module.computes, module.scratch = own, None
        base.dtype = own


@contextmanager
def plain_attention(base: Base) -> Iterator[None]:
    """Attention in plain products inside the block: the fused one's backward is slow in bfloat16 on a CPU.

    At 64 to 256 tokens it took 1 to 9 times as long, forward and backward together (torch 2.13, AVX-512). Of the
    U-Net's matrices none is kept (`vez.base.attention`).
    """
    mixing = [
        module
        for network in (base.unet, *base.text_encoders)
        for module in network.modules()
        if isinstance(module, Attention | SelfAttention)
    ]
    before = [module.mix for module in mixing]
    for module in mixing:
        module.mix = plain
    try:
        yield
    finally:
        for module, mix in zip(mixing, before, strict=True):
            module.mix = mix
