"""Families of bases as data: where their attention blocks stand, and what kohya's files call them.

Pure: it reads configurations, not weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vez.errors import BaseModelError

Network = Literal["unet", "text"]
_TRANSFORMER = ("proj_in", "proj_out")
_BLOCK = (
    *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
# A ResNet's modules: diffusers' name, LDM's name, the kernel's side.
_RESNET = (
    ("conv1", "in_layers.2", 3),
    ("time_emb_proj", "emb_layers.1", 1),
    ("conv2", "out_layers.3", 3),
    ("conv_shortcut", "skip_connection", 1),
)
_TEXT_LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Layout:
    """Where the attention blocks of a U-Net and its text encoders stand: all that a LoRA's names depend on.

    ``down`` and ``up`` hold the number of Transformer2DModels per block; ``depth`` the transformer blocks in each of
    them, by down block: the middle has the last one's, the up blocks have them in reverse. ``text_layers`` has one
    number per text encoder.
    """

    down: tuple[int, ...]
    mid: int
    up: tuple[int, ...]
    text_layers: tuple[int, ...]
    depth: tuple[int, ...]
    channels: tuple[int, ...] = field(default=(), compare=False)
    """Of each level, the finest first: a ResNet whose input has others than its output has one convolution more."""

    @property
    def resnets(self) -> int:
        """ResNets of each level on the way down; on the way up there is one more."""
        return max(self.down)

    def blocks(self) -> Iterator[tuple[str, str, str]]:
        """Each ResNet: its block's name in vez.toml, its path in diffusers, its path in LDM."""
        for i in range(len(self.down)):
            for j in range(self.resnets):
                yield (
                    f"down.{i}.{j}",
                    f"down_blocks.{i}.resnets.{j}",
                    f"input_blocks.{1 + i * (self.resnets + 1) + j}.0",
                )
        for j in (0, 1):
            yield f"mid.{2 * j}", f"mid_block.resnets.{j}", f"middle_block.{2 * j}"
        for i in range(len(self.up)):
            for j in range(self.resnets + 1):
                yield f"up.{i}.{j}", f"up_blocks.{i}.resnets.{j}", f"output_blocks.{i * (self.resnets + 1) + j}.0"

    def samplers(self) -> Iterator[tuple[str, str, str]]:
        """Each down- and upsampler's convolution: its block's name, its path in diffusers, its path in LDM."""
        levels, each = len(self.down), self.resnets + 1
        for i in range(levels - 1):
            yield (
                f"down.{i}.{self.resnets}",
                f"down_blocks.{i}.downsamplers.0.conv",
                f"input_blocks.{(i + 1) * each}.0.op",
            )
        for i in range(levels - 1):
            behind = 2 if self.up[i] else 1  # LDM's upsampler stands behind the attention, where there is one
            path = f"output_blocks.{i * each + self.resnets}.{behind}.conv"
            yield f"up.{i}.{self.resnets}", f"up_blocks.{i}.upsamplers.0.conv", path

    def sizes(self) -> Iterator[tuple[int, int, int]]:
        """Each ResNet, as in `blocks`: its level, the channels it takes, the channels it gives."""
        skips, width, last = [self.channels[0]], self.channels[0], len(self.channels) - 1
        for level, out in enumerate(self.channels):
            for _ in range(self.resnets):
                yield level, width, out
                width = out
                skips.append(out)
            if level < last:
                skips.append(out)  # the downsampler's
        yield last, width, width
        yield last, width, width
        for level in range(last, -1, -1):
            for _ in range(self.resnets + 1):
                yield level, width + skips.pop(), self.channels[level]
                width = self.channels[level]

    def block_names(self) -> list[str]:
        """The names that vez.toml has for parts of the U-Net: single ones, levels of them, and down, mid, up."""
        single = sorted({name for name, *_ in (*self.blocks(), *self.samplers())} | {"mid.1"}, key=block_order)
        levels = dict.fromkeys(name.rpartition(".")[0] for name in single)
        return ["down", "mid", "up", *(name for name in levels if "." in name), *single]

    def transformers(self) -> Iterator[tuple[str, str, int, int]]:
        """Each Transformer2DModel: its path in diffusers, its path in LDM, its level (0 is the finest), its depth."""
        resnets, last = self.resnets, len(self.down) - 1
        for i, count in enumerate(self.down):
            for j in range(count):
                entry = 1 + i * (resnets + 1) + j  # conv_in is the first; a level ends with its downsampler
                yield f"down_blocks.{i}.attentions.{j}", f"input_blocks.{entry}.1", i, self.depth[i]
        for j in range(self.mid):
            yield f"mid_block.attentions.{j}", f"middle_block.{j + 1}", last, self.depth[-1]
        for i, count in enumerate(self.up):
            for j in range(count):
                entry = i * (resnets + 1) + j
                yield f"up_blocks.{i}.attentions.{j}", f"output_blocks.{entry}.1", last - i, self.depth[last - i]

    @property
    def unet_modules(self) -> int:
        """Modules of the U-Net that kohya's LoRA adapts: proj_in, proj_out and ten per transformer block."""
        return sum(2 + 10 * depth for *_, depth in self.transformers())

    @property
    def text_modules(self) -> tuple[int, ...]:
        """Modules of each text encoder that it adapts: q, k, v, out, fc1, fc2 of each layer."""
        return tuple(6 * layers for layers in self.text_layers)


