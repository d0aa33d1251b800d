"""Loading a base: where it lies, its parts from whichever layout, and what was asked for besides."""

from pathlib import Path
from typing import Any

import torch

from vez.base.folder import HUB_FILES, read_folder
from vez.base.model import Base, Parts, Prediction
from vez.base.source import locate, tiny_path
from vez.errors import BaseModelError


def load(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    prediction: Prediction | None = None,
) -> Base:
    """Load a base, frozen: "tiny", a folder in diffusers' layout, or a hub id. Raises BaseModelError.

    ``dtype`` is what U-Net and text encoder compute in: bfloat16 is about twice as fast where the processor knows it.
    """
    path = tiny_path() if name == "tiny" else locate(name, what="base", patterns=HUB_FILES)
    if path.is_file():
        raise BaseModelError(f"{path} is a single file")
    parts = read_folder(path, dtype=dtype, prediction=prediction)
    return _base(name, path, parts, torch.device(device), dtype)


def _base(name: str, path: Path, parts: Parts, device: torch.device, dtype: torch.dtype) -> Base:
    vae_config: Any = parts.vae.config
    return Base(
        name=name,
        path=path,
        family=parts.family,
        layout=parts.layout,
        unet=parts.unet.to(device),
        vae=parts.vae.to(device),
        text_encoders=tuple(encoder.to(device) for encoder in parts.text_encoders),
        tokenizers=parts.tokenizers,
        pads=parts.pads,
        schedule=parts.schedule,
        size=parts.size,
        device=device,
        dtype=dtype,
        latent_scale=parts.latent_scale,
        latent_factor=2 ** (len(vae_config.block_out_channels) - 1),
        weights=parts.weights,
        files=parts.files,
        clip_skip=parts.family.clip_skip,
    )
