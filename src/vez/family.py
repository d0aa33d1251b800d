"""Families of bases as data: where their attention blocks stand, and what kohya's files call them.

Pure: it reads configurations, not weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vez.errors import BaseModelError


@dataclass(frozen=True)
class Layout:
    """Where the attention blocks of a U-Net and a text encoder stand: all that a LoRA's names depend on.

    ``down`` and ``up`` hold the number of Transformer2DModels per block, ``depth`` the transformer blocks in each.
    """

    down: tuple[int, ...]
    mid: int
    up: tuple[int, ...]
    text_layers: int
    depth: int = 1

    @property
    def unet_modules(self) -> int:
        """Modules of the U-Net that kohya's LoRA adapts: proj_in, proj_out and ten per transformer block."""
        return (sum(self.down) + self.mid + sum(self.up)) * (2 + 10 * self.depth)

    @property
    def text_modules(self) -> int:
        """Modules of the text encoder that it adapts: q, k, v, out, fc1, fc2 of each layer."""
        return 6 * self.text_layers


@dataclass(frozen=True)
class Family:
    """What all bases of a family share, and how kohya's files name it."""

    name: str
    """"sd1", "sd2", or "tiny": the layout of SD 1.x in sizes of its own."""
    version: str
    """kohya's ss_base_model_version."""
    architecture: str
    """modelspec.architecture of a LoRA for it."""
    text_width: int | None = None
    layout: Layout | None = None
    unet_modules: int | None = None
    text_modules: int | None = None


# Counts as logged by kohya's trainer (SD 1.x: "192 modules", "72 modules"); None: any, by the rule of `Layout`.
FAMILIES = {
    "sd1": Family("sd1", "sd_v1", "stable-diffusion-v1/lora", 768, Layout((2, 2, 2, 0), 1, (0, 3, 3, 3), 12), 192, 72),
    "sd2": Family(
        "sd2", "sd_v2", "stable-diffusion-v2/lora", 1024, Layout((2, 2, 2, 0), 1, (0, 3, 3, 3), 23), 192, 138
    ),
    "tiny": Family("tiny", "sd_v1", "stable-diffusion-v1/lora"),
}


def layout_of(unet: Mapping[str, Any], text: Mapping[str, Any]) -> Layout:
    """Count the Transformer2DModels of each block from the configuration's block lists."""
    down, up = unet.get("down_block_types", ()), unet.get("up_block_types", ())
    layers, depth = unet.get("layers_per_block", 2), unet.get("transformer_layers_per_block", 1)
    counts = {"CrossAttnDownBlock2D": 0, "DownBlock2D": 0, "CrossAttnUpBlock2D": 1, "UpBlock2D": 0}
    unknown = [kind for kind in (*down, *up) if kind not in counts]
    mid = unet.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if unknown or mid != "UNetMidBlock2DCrossAttn" or not isinstance(layers, int) or not isinstance(depth, int):
        what = unknown[0] if unknown else f"mid_block_type {mid}, layers_per_block {layers}, depth {depth}"
        raise BaseModelError(f"this U-Net is built in a way vez does not know ({what}); SD 1.x and SD 2.x are known")
    per_block = [layers + counts[kind] if kind.startswith("CrossAttn") else 0 for kind in (*down, *up)]
    return Layout(
        tuple(per_block[: len(down)]), 1, tuple(per_block[len(down) :]), int(text.get("num_hidden_layers", 12)), depth
    )


def family_of(unet: Mapping[str, Any], text: Mapping[str, Any], layout: Layout) -> Family:
    """The family by layout and width; what only resembles SD 1.x in its building blocks is "tiny"."""
    if unet.get("in_channels") != 4:
        raise BaseModelError(
            f"this U-Net takes {unet.get('in_channels')} channels, not 4: "
            "inpainting and video models cannot be trained here"
        )
    if unet.get("addition_embed_type") is not None:
        raise BaseModelError("this is an SDXL base, which vez cannot train yet; take an SD 1.x or SD 2.x one")
    width = unet.get("cross_attention_dim")
    if width != text.get("hidden_size"):
        raise BaseModelError(
            f"the U-Net expects text of width {width}, but the text encoder gives {text.get('hidden_size')}; "
            "these two do not belong together"
        )
    for family in FAMILIES.values():
        if family.layout == layout and family.text_width == width:
            return family
    return FAMILIES["tiny"]
