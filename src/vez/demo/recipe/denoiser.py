"""The U-Net: `UNet2DConditionModel` of SD 1.x's blocks, eps-prediction on the scaled-linear schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from vez.demo.recipe.loop import Plan, Say, Trainer
from vez.demo.recipe.text import WIDTH

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
"""SD 1.x's noise schedule."""
CHANNELS = (64, 128, 192)


def make() -> UNet2DConditionModel:
    """An untrained U-Net. As in SD 1.x's own configs, `attention_head_dim` is in fact the number of heads."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def train(
    latents: np.ndarray,
    ids: np.ndarray,
    encoder: CLIPTextModel,
    *,
    plan: Plan,
    folder: Path,
    batch: int,
    device: str,
    say: Say,
) -> UNet2DConditionModel:
    """Train U-Net and text encoder together on scaled latents (N, 4, 16, 16) and token ids (N, captions, 77).

    A tenth of the captions is empty, for classifier-free guidance; losses are weighted by min-SNR-5 (Hang et al.
    2023, arXiv 2303.09556, eq. 8).
    """
    unet = make().to(device, memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())
    model = nn.ModuleDict({"unet": unet, "text": encoder}).to(device)
    encoder.set_attn_implementation("eager")  # at 77 tokens its backward takes 0.4 of the fused one's time on a CPU
    trainer = Trainer("unet", model, plan=plan, folder=folder, scale={"unet.": 1.0, "text.": 0.2})
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    weight = torch.clamp(5 * (1 - alphas) / alphas, max=1.0)
    start, end = int(encoder.config.bos_token_id), int(encoder.config.eos_token_id)
    empty = np.full(ids.shape[-1], end, np.int16)
    empty[0] = start

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(latents), batch)
        text = ids[chosen, rng.integers(0, ids.shape[1], batch)]
        text = np.where(rng.random((batch, 1)) < 0.1, empty, text)
        t = torch.from_numpy(np.floor((rng.permutation(batch) + rng.random(batch)) / batch * 1000).astype(np.int64))
        t = t.clamp(max=999).to(device)
        z = torch.from_numpy(latents[chosen]).to(device)
        noise = torch.randn_like(z)
        a = alphas[t][:, None, None, None]
        noisy = (a.sqrt() * z + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            hidden = encoder(torch.from_numpy(text.astype(np.int64)).to(device)).last_hidden_state
            guess = unet(noisy, t, hidden).sample
        each = (guess.float() - noise).pow(2).mean((1, 2, 3))
        return (each * weight[t]).mean(), {"eps": each.mean().item()}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return unet.eval()
