"""The step's mathematics against diffusers' own schedule; the fixed-noise validation."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from vez.base import Base, Schedule, encode_images, tokenize
from vez.dataset import Dataset
from vez.denoise import (
    Batch,
    FixedNoise,
    fixed_noise_losses,
    noisy,
    sample_losses,
    target,
    variant_losses,
)
from vez.lora import LoraSpec, attach
from vez.losses import min_snr_weights

DDPM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(params=["epsilon", "v_prediction"])
def schedules(request: pytest.FixtureRequest) -> tuple[Schedule, DDPMScheduler]:
    theirs = DDPMScheduler(**DDPM, prediction_type=request.param)
    return Schedule(theirs.betas, theirs.alphas_cumprod, request.param), theirs


@pytest.fixture
def batch() -> Batch:
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(latents, noise, torch.tensor([0, 1, 300, 700, 999]))


def test_noisy_latents_and_targets(schedules: tuple[Schedule, DDPMScheduler], batch: Batch) -> None:
    ours, theirs = schedules
    torch.testing.assert_close(noisy(ours, batch), theirs.add_noise(batch.latents, batch.noise, batch.timesteps))
    velocity = theirs.get_velocity(batch.latents, batch.noise, batch.timesteps)
    expected = batch.noise if ours.prediction_type == "epsilon" else velocity
    torch.testing.assert_close(target(ours, batch), expected)


def test_min_snr_weights(schedules: tuple[Schedule, DDPMScheduler], batch: Batch) -> None:
    ours, theirs = schedules
    snr = compute_snr(theirs, batch.timesteps)
    expected = snr.clamp(max=5) / (snr if ours.prediction_type == "epsilon" else snr + 1)
    weights = min_snr_weights(ours, batch.timesteps, [None, 5.0])
    torch.testing.assert_close(weights, torch.stack([torch.ones(5), expected]))


def test_a_variants_loss_is_the_mean_of_its_weighted_samples(random_base: Base, batch: Batch) -> None:
    batch = Batch(batch.latents, batch.noise, batch.timesteps, tokenize(random_base, ["zolka"] * 10))
    weights = torch.arange(10.0).view(2, 5)
    with torch.no_grad():
        samples = sample_losses(random_base, batch, variants=2)
        losses = variant_losses(random_base, batch, variants=2, weights=weights)
    assert samples.shape == (2, 5)
    torch.testing.assert_close(losses, (samples * weights).mean(dim=1))


def test_the_loss_is_the_pipelines(random_base: Base, batch: Batch) -> None:
    """By hand: the U-Net's prediction on x_t with the caption's states, against the noise."""
    batch = Batch(batch.latents, batch.noise, batch.timesteps, tokenize(random_base, ["a girl"] * 5))
    with torch.no_grad():
        states = random_base.text_encoder(batch.tokens)[0]
        x = DDPMScheduler(**DDPM).add_noise(batch.latents, batch.noise, batch.timesteps)
        prediction = random_base.unet(x, batch.timesteps, states)
        losses = sample_losses(random_base, batch, variants=1)[0]
    torch.testing.assert_close(losses, ((prediction - batch.noise) ** 2).mean(dim=(1, 2, 3)))


def test_validation_is_the_same_every_time_and_the_same_for_every_variant(
    random_base: Base, tiny_dataset: Dataset
) -> None:
    pictures = []
    for row in tiny_dataset.held_out:
        moments = encode_images(random_base, tiny_dataset.pixels(row)[None])[0]
        pictures.append(FixedNoise.of(random_base, row, moments))
    assert pictures[0].timesteps.tolist()[::2] == [62, 187, 312, 437, 562, 687, 812, 937]
    assert not torch.equal(pictures[0].noise[0], pictures[0].noise[1])
    assert not torch.equal(pictures[0].noise[0], pictures[1].noise[0])
    first = fixed_noise_losses(random_base, pictures, variants=1)
    assert fixed_noise_losses(random_base, pictures, variants=1) == first
    lora = attach(random_base, [LoraSpec(2, 2.0), LoraSpec(4, 4.0)], seed=0)
    try:
        both = fixed_noise_losses(random_base, pictures, variants=2)
    finally:
        lora.detach()
    assert np.shape(both) == (2, 8)
    np.testing.assert_allclose(both, first * 2, rtol=1e-5)
