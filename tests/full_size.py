"""The published bases' networks in full, without a number in them: their configurations are facts."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ldm_files import Kind, Small
from small_words import make_tokenizer

_SD: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {
        **_SD,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
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
_L: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_H: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_TEXTS = {"sd1": [_L], "sd2": [_H], "sdxl": [_L, _G]}
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def empty(kind: Kind) -> Small:
    """The family's networks on the meta device."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    with init_empty_weights():
        return Small(
            kind,
            UNet2DConditionModel(**_UNETS[kind]),
            AutoencoderKL(**_VAE),
            tuple(kinds[n](CLIPTextConfig(**config)) for n, config in enumerate(_TEXTS[kind])),
        )


def random_tensor(name: str, like: Tensor, numbers: Tensor) -> Tensor:
    """fp16 numbers that keep values near 1: of deviation 1/√inputs; norms are 1 and biases 0. ``numbers`` repeated."""
    if like.dim() < 2:
        return torch.full(like.shape, float(name.endswith("weight")), dtype=torch.float16)
    spread = 0.02 if "embedding" in name and "linear" not in name else like[0].numel() ** -0.5
    return (numbers * spread).half().repeat(like.numel() // len(numbers) + 1)[: like.numel()]


def write_random(path: Path, shapes: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file of random numbers, written tensor by tensor: only one is in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name, like in shapes.items():
        start, end = end, end + 2 * like.numel()
        header[name] = {"dtype": "F16", "shape": list(like.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, like in shapes.items():
            out.write(random_tensor(name, like, numbers).numpy().tobytes())


def write_folder(kind: Kind, folder: Path) -> Path:
    """The family's base in diffusers' layout with random numbers in fp16 (2 to 7 GB), under the published names."""
    networks = empty(kind)
    for part, network in (("unet", networks.unet), ("vae", networks.vae)):
        network.save_config(folder / part)
        write_random(folder / part / "diffusion_pytorch_model.safetensors", network.state_dict())
    for n, encoder in enumerate(networks.texts):
        end = "" if n == 0 else "_2"
        shapes = encoder.state_dict()
        published = {k if k.startswith(("text_model.", "text_proj")) else f"text_model.{k}": shapes[k] for k in shapes}
        encoder.config.save_pretrained(folder / f"text_encoder{end}")
        write_random(folder / f"text_encoder{end}" / "model.safetensors", published)
        make_tokenizer(folder / f"tokenizer{end}")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    return folder
