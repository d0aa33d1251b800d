"""The noise schedule of a base, computed as diffusers' DDPM schedule computes it."""

from typing import Any

import torch
from torch import Tensor

from vez.base.model import Prediction, Schedule
from vez.errors import BaseModelError

# What every published single-file Stable Diffusion was trained with.
STABLE_DIFFUSION: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def schedule_of(config: dict[str, Any], *, prediction: Prediction | None = None) -> Schedule:
    """The schedule of a diffusers scheduler configuration; ``prediction`` overrides what it says. BaseModelError."""
    kind, steps = config.get("beta_schedule", "linear"), int(config.get("num_train_timesteps", 1000))
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    predicted = prediction or config.get("prediction_type", "epsilon")
    if predicted not in ("epsilon", "v_prediction"):
        raise BaseModelError(f"the base predicts {predicted!r}; vez knows epsilon and v_prediction")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float32)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    elif kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float32)
    else:
        raise BaseModelError(f"the base's beta_schedule is {kind!r}; vez knows scaled_linear and linear")
    if config.get("rescale_betas_zero_snr"):
        if predicted == "epsilon":
            raise BaseModelError(
                "the base has a zero terminal SNR and predicts epsilon, which says nothing about pure noise; such a "
                'base predicts v: set prediction = "v" in [project]'
            )
        betas = zero_terminal_snr(betas)
    return Schedule(betas, torch.cumprod(1.0 - betas, dim=0), predicted)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas (T,) rescaled so that the last step is pure noise (Lin et al. 2023, arXiv 2305.08891, Algorithm 1)."""
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root -= last
    root *= first / (first - last)
    bar = root**2
    return 1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])