@dataclass(frozen=True)
class Family:
    """What all bases of a family share, and how kohya's files name it."""

    name: str
    """"sd1", "sd2", "sdxl"; "tiny" and "tiny-xl": the layouts of SD 1.x and SDXL in sizes of their own."""
    title: str
    """What people call it."""
    version: str
    """kohya's ss_base_model_version."""
    architecture: str
    """modelspec.architecture of a LoRA for it."""
    version_v: str = ""
    """The two for a base of the family that predicts v, where they differ."""
    architecture_v: str = ""
    text_widths: tuple[int, ...] | None = None
    layout: Layout | None = None
    unet_modules: int | None = None
    text_modules: tuple[int, ...] | None = None
    resnet_modules: int | None = None
    """Modules in the U-Net's ResNets and samplers, which a LoRA with a conv rank adapts besides."""
    pooled: bool = False
    """The U-Net also gets a pooled text and the picture's sizes (SDXL's micro-conditioning)."""
    clip_skip: int = 1
    """Which of the text encoder's layers is read, counted from the end."""
    final_norm: bool = True
    """Whether its final layer norm comes after that."""
    latent_scale: float = 0.18215
    size: int = 512
    """Side of the pictures that the published base was trained on."""

    def names(self, prediction_type: str) -> tuple[str, str]:
        """ss_base_model_version and modelspec.architecture of a LoRA for a base that predicts this."""
        v = prediction_type == "v_prediction"
        return (v and self.version_v) or self.version, (v and self.architecture_v) or self.architecture


