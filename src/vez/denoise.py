"""What one training step computes: noisy latents, the base's prediction with LoRAs attached, the loss of each variant.

Notation of DDPM (Ho et al. 2020): x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε. V variants see the same B samples; the batch through
the networks is (V·B, …), variant after variant.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vez.base import Base, Conditioning, Schedule, condition, predict, tokenize
from vez.config import Variant
from vez.dataset import Row
from vez.device import carried
from vez.losses import pointwise
from vez.tape import noise

FIXED_TIMESTEPS = 8  # of the validation: the middles of eight equal bands
FIXED_NOISES = 2  # at each of them
TEXTS_AT_ONCE = 64  # captions encoded at a time: a large dataset's states at once would not fit


@dataclass(frozen=True)
class Batch:
    """B samples, the same for every variant, and their conditioning: token ids, or what they were encoded to.

    ``latents`` and ``noise`` (B, 4, h, w) fp32, ``timesteps`` (B,) int64; ``tokens`` (V·B, 77) or more (`tokenize`), or
    ``text`` of V·B captions; ``sizes`` (B, 6) for a base that is told them (`predict`). Where variants differ in
    latents, noise or sizes, these have V·B rows, variant after variant.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    tokens: Tensor | None = None
    text: Conditioning | None = None
    sizes: Tensor | None = None
    mixed: Tensor | None = None
    """The noise that the latents are mixed with, where it is not ``noise``, which is predicted (`vez.noising`)."""
    mask: Tensor | None = None
    """How much the error counts, (B, 1, h, w) or (V·B, 1, h, w) in [0, 1]; None: all of it."""
    rows: tuple[int, ...] = ()
    """The samples' places in their dataset; empty where they are of none."""


@dataclass(frozen=True)
class Words:
    """Captions ready for the networks, the empty one last: ``tokens`` of N + 1 captions.

    ``states`` is what they are encoded to, where the text encoders are frozen and it can be done once; else None.
    """

    tokens: Tensor
    states: Conditioning | None

    @classmethod
    def of(cls, base: Base, captions: Sequence[str], *, frozen: bool) -> Self:
        """Tokenize the captions; encode them too if the text encoder stays ``frozen``."""
        tokens = tokenize(base, [*captions, ""])
        with torch.no_grad():
            if not frozen:
                return cls(tokens, None)
            parts = [condition(base, some) for some in torch.split(tokens, TEXTS_AT_ONCE)]
            return cls(tokens, Conditioning.joined(parts))

    def batch(
        self, captions: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, *, sizes: Tensor | None = None
    ) -> Batch:
        """A batch on the base's device; ``captions`` (V·B,) are indices, -1 for the empty one."""
        index, timesteps = (carried(numbers, self.tokens.device) for numbers in (captions, timesteps))
        if self.states is not None:
            return Batch(latents, noise, timesteps, text=self.states.at(index), sizes=sizes)
        return Batch(latents, noise, timesteps, tokens=self.tokens[index], sizes=sizes)


def sizes_of(base: Base, rows: Sequence[Row], *, turned: Sequence[bool] | None = None) -> Tensor | None:
    """What a base is told of the pictures' sizes, (N, 6) fp32 (`predict`); None where its family is told nothing.

    Original: the part of the person's picture that the row shows, before it was scaled. Crop: where that part began, in
    training pixels; of a row that is ``turned`` left to right, in the picture turned so, as kohya tells it. Target: the
    training picture.
    """
    if not base.family.pooled:
        return None
    told = []
    for row, mirrored in zip(rows, turned or [False] * len(rows), strict=True):
        left, top, right, bottom = row.box if row.scale != 1 or any(row.box) else (0, 0, row.width, row.height)
        if mirrored and row.upright:
            left = row.upright - right
        offset = (round(top * row.scale), round(left * row.scale))
        told.append((bottom - top, right - left, *offset, row.height, row.width))
    return carried(torch.tensor(told, dtype=torch.float32), base.device)


def noisy(schedule: Schedule, batch: Batch) -> Tensor:
    """x_t, (B, 4, h, w) fp32, or (V·B, 4, h, w) where variants differ."""
    latents, seen, alpha = _alike(batch.latents, batch.noise if batch.mixed is None else batch.mixed, schedule, batch)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * seen


def target(schedule: Schedule, batch: Batch) -> Tensor:
    """What the U-Net is to predict, shaped as x_t: ε, or v = √ᾱ ε - √(1-ᾱ) x_0 (Salimans and Ho 2022)."""
    if schedule.prediction_type == "epsilon":
        return batch.noise
    latents, noise, alpha = _alike(batch.latents, batch.noise, schedule, batch)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents


