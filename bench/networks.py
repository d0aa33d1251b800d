"""A base's weights in diffusers' and transformers' own networks, for the arms that vez is held against.

They share the base's memory: nothing is there twice.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from vez.base import Base
from vez.bench import weights


def unet_of(base: Base) -> Any:
    """diffusers' U-Net."""
    with torch.device("meta"):  # no random numbers, no memory
        network = UNet2DConditionModel(**vars(base.unet.config))
    return _filled(network, base.unet)


def text_of(base: Base) -> Any:
    """transformers' text encoder, the first of a base."""
    with torch.device("meta"):
        network = CLIPTextModel(CLIPTextConfig(**vars(base.text_encoder.config)))
    return _filled(network, base.text_encoder)


def vae_of(base: Base) -> Any:
    """diffusers' VAE; random numbers in Stable Diffusion's shapes where the base has none."""
    if base.vae is not None:
        with torch.device("meta"):
            network = AutoencoderKL(**vars(base.vae.config))
        return _filled(network, base.vae)
    with torch.device("meta"):
        network = AutoencoderKL(**weights.VAE)
    network = network.to(base.dtype).to_empty(device=base.device).eval().requires_grad_(False)
    numbers = torch.randn(2**18, generator=torch.Generator().manual_seed(1)).to(base.device, base.dtype)
    weights._fill(network, numbers)
    return network


def _filled(network: Any, ours: nn.Module) -> Any:
    network.load_state_dict(ours.state_dict(), strict=True, assign=True)
    for name, buffer in network.named_buffers():
        if buffer.is_meta:  # in no file: the positions of CLIP's tokens
            parent = network.get_submodule(name.rpartition(".")[0])
            device = next(ours.parameters()).device
            setattr(parent, name.rpartition(".")[2], torch.arange(buffer.shape[-1], device=device).expand(buffer.shape))
    return network.eval().requires_grad_(False)