_SD1: dict[str, Any] = {"version": "sd_v1", "architecture": "stable-diffusion-v1/lora"}
_SD2: dict[str, Any] = {
    "version": "sd_v2",
    "architecture": "stable-diffusion-v2-512/lora",
    "version_v": "sd_v2_v",
    "architecture_v": "stable-diffusion-v2-768-v/lora",
}
_SDXL: dict[str, Any] = {
    "version": "sdxl_base_v1-0",
    "architecture": "stable-diffusion-xl-v1-base/lora",
    "pooled": True,
    "clip_skip": 2,
    "final_norm": False,
    "latent_scale": 0.13025,
    "size": 1024,
}
# Counts as logged by kohya's trainer (SD 1.x: "192 modules", "72 modules"); None: any, by the rule of `Layout`.
FAMILIES = {
    "sd1": Family(
        "sd1",
        "Stable Diffusion 1.x",
        **_SD1,
        text_widths=(768,),
        layout=Layout((2, 2, 2, 0), 1, (0, 3, 3, 3), (12,), (1, 1, 1, 1), (320, 640, 1280, 1280)),
        unet_modules=192,
        text_modules=(72,),
        resnet_modules=86,
    ),
    "sd2": Family(
        "sd2",
        "Stable Diffusion 2.x",
        **_SD2,
        text_widths=(1024,),
        layout=Layout((2, 2, 2, 0), 1, (0, 3, 3, 3), (23,), (1, 1, 1, 1), (320, 640, 1280, 1280)),
        unet_modules=192,
        text_modules=(138,),
        resnet_modules=86,
    ),
    "sdxl": Family(
        "sdxl",
        "Stable Diffusion XL",
        **_SDXL,
        text_widths=(768, 1280),
        layout=Layout((0, 2, 2), 1, (3, 3, 0), (12, 32), (1, 2, 10), (320, 640, 1280)),
        unet_modules=722,
        text_modules=(72, 192),
        resnet_modules=66,
    ),
    "tiny": Family("tiny", "a small base of SD 1.x layout", **_SD1),
    "tiny-xl": Family("tiny-xl", "a small base of SDXL layout", **_SDXL),
}


@dataclass(frozen=True)
class Target:
    """A module that a LoRA adapts: in which network, and its path there (diffusers' names; without `text_model.`).

    ``encoder`` says which text encoder; ``ldm`` is the path of a U-Net's module in a single file (CompVis' names).
    ``block`` is the part of the U-Net it stands in (`Layout.block_names`), ``resnet`` whether in a ResNet or sampler,
    ``kernel`` the side of a convolution's kernel there.
    """

    network: Network
    path: str
    encoder: int = 0
    ldm: str = ""
    block: str = ""
    resnet: bool = False
    kernel: int = 1


def numbered_blocks(*, xl: bool) -> list[str]:
    """The blocks that kohya's 25 numbers (SDXL: 23) are about, in their order; "" for what holds no LoRA."""
    down, up = ([f"{part}.{n // 3}.{n % 3}" for n in range(12)] for part in ("down", "up"))
    return ["", "", *down[:8], "mid.0", "mid.1", "mid.2", *up[:9], ""] if xl else ["", *down[:11], "mid", *up]


def block_order(name: str) -> tuple[int, tuple[int, ...]]:
    """Sorts names of blocks as the picture goes through them."""
    part, *numbers = name.split(".")
    return ("down", "mid", "up").index(part), tuple(map(int, numbers))


def kohya_keys(layout: Layout, *, resnets: bool = False) -> dict[str, Target]:
    """Every module that kohya's LoRA adapts, by its name in the file; text encoders first, in kohya's order.

    ``resnets``: those that it adapts with a conv_dim too; the U-Net's then come block by block. A base with two text
    encoders (SDXL) has lora_te1_, lora_te2_ and the U-Net's LDM names; others have lora_te_ and diffusers' names.
    """
    xl = len(layout.text_layers) > 1
    keys = {}
    for encoder, layers in enumerate(layout.text_layers):
        prefix = f"lora_te{encoder + 1}_" if xl else "lora_te_"
        for i in range(layers):
            for name in _TEXT_LAYER:
                path = f"encoder.layers.{i}.{name}"
                keys[f"{prefix}text_model_" + path.replace(".", "_")] = Target("text", path, encoder)
    found = [*_transformer_targets(layout), *(_resnet_targets(layout) if resnets else ())]
    for target in sorted(found, key=lambda t: block_order(t.block)) if resnets else found:
        keys["lora_unet_" + (target.ldm if xl else target.path).replace(".", "_")] = target
    return keys