def _alike(latents: Tensor, noise: Tensor, schedule: Schedule, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and ᾱ with a row for each variant if either has one."""
    alphas = schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    count = max(len(latents), len(noise))
    return _each(latents, count), _each(noise, count), _each(alphas, count)


def _each(samples: Tensor, count: int) -> Tensor:
    """(B, …) -> (V·B, …), variant after variant; what has a row for each variant already stays."""
    return samples if len(samples) == count else samples.repeat(count // len(samples), 1, 1, 1)


def predictions(base: Base, batch: Batch, *, variants: int) -> Tensor:
    """What the U-Net says of the batch under each variant, (V·B, 4, h, w) fp32."""
    text = batch.text
    if text is None:
        if batch.tokens is None:
            raise ValueError("a batch needs tokens or text")
        text = condition(base, batch.tokens)
    count = variants * len(batch.timesteps)
    x = _each(noisy(base.schedule, batch).to(base.dtype), count)
    sizes = None if batch.sizes is None else batch.sizes.repeat(count // len(batch.sizes), 1)
    return predict(base, x, batch.timesteps.repeat(variants), text=text, sizes=sizes).float()


def sample_losses(base: Base, batch: Batch, *, variants: int, settings: Sequence[Variant] | None = None) -> Tensor:
    """Mean squared error of each sample under each variant, (V, B) fp32; by ``settings``, the V variants', its loss.

    A mask is multiplied into the loss before its mean over the whole picture, as kohya does: less subject, less loss.
    """
    count = variants * len(batch.timesteps)
    error = predictions(base, batch, variants=variants) - _each(target(base.schedule, batch), count)
    per = pointwise(error.view(variants, -1, *error.shape[1:]), base.schedule, batch.timesteps, settings)
    if batch.mask is not None:
        per = per * _each(batch.mask, count).view(variants, -1, 1, *error.shape[2:])
    losses: Tensor = per.mean(dim=(2, 3, 4))
    return losses


def variant_losses(
    base: Base,
    batch: Batch,
    *,
    variants: int,
    weights: Tensor | None = None,
    settings: Sequence[Variant] | None = None,
) -> Tensor:
    """Each variant's loss, (V,): its (weighted) sample losses' mean. Their sum's gradient is each one's own."""
    losses = sample_losses(base, batch, variants=variants, settings=settings)
    return (losses if weights is None else losses * weights).mean(dim=1)


@dataclass(frozen=True)
class FixedNoise:
    """One picture with the timesteps and noises that it is always validated with, whatever the run's seed.

    ``latents``, ``noise`` (T·K, 4, h, w), ``timesteps`` (T·K,): K noises at each of T timesteps; ``tokens`` of one
    caption; ``sizes`` (T·K, 6) where the base is told them.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    tokens: Tensor
    sizes: Tensor | None = None

    @classmethod
    def of(cls, base: Base, row: Row, moments: Tensor) -> Self:
        """The picture of ``row``, whose moments are (8, h, w); its latent is their mean."""
        mean = moments.chunk(2)[0]
        fields = [torch.from_numpy(noise(_fixed_seed(row, k), tuple(mean.shape))[1]) for k in range(FIXED_NOISES)]
        timesteps = torch.tensor(fixed_timesteps(base.schedule), device=mean.device)
        sizes = sizes_of(base, [row])
        return cls(
            mean.repeat(FIXED_TIMESTEPS * FIXED_NOISES, 1, 1, 1),
            torch.stack(fields).to(mean.device).repeat(FIXED_TIMESTEPS, 1, 1, 1),
            timesteps.repeat_interleave(FIXED_NOISES),
            tokenize(base, [row.caption]),
            None if sizes is None else sizes.repeat(FIXED_TIMESTEPS * FIXED_NOISES, 1),
        )


def fixed_timesteps(schedule: Schedule) -> list[int]:
    """The middles of eight equal bands of the schedule, low noise first."""
    width = len(schedule) // FIXED_TIMESTEPS
    return [i * width + width // 2 for i in range(FIXED_TIMESTEPS)]


def _fixed_seed(row: Row, k: int) -> int:
    return int.from_bytes(hashlib.sha256(f"vez-validation-1:{row.sha256}:{k}".encode()).digest()[:8], "little")


@torch.no_grad()
def fixed_noise_losses(base: Base, pictures: Sequence[FixedNoise], *, variants: int) -> list[list[float]]:
    """Each variant's mean loss per timestep over the pictures: V lists of T, low noise first."""
    total = torch.zeros(variants, FIXED_TIMESTEPS, dtype=torch.float64)
    for picture in pictures:
        text = condition(base, picture.tokens.repeat(variants, 1))  # of V captions: once, not for every noise
        text = text.each(len(picture.timesteps))
        batch = Batch(picture.latents, picture.noise, picture.timesteps, text=text, sizes=picture.sizes)
        losses = sample_losses(base, batch, variants=variants)  # (V, T·K)
        total += losses.view(variants, FIXED_TIMESTEPS, FIXED_NOISES).mean(dim=2).double().cpu()
    means: list[list[float]] = (total / len(pictures)).tolist()
    return means
