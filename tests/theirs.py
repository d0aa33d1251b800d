"""A base's weights in diffusers' and transformers' own networks: what vez is held against."""

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from vez.base import Base


def unet_of(base: Base) -> UNet2DConditionModel:
    """Their U-Net with the base's weights, as they are now."""
    return _filled(UNet2DConditionModel(**vars(base.unet.config)), base.unet)


def vae_of(base: Base) -> AutoencoderKL:
    """Their VAE."""
    assert base.vae is not None
    return _filled(AutoencoderKL(**vars(base.vae.config)), base.vae)


def texts_of(base: Base) -> list[Any]:
    """Their text encoders."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    return [
        _filled(kinds[n](CLIPTextConfig(**vars(encoder.config))), encoder)
        for n, encoder in enumerate(base.text_encoders)
    ]


def tokenizers_of(base: Base) -> list[CLIPTokenizer]:
    """Their tokenizers, from the base's folder."""
    names = ("tokenizer", "tokenizer_2")[: len(base.text_encoders)]
    return [CLIPTokenizer.from_pretrained(base.path / name) for name in names]


def parts_of(base: Base) -> dict[str, Any]:
    """What their pipelines are made of, besides the scheduler."""
    parts: dict[str, Any] = {"unet": unet_of(base), "vae": vae_of(base)}
    for n, (encoder, tokenizer) in enumerate(zip(texts_of(base), tokenizers_of(base), strict=True)):
        end = "" if n == 0 else "_2"
        parts |= {f"text_encoder{end}": encoder, f"tokenizer{end}": tokenizer}
    return parts


def _filled(network: Any, ours: torch.nn.Module) -> Any:
    network.load_state_dict(ours.state_dict(), strict=True, assign=True)
    return network.eval().requires_grad_(False)
