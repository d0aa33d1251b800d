"""LoRAs for the tests of this folder: random ones by shapes, in any layout."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vez.family import FAMILIES, kohya_keys
from vez.files.names import Place, from_kohya
from vez.files.reading import FamilyName, LoraFile
from vez.interop import LoraWeights

TO_Q = Place("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
TO_K = Place("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
PROJ_IN = Place("unet", "down_blocks.0.attentions.0.proj_in")
CONV = Place("unet", "down_blocks.0.resnets.0.conv1")
FC1 = Place("text", "encoder.layers.0.mlp.fc1")
Q_PROJ = Place("text", "encoder.layers.0.self_attn.q_proj")
SHAPES: dict[Place, tuple[int, ...]] = {
    TO_Q: (8, 8),
    TO_K: (8, 12),
    PROJ_IN: (8, 8, 1, 1),
    CONV: (16, 8, 3, 3),
    FC1: (24, 12),
    Q_PROJ: (12, 12),
}


def weights(shape: tuple[int, ...], rank: int, alpha: float, generator: torch.Generator) -> LoraWeights:
    down = torch.randn(rank, *shape[1:], generator=generator) / 3
    up = torch.randn(shape[0], rank, *([1, 1] if len(shape) == 4 else []), generator=generator) / 3
    return LoraWeights(down, up, alpha)


def small(*, ranks: Mapping[Place, int] | None = None, alpha: float = 2.0, seed: int = 0) -> LoraFile:
    """Six modules: attention, a 1×1 and a 3×3 convolution, two of a text encoder; rank 4 where none is given."""
    generator = torch.Generator().manual_seed(seed)
    ranks = ranks or {}
    modules = {place: weights(shape, ranks.get(place, 4), alpha, generator) for place, shape in SHAPES.items()}
    metadata = {"ss_output_name": "v1", "ss_base_model_version": "sd_v1", "modelspec.title": "v1"}
    return LoraFile(dict(sorted(modules.items())), metadata, "tiny", "kohya", torch.float32)


def zeros(family: FamilyName, rank: int, alpha: float) -> LoraFile:
    """Every module that kohya adapts in a published base of the family, in its true shapes; all zero."""
    layout = FAMILIES[family].layout
    assert layout is not None
    modules = {}
    for name in kohya_keys(layout):
        found = from_kohya(name)
        assert found is not None
        place = found[0]
        shape = true_shape(place, family)
        conv = family == "sd1" and place.path.endswith(("proj_in", "proj_out"))
        ones = (1, 1) if conv else ()
        modules[place] = LoraWeights(torch.zeros(rank, shape[1], *ones), torch.zeros(shape[0], rank, *ones), alpha)
    return LoraFile(modules, {}, family, "kohya", torch.float16)


def true_shape(place: Place, family: FamilyName) -> tuple[int, int]:
    """(out, in) of a module of SD 1.5, SD 2.1 or SDXL, from their published configurations."""
    if place.network != "unet":
        width = 1280 if place.network == "text2" else 1024 if family == "sd2" else 768
        return {"fc1": (4 * width, width), "fc2": (width, 4 * width)}.get(place.path[-3:], (width, width))
    widths = (320, 640, 1280) if family == "sdxl" else (320, 640, 1280, 1280)
    block = place.path.split(".")
    level = int(block[1]) if block[0] == "down_blocks" else -1 if block[0] == "mid_block" else -1 - int(block[1])
    width = widths[level]
    text = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family]
    if place.path.endswith(("attn2.to_k", "attn2.to_v")):
        return width, text
    if place.path.endswith("ff.net.0.proj"):
        return 8 * width, width
    return (width, 4 * width) if place.path.endswith("ff.net.2") else (width, width)


def deltas(lora: LoraFile) -> dict[Place, Tensor]:
    return {place: weights.delta() for place, weights in lora.modules.items()}


def same(a: LoraFile, b: LoraFile, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """What two LoRAs add is the same, module by module."""
    assert a.modules.keys() == b.modules.keys()
    for place, delta in deltas(a).items():
        torch.testing.assert_close(b.modules[place].delta(), delta, rtol=rtol, atol=atol)


def header_size(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")
