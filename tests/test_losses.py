"""Losses and weights against their published formulas, in numpy and fp64."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from vez.base import Schedule
from vez.config import Variant
from vez.losses import huber_thresholds, pointwise, sample_weights

TIMESTEPS = torch.tensor([0, 1, 300, 700, 999])
DDPM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
THEIRS = DDPMScheduler(**DDPM)
ALPHAS = THEIRS.alphas_cumprod.double().numpy()[TIMESTEPS]
SNR = ALPHAS / (1 - ALPHAS)


def schedule(predicts: Any = "epsilon") -> Schedule:
    return Schedule(THEIRS.betas, THEIRS.alphas_cumprod, predicts)


def variant(**values: Any) -> Variant:
    return Variant(dataset="tiny", **values)


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("huber_c", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["constant", "exponential", "snr"])
def test_huber_thresholds_are_kohyas(kind: str, huber_c: float, scale: float) -> None:
    t = TIMESTEPS.double().numpy()
    sigma = np.sqrt((1 - ALPHAS) / ALPHAS)
    expected = {
        "constant": np.full(5, huber_c * scale),
        "exponential": np.exp(-(-np.log(huber_c) / 1000) * t) * scale,
        "snr": (1 - huber_c) / (1 + sigma) ** 2 + huber_c,
    }[kind]
    found = huber_thresholds(schedule(), TIMESTEPS, variant(huber_c=huber_c, huber_schedule=kind, huber_scale=scale))
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("kind", ["l2", "l1", "huber", "smooth_l1"])
def test_losses_are_kohyas(kind: str) -> None:
    error = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    error[0, 0] *= 1e-4
    setting = variant(loss=kind, huber_schedule="constant", huber_c=0.3)
    c, e = 0.3, error[0].double().numpy()
    expected = {
        "l2": e**2,
        "l1": abs(e),
        "huber": 2 * c * (np.sqrt(e**2 + c**2) - c),
        "smooth_l1": 2 * (np.sqrt(e**2 + c**2) - c),
    }[kind]
    mine = pointwise(error, schedule(), TIMESTEPS, [setting, variant()])
    np.testing.assert_allclose(mine[0].numpy(), expected, rtol=1e-5, atol=1e-14)
    assert torch.equal(mine[1], error[1].square()), "the neighbour keeps its own"


def test_a_scheduled_threshold_is_each_samples_own() -> None:
    error = torch.ones(1, 5, 4, 3, 3)
    c = huber_thresholds(schedule(), TIMESTEPS, variant(loss="huber")).double().numpy()
    mine = pointwise(error, schedule(), TIMESTEPS, [variant(loss="huber")])[0, :, 0, 0, 0]
    np.testing.assert_allclose(mine.numpy(), 2 * c * (np.sqrt(1 + c**2) - c), rtol=1e-5)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_weights(predicts: str) -> None:
    """Debiased as kohya weighs it; with Min-SNR both are multiplied, and a variant without either counts 1."""
    bounded = np.minimum(SNR, 1000)
    debiased = 1 / np.sqrt(bounded) if predicts == "epsilon" else 1 / (bounded + 1)
    snr = compute_snr(THEIRS, TIMESTEPS).double().numpy()
    min_snr = np.minimum(snr, 5) / (snr if predicts == "epsilon" else snr + 1)
    settings = [variant(debiased=True), variant(debiased=True, min_snr=5.0), variant(min_snr=5.0), variant()]
    found = sample_weights(schedule(predicts), TIMESTEPS, settings)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), [debiased, debiased * min_snr, min_snr, np.ones(5)], rtol=1e-4)
    assert sample_weights(schedule(predicts), TIMESTEPS, [variant()]) is None
