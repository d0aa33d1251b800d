"""The published bases' networks in full, without a number in them, as diffusers and transformers build them."""

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
from vez.bench.weights import TEXTS, UNETS, VAE


def empty(kind: Kind) -> Small:
    """The family's networks on the meta device."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    with init_empty_weights():
        return Small(
            kind,
            UNet2DConditionModel(**UNETS[kind]),
            AutoencoderKL(**VAE),
            tuple(kinds[n](CLIPTextConfig(**config)) for n, config in enumerate(TEXTS[kind])),
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