def _transformer_targets(layout: Layout) -> Iterator[Target]:
    for path, ldm, _, depth in layout.transformers():
        numbers = [part for part in path.split(".") if part.isdigit()]
        block = "mid.1" if path.startswith("mid") else ".".join([path.partition("_")[0], *numbers])
        inner = [f"transformer_blocks.{d}.{name}" for d in range(depth) for name in _BLOCK]
        for name in ("proj_in", *inner, "proj_out"):
            yield Target("unet", f"{path}.{name}", ldm=f"{ldm}.{name}", block=block)


def _resnet_targets(layout: Layout) -> Iterator[Target]:
    for (block, path, ldm), (_, inner, out) in zip(layout.blocks(), layout.sizes(), strict=True):
        for name, theirs, kernel in _RESNET:
            if name != "conv_shortcut" or inner != out:
                yield Target("unet", f"{path}.{name}", 0, f"{ldm}.{theirs}", block, resnet=True, kernel=kernel)
    for block, path, ldm in layout.samplers():
        yield Target("unet", path, 0, ldm, block, resnet=True, kernel=3)


def layout_of(unet: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> Layout:
    """Count the Transformer2DModels of each block from the configuration's block lists."""
    down, up = unet.get("down_block_types", ()), unet.get("up_block_types", ())
    layers, depth = unet.get("layers_per_block", 2), unet.get("transformer_layers_per_block", 1)
    depths = tuple(depth) if isinstance(depth, list | tuple) else (depth,) * len(down)
    counts = {"CrossAttnDownBlock2D": 0, "DownBlock2D": 0, "CrossAttnUpBlock2D": 1, "UpBlock2D": 0}
    unknown = [kind for kind in (*down, *up) if kind not in counts]
    mid = unet.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    numbers = isinstance(layers, int) and all(isinstance(d, int) for d in depths)
    if unknown or mid != "UNetMidBlock2DCrossAttn" or not numbers or len(depths) != len(down) or not down:
        what = unknown[0] if unknown else f"mid_block_type {mid}, layers_per_block {layers}, depth {depth}"
        raise BaseModelError(f"this U-Net is built in a way vez does not know ({what}); SD 1.x, 2.x and XL are known")
    per_block = [layers + counts[kind] if kind.startswith("CrossAttn") else 0 for kind in (*down, *up)]
    text_layers = tuple(int(text.get("num_hidden_layers", 12)) for text in texts)
    channels = tuple(int(c) for c in unet.get("block_out_channels", ()))
    return Layout(tuple(per_block[: len(down)]), 1, tuple(per_block[len(down) :]), text_layers, depths, channels)


def family_of(unet: Mapping[str, Any], texts: Sequence[Mapping[str, Any]], layout: Layout) -> Family:
    """The family by layout and widths; what only resembles one in its building blocks is "tiny" or "tiny-xl"."""
    if unet.get("in_channels", 4) != 4:
        raise BaseModelError(
            f"this U-Net takes {unet['in_channels']} channels, not 4: "
            "inpainting and video models cannot be trained here"
        )
    addition = unet.get("addition_embed_type")
    if addition not in (None, "text_time") or (addition == "text_time") != (len(texts) == 2):
        raise BaseModelError(
            f"this U-Net's additional conditioning is {addition!r} beside {len(texts)} text encoder(s); vez knows SDXL "
            "bases with two and SD 1.x and 2.x ones with one (the SDXL refiner is not for training)"
        )
    widths = tuple(int(text.get("hidden_size", 0)) for text in texts)
    if unet.get("cross_attention_dim") != sum(widths):
        raise BaseModelError(
            f"the U-Net expects text of width {unet.get('cross_attention_dim')}, but the text encoder gives "
            f"{sum(widths)}; these two do not belong together"
        )
    for family in FAMILIES.values():
        if family.layout == layout and family.text_widths == widths:
            return family
    return FAMILIES["tiny-xl" if addition else "tiny"]
