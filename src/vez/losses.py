"""How an error becomes a loss: its shape, and how much a timestep counts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vez.base import Schedule
from vez.config import Variant

# 1/√SNR and 1/(SNR + 1) of an almost clean sample would be almost nothing; kohya counts no SNR above this.
LARGEST_SNR = 1000.0


def pointwise(error: Tensor, schedule: Schedule, timesteps: Tensor, variants: Sequence[Variant] | None) -> Tensor:
    """The loss of every number of ``error`` (V, B, …), shaped as it; timesteps (B,). None: all squared."""
    if variants is None or all(variant.loss == "l2" for variant in variants):
        return error.square()
    return torch.stack([_of(one, schedule, timesteps, v) for one, v in zip(error, variants, strict=True)])


def _of(error: Tensor, schedule: Schedule, timesteps: Tensor, variant: Variant) -> Tensor:
    """Pseudo-Huber (Charbonnier et al. 1997): 2c(√(e² + c²) - c), and smooth L1 without the factor c; as kohya has it.

    Written as 2c·e²/(√(e² + c²) + c), which is the same and loses no digits where e is small.
    """
    if variant.loss == "l2":
        return error.square()
    if variant.loss == "l1":
        return error.abs()
    c = huber_thresholds(schedule, timesteps, variant).view(-1, *[1] * (error.ndim - 1))
    squared = error.square()
    loss = 2 * squared / ((squared + c.square()).sqrt() + c)
    return c * loss if variant.loss == "huber" else loss


def huber_thresholds(schedule: Schedule, timesteps: Tensor, variant: Variant) -> Tensor:
    """c of each sample (B,): constant, falling exponentially to huber_c, or by the noise, (1 - c)/(1 + σ)² + c.

    ``huber_scale`` multiplies the first two, as in kohya.
    Scheduled Huber: Khrapov et al. 2024, "Improving Diffusion Models's Data-Corruption Resistance"; σ² = 1/SNR.
    """
    if variant.huber_schedule == "constant":
        return torch.full(timesteps.shape, variant.huber_c * variant.huber_scale, device=timesteps.device)
    if variant.huber_schedule == "exponential":
        return torch.exp(math.log(variant.huber_c) * timesteps / len(schedule)) * variant.huber_scale
    sigma = snr_of(schedule, timesteps).rsqrt()
    return (1 - variant.huber_c) / (1 + sigma).square() + variant.huber_c


def snr_of(schedule: Schedule, timesteps: Tensor) -> Tensor:
    """Signal-to-noise ratio ᾱ/(1-ᾱ) of each timestep, (B,)."""
    alpha = schedule.alphas_cumprod[timesteps]
    return alpha / (1 - alpha)


def sample_weights(schedule: Schedule, timesteps: Tensor, variants: Sequence[Variant]) -> Tensor | None:
    """What each sample's loss counts under each variant, (V, B): Min-SNR times debiased; None where all count 1."""
    if not any(variant.min_snr or variant.debiased for variant in variants):
        return None
    weights = min_snr_weights(schedule, timesteps, [variant.min_snr for variant in variants])
    debiased = debiased_weights(schedule, timesteps)
    return torch.stack([w * debiased if v.debiased else w for w, v in zip(weights, variants, strict=True)])


def min_snr_weights(schedule: Schedule, timesteps: Tensor, gammas: Sequence[float | None]) -> Tensor:
    """Weights of the samples' losses, (V, B): Min-SNR-γ (Hang et al. 2023, eq. 8), or 1 where a gamma is None."""
    snr = snr_of(schedule, timesteps)  # (B,)
    divisor = snr if schedule.prediction_type == "epsilon" else snr + 1
    rows = [torch.ones_like(snr) if gamma is None else snr.clamp(max=gamma) / divisor for gamma in gammas]
    return torch.stack(rows)


def debiased_weights(schedule: Schedule, timesteps: Tensor) -> Tensor:
    """1/√SNR for what predicts ε, 1/(SNR + 1) for v, (B,). Yu et al., "Debias the Training of Diffusion Models"."""
    snr = snr_of(schedule, timesteps).clamp(max=LARGEST_SNR)
    return snr.rsqrt() if schedule.prediction_type == "epsilon" else 1 / (snr + 1)
