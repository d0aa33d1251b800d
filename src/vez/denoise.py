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

from vez.base import Base, Schedule, text_states, tokenize
from vez.dataset import Row
from vez.tape import noise

FIXED_TIMESTEPS = 8  # of the validation: the middles of eight equal bands
FIXED_NOISES = 2  # at each of them


@dataclass(frozen=True)
class Batch:
    """B samples, the same for every variant, and their conditioning: token ids or the text encoder's states of them.

    ``latents`` and ``noise`` (B, 4, h, w) fp32, ``timesteps`` (B,) int64; ``tokens`` (V·B, 77) or
    ``text`` (V·B, 77, D).
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    tokens: Tensor | None = None
    text: Tensor | None = None


@dataclass(frozen=True)
class Words:
    """Captions ready for the networks, the empty one last: ``tokens`` (N + 1, 77).

    ``states`` (N + 1, 77, D) are the text encoder's, where it is frozen and they can be computed once; else None.
    """

    tokens: Tensor
    states: Tensor | None

    @classmethod
    def of(cls, base: Base, captions: Sequence[str], *, frozen: bool) -> Self:
        """Tokenize the captions; encode them too if the text encoder stays ``frozen``."""
        tokens = tokenize(base, [*captions, ""])
        with torch.no_grad():
            return cls(tokens, text_states(base, tokens) if frozen else None)

    def batch(self, captions: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Batch:
        """A batch on the base's device; ``captions`` (V·B,) are indices, -1 for the empty one."""
        device = self.tokens.device
        index, timesteps = captions.to(device), timesteps.to(device)
        if self.states is not None:
            return Batch(latents, noise, timesteps, text=self.states[index])
        return Batch(latents, noise, timesteps, tokens=self.tokens[index])


def noisy(schedule: Schedule, batch: Batch) -> Tensor:
    """x_t, (B, 4, h, w) fp32."""
    alpha = _alphas(schedule, batch.timesteps)
    return alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise


def target(schedule: Schedule, batch: Batch) -> Tensor:
    """What the U-Net is to predict, (B, 4, h, w): ε, or v = √ᾱ ε - √(1-ᾱ) x_0 (Salimans and Ho 2022)."""
    if schedule.prediction_type == "epsilon":
        return batch.noise
    alpha = _alphas(schedule, batch.timesteps)
    return alpha.sqrt() * batch.noise - (1 - alpha).sqrt() * batch.latents


def _alphas(schedule: Schedule, timesteps: Tensor) -> Tensor:
    return schedule.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)


def min_snr_weights(schedule: Schedule, timesteps: Tensor, gammas: Sequence[float | None]) -> Tensor:
    """Weights of the samples' losses, (V, B): Min-SNR-γ (Hang et al. 2023, eq. 8), or 1 where a gamma is None."""
    alpha = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = alpha / (1 - alpha)  # (B,)
    divisor = snr if schedule.prediction_type == "epsilon" else snr + 1
    rows = [torch.ones_like(snr) if gamma is None else snr.clamp(max=gamma) / divisor for gamma in gammas]
    return torch.stack(rows)


def sample_losses(base: Base, batch: Batch, *, variants: int) -> Tensor:
    """Mean squared error of each sample under each variant, (V, B) fp32."""
    text = batch.text
    if text is None:
        if batch.tokens is None:
            raise ValueError("a batch needs tokens or text")
        text = text_states(base, batch.tokens)  # (V·B, 77, D)
    x = noisy(base.schedule, batch).to(base.dtype).repeat(variants, 1, 1, 1)  # (V·B, 4, h, w)
    prediction = base.unet(x, batch.timesteps.repeat(variants), encoder_hidden_states=text, return_dict=False)[0]
    error = prediction.float() - target(base.schedule, batch).repeat(variants, 1, 1, 1)
    losses: Tensor = error.square().mean(dim=(1, 2, 3)).view(variants, -1)
    return losses


def variant_losses(base: Base, batch: Batch, *, variants: int, weights: Tensor | None = None) -> Tensor:
    """Each variant's loss, (V,): its (weighted) sample losses' mean. Their sum's gradient is each one's own."""
    losses = sample_losses(base, batch, variants=variants)
    return (losses if weights is None else losses * weights).mean(dim=1)


@dataclass(frozen=True)
class FixedNoise:
    """One picture with the timesteps and noises that it is always validated with, whatever the run's seed.

    ``latents``, ``noise`` (T·K, 4, h, w), ``timesteps`` (T·K,): K noises at each of T timesteps; ``tokens`` (1, 77).
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, base: Base, row: Row, moments: Tensor) -> Self:
        """The picture of ``row``, whose moments are (8, h, w); its latent is their mean."""
        mean = moments.chunk(2)[0]
        fields = [torch.from_numpy(noise(_fixed_seed(row, k), tuple(mean.shape))[1]) for k in range(FIXED_NOISES)]
        width = len(base.schedule) // FIXED_TIMESTEPS
        timesteps = torch.arange(FIXED_TIMESTEPS, device=mean.device) * width + width // 2
        return cls(
            mean.repeat(FIXED_TIMESTEPS * FIXED_NOISES, 1, 1, 1),
            torch.stack(fields).to(mean.device).repeat(FIXED_TIMESTEPS, 1, 1, 1),
            timesteps.repeat_interleave(FIXED_NOISES),
            tokenize(base, [row.caption]),
        )


def _fixed_seed(row: Row, k: int) -> int:
    return int.from_bytes(hashlib.sha256(f"vez-validation-1:{row.sha256}:{k}".encode()).digest()[:8], "little")


@torch.no_grad()
def fixed_noise_losses(base: Base, pictures: Sequence[FixedNoise], *, variants: int) -> list[list[float]]:
    """Each variant's mean loss per timestep over the pictures: V lists of T, low noise first."""
    total = torch.zeros(variants, FIXED_TIMESTEPS, dtype=torch.float64)
    for picture in pictures:
        text = text_states(base, picture.tokens.repeat(variants, 1))  # (V, 77, D): once, not for every noise
        text = text.repeat_interleave(len(picture.timesteps), dim=0)
        batch = Batch(picture.latents, picture.noise, picture.timesteps, text=text)
        losses = sample_losses(base, batch, variants=variants)  # (V, T·K)
        total += losses.view(variants, FIXED_TIMESTEPS, FIXED_NOISES).mean(dim=2).double().cpu()
    means: list[list[float]] = (total / len(pictures)).tolist()
    return means
