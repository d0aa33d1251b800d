"""The autoencoder: `AutoencoderKL`, 4 latent channels, factor 8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from vez.demo.recipe.loop import Plan, Say, Trainer

CROP = 96


def make() -> AutoencoderKL:
    """An untrained autoencoder of 3.2 million parameters."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 48, 96, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
    )


def to_input(pictures: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [-1, 1], channels last."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(error: Tensor) -> Tensor:
    """L1, its gradients and coarser scales, and a little L2: sharp edges without a discriminator."""
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    coarse = torch.stack([F.avg_pool2d(error, s).abs().mean() for s in (2, 4, 8)]).sum()
    return error.abs().mean() + 0.5 * edges + 0.3 * coarse + 2 * error.pow(2).mean()


def train(pictures: np.ndarray, *, plan: Plan, folder: Path, batch: int, device: str, say: Say) -> AutoencoderKL:
    """Train encoder and decoder on random crops; returns the averaged weights, in eval mode."""
    model = make().to(device, memory_format=torch.channels_last)
    trainer = Trainer("vae", model, plan=plan, folder=folder)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        top, left = rng.integers(0, pictures.shape[1] - CROP + 1, 2)
        chosen = np.sort(rng.integers(0, len(pictures), batch))
        crop = pictures[chosen][:, top : top + CROP, left : left + CROP]
        x = to_input(crop[:, :, ::-1] if rng.random() < 0.5 else crop).to(device)
        with torch.autocast(device, torch.bfloat16):
            mean, log_variance = model.quant_conv(model.encoder(x)).float().chunk(2, 1)
            log_variance = log_variance.clamp(-20, 10)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            y = model.decoder(model.post_quant_conv(z))
        error = y.float() - x
        kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
        psnr = -10 * torch.log10((error / 2).pow(2).mean()).item()
        return reconstruction_loss(error) + 1e-4 * kl, {"psnr": psnr, "kl": kl.item()}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return model.eval()


def sharpen(
    model: AutoencoderKL, pictures: np.ndarray, *, plan: Plan, folder: Path, batch: int, device: str, say: Say
) -> AutoencoderKL:
    """Go on with the decoder alone: the latents, and so the U-Net trained on them, stay what they are."""
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(False)
    trainer = Trainer("decoder", model, plan=plan, folder=folder)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.integers(0, len(pictures), batch))
        x = to_input(pictures[chosen]).to(device)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                mean, log_variance = model.quant_conv(model.encoder(x)).float().chunk(2, 1)
            z = mean + 0.5 * torch.exp(0.5 * log_variance.clamp(-20, 10)) * torch.randn_like(mean)
            y = model.decoder(model.post_quant_conv(z))
        error = y.float() - x
        return reconstruction_loss(error), {"psnr": -10 * torch.log10((error / 2).pow(2).mean()).item()}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return model.eval()


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: np.ndarray, *, device: str, batch: int = 32) -> np.ndarray:
    """Latent means, unscaled, (N, 4, H/8, W/8) float32."""
    parts = []
    for i in range(0, len(pictures), batch):
        with torch.autocast(device, torch.bfloat16):
            hidden = model.quant_conv(model.encoder(to_input(pictures[i : i + batch]).to(device)))
        parts.append(hidden.float().chunk(2, 1)[0].cpu().numpy())
    return np.concatenate(parts)
