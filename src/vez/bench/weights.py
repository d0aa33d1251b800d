"""Bases of random numbers in the shapes of real ones, built in memory."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vez.base import Base, Schedule, load
from vez.base.model import TextNetwork
from vez.config import Quantize
from vez.errors import ConfigError
from vez.family import FAMILIES, layout_of
from vez.nets.clip import ProjectedTextEncoder, TextConfig, TextEncoder
from vez.nets.coded import code, coded_modules
from vez.nets.unet import UNet, UNetConfig

# The configurations that the published bases have in diffusers' layout (v1-5, 2-1, xl-base-1.0).
_CHANNELS = (320, 640, 1280, 1280)
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": _CHANNELS, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        "block_out_channels": _CHANNELS,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": _CHANNELS[:3],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


def _text(width: int, layers: int, *, act: str, projection: int | None = None) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
    return sizes | {"num_hidden_layers": layers, "hidden_act": act, "projection_dim": projection or width}


_CLIP_L = _text(768, 12, act="quick_gelu")
TEXTS: dict[str, tuple[dict[str, Any], ...]] = {
    "sd1": (_CLIP_L,),
    "sd2": (_text(1024, 23, act="gelu"),),
    "sdxl": (_CLIP_L, _text(1280, 32, act="gelu", projection=1280)),
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_REPEATED = 2**18  # random numbers drawn; the weights repeat them, since drawing 900 million takes half a minute


def random_base(shape: str, *, device: torch.device, dtype: torch.dtype, quantize: Quantize = "none") -> Base:
    """A frozen base: "tiny" as it is shipped; "sd1", "sd2" or "sdxl", random in that family's shapes.

    The random ones have no VAE and no tokenizer: a training step meets neither. Raises ConfigError for another name.
    """
    if shape == "tiny":
        return load("tiny", device=device, dtype=dtype, quantize=quantize)
    if shape not in UNETS:
        raise ConfigError(f"there is no shape {shape!r} to measure; take tiny, {', '.join(UNETS)}")
    family = FAMILIES[shape]
    config = UNetConfig.of({"sample_size": family.size // 8, **UNETS[shape]})
    texts = [TextConfig.of(text) for text in TEXTS[shape]]
    with torch.device("meta"):
        unet = UNet(config)
        encoders: tuple[TextNetwork, ...] = (TextEncoder(texts[0]), *(ProjectedTextEncoder(text) for text in texts[1:]))
    numbers = torch.randn(_REPEATED, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    for network in (unet, *encoders):
        if quantize == "int8":
            code(network)
        network.to(dtype).to_empty(device=device)
        _fill(network.eval().requires_grad_(False), numbers)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return Base(
        name=f"random {shape}",
        path=Path(shape),
        family=family,
        layout=layout_of(vars(config), [vars(text) for text in texts]),
        unet=unet,
        vae=None,
        text_encoders=encoders,
        tokenizers=(),
        pads=(0,) * len(encoders),
        schedule=Schedule(betas, torch.cumprod(1.0 - betas, dim=0), "epsilon").on(device),
        size=family.size,
        device=device,
        dtype=dtype,
        latent_scale=family.latent_scale,
        latent_factor=8,
        weights={},
        files=(),
        clip_skip=family.clip_skip,
        quantize=quantize,
    )


@torch.no_grad()
def _fill(network: nn.Module, numbers: Tensor) -> None:
    """Gaussian weights of deviation 1/√inputs; a norm's weights 1 and every bias 0, so that values stay of size 1."""
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        _gaussian_(parameter, numbers)
    for module in coded_modules(network):
        weight = numbers.new_empty(module.shape)
        _gaussian_(weight, numbers)
        module.take(weight)


def _gaussian_(weight: Tensor, numbers: Tensor) -> None:
    scaled = numbers / math.sqrt(weight[0].numel())
    for piece in torch.split(weight.view(-1), len(scaled)):
        piece.copy_(scaled[: len(piece)])
