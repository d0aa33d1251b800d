"""The sampler against diffusers: coefficients, trajectories, and the pixels of a whole StableDiffusionPipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline

from theirs import parts_of
from vez import base as bases
from vez.base.schedule import schedule_of
from vez.config import Sampling
from vez.draw import Brush
from vez.solver import denoise, moves, noise

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def theirs(solver: str, prediction_type: str = "epsilon") -> DPMSolverMultistepScheduler | DDIMScheduler:
    if solver == "ddim":
        plain = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
        return DDIMScheduler(**BETAS, **plain, prediction_type=prediction_type)
    # The pipeline insists on an offset of 1; "linspace" does not use it.
    return DPMSolverMultistepScheduler(**BETAS, steps_offset=1, prediction_type=prediction_type)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
@pytest.mark.parametrize("solver", ["dpm++2m", "ddim"])
def test_a_walk_is_diffusers_walk(solver: str, steps: int, prediction_type: str) -> None:
    scheduler = theirs(solver, prediction_type)
    scheduler.set_timesteps(steps)
    walk = moves(scheduler.alphas_cumprod.double().numpy(), steps, solver=solver, prediction_type=prediction_type)  # type: ignore[arg-type]
    assert [move.timestep for move in walk] == scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(1)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    before = torch.zeros_like(x)
    for move, t in zip(walk, scheduler.timesteps, strict=True):
        out = torch.randn(x.shape, generator=generator) * 0.3 + 0.9 * x  # what a model might say: mostly noise
        y = scheduler.step(out, t, y, return_dict=False)[0]
        clean = move.p * x + move.q * out
        x, before = move.a * x + move.b * clean + move.c * before, clean
        assert torch.allclose(x, y, atol=2e-4 * float(y.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("solver", ["dpm++2m", "ddim"])
def test_a_walk_from_pure_noise_is_diffusers_walk(solver: str, steps: int) -> None:
    """Zero terminal SNR: the first step comes from no signal at all."""
    zero = {**BETAS, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    scheduler: DPMSolverMultistepScheduler | DDIMScheduler = DPMSolverMultistepScheduler(**zero)
    if solver == "ddim":
        scheduler = DDIMScheduler(
            **zero, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="trailing"
        )
    scheduler.set_timesteps(steps)
    betas = {**BETAS, "rescale_betas_zero_snr": True}
    ours = schedule_of(betas, prediction="v_prediction").alphas_cumprod
    assert ours[-1] == 0
    walk = moves(ours.double().numpy(), steps, solver=solver, prediction_type="v_prediction")  # type: ignore[arg-type]
    assert [move.timestep for move in walk] == scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(1)
    x = y = torch.randn(2, 4, 8, 8, generator=generator)
    before = torch.zeros_like(x)
    for move, t in zip(walk, scheduler.timesteps, strict=True):
        out = torch.randn(x.shape, generator=generator) * 0.3
        y = scheduler.step(out, t, y, return_dict=False)[0]
        clean = move.p * x + move.q * out
        x, before = move.a * x + move.b * clean + move.c * before, clean
        assert torch.allclose(x, y, atol=1e-3 * float(y.abs().max()))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("solver", ["dpm++2m", "ddim"])
def test_pixels_of_a_stable_diffusion_pipeline(random_base_folder: Path, solver: str, frozen: bool) -> None:
    """By the networks as they are, and by those with packed weights, which the sample stage draws with."""
    base = bases.load(str(random_base_folder))
    pipeline = StableDiffusionPipeline(
        **parts_of(base),
        scheduler=theirs(solver),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    texts, negative = ["a red apron", "a woman in the snow"], "blurred"
    side = base.size // base.latent_factor
    latents = noise([0, 1], side, side)
    expected = pipeline(
        texts,
        negative_prompt=[negative] * 2,
        latents=latents,
        num_inference_steps=9,
        guidance_scale=5.0,
        height=base.size,
        width=base.size,
        output_type="np",
    ).images
    brush = Brush(base, Sampling(batch=2, cfg=5.0))
    ours = denoise(
        base,
        latents,
        text=bases.encode_text(base, texts),
        negative=bases.encode_text(base, [negative] * 2),
        walk=moves(base.schedule.alphas_cumprod.double().numpy(), 9, solver=solver),  # type: ignore[arg-type]
        cfg=5.0,
        unet=brush.frozen() if frozen else None,
    )
    pixels = bases.decode_latents(base, ours, decoder=brush.decoder if frozen else None)
    assert pixels.std() > 5, "a flat picture would make any sampler agree"
    assert np.abs(pixels.astype(int) - (expected * 255).round().astype(int)).max() <= 2
