"""What a base and a training step take up in memory, from the base's configurations alone. Loads no model, no torch.

peak = program + weights + LoRAs + step, where

- program: the interpreter and the libraries, before any weight is loaded.
- weights: U-Net and text encoders in the precision of the run, the VAE in fp32. Kept as int8 (`vez.nets.coded`): a byte
  for each number of a linear layer or convolution inside their blocks, and the largest of these as it is computed with.
- LoRAs: parameters, gradients and AdamW's two moments, fp32: 16 bytes per parameter. Ranks of variants that train side
  by side are padded to the largest.
- step: what the forward pass keeps for the backward one (`vez.base.lean`), per sample and variant, times `SPREAD` for
  what is alive for a moment only and for what the allocator cannot give back. A ResNet block keeps in + out numbers per
  pixel of its level; a transformer block `KEPT` per pixel and channel, and a rank per adapted module; a text encoder's
  layer `KEPT_TEXT` per token and channel. With checkpointing, what is computed again keeps its input, and the largest
  such block is there once. Besides: copies of the largest convolution's weights, which a CPU's library makes for a
  moment, and what tokens take of each other where a CPU's attention keeps it (`shares`).

The counts of what is kept are read off the networks (`torch.autograd.graph.saved_tensors_hooks`); SPREAD and program
are fitted to measured peaks on a CPU. tests/test_room.py and bench/results hold predictions against measurements.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vez import ldm
from vez.config import Checkpointing, Quantize
from vez.errors import ConfigError
from vez.family import Layout, Target, kohya_keys, layout_of
from vez.shape import LoraSpec, modules_of

PROGRAM = 300e6
SPREAD = 1.7
KEPT, KEPT_TEXT, AROUND = 19, 13, 2  # AROUND: a transformer block, what its projections keep
COPIES = 2  # of a convolution's weights
TOKENS = 77
SHARES, SHARES_PIXELS = 8 * 2**20, 256  # bytes that one attention keeps at most; side of pictures it is so up to
FULL = 4  # bytes of an fp32 number
STATE_NUMBERS = 4  # a LoRA parameter, its gradient, two moments
_MODULES = 12  # of a transformer with one block that hold a LoRA
# Sizes of Stable Diffusion 1.x, for a base whose own configuration is not on this machine yet.
_SD1_UNET: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_SD1_TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_SD_VAE: dict[str, Any] = {"block_out_channels": [128, 256, 512, 512]}
_VAE_PER_SQUARE = 138  # parameters of Stable Diffusion's VAE (83.65 million) per sum of its squared channels
FACTOR = 8  # pixels per latent cell along a side


@dataclass(frozen=True)
class Sizes:
    """A base's configurations: its U-Net's, its text encoders', its VAE's. ``assumed``: taken to be SD 1.x's."""

    unet: Mapping[str, Any]
    texts: tuple[Mapping[str, Any], ...]
    vae: Mapping[str, Any]
    assumed: bool = False

    @property
    def layout(self) -> Layout:
        """Where its attention blocks stand."""
        return layout_of(self.unet, list(self.texts))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the U-Net's levels, the finest first."""
        return tuple(int(c) for c in self.unet["block_out_channels"])


def sizes_of(base: Path | None) -> Sizes:
    """The sizes of a base in diffusers' layout or in a single .safetensors file; None: taken to be SD 1.x's.

    So is a file that would have to be unpickled. Raises ConfigError, BaseModelError.
    """
    if base is None or (base.is_file() and base.suffix != ".safetensors"):
        return Sizes(_SD1_UNET, (_SD1_TEXT,), _SD_VAE, assumed=True)
    if base.is_file():
        shapes, _ = ldm.header_of(base)
        contents = ldm.contents_of(shapes, name=base.name)
        return Sizes(contents.unet, tuple(text for _, text in contents.texts), contents.vae or _SD_VAE)
    try:
        texts = [name for name in ("text_encoder", "text_encoder_2") if (base / name).is_dir()] or ["text_encoder"]
        unet, *rest = (json.loads((base / part / "config.json").read_bytes()) for part in ("unet", *texts))
        own = base / "vae" / "config.json"  # another VAE may have been asked for
        vae = json.loads(own.read_bytes()) if own.exists() else _SD_VAE
        if not all(isinstance(config, dict) for config in (unet, vae, *rest)):
            raise ValueError("a configuration is no table")
        return Sizes(unet, tuple(rest), vae)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the base {base} is not a Stable Diffusion base that can be read ({error})") from error


def unet_parameters(sizes: Sizes) -> int:
    """Parameters of the U-Net (SD 1.x: 859,520,964; SDXL: 2,567,463,684)."""
    channels, d = sizes.channels, int(sizes.unet["cross_attention_dim"])
    first, time = channels[0], 4 * channels[0]
    total: int = 9 * 4 * first + first + first * time + time + time * time + time  # conv_in, time embedding
    total += 2 * first + 9 * 4 * first + 4  # conv_norm_out, conv_out
    pooled = int(sizes.unet.get("projection_class_embeddings_input_dim") or 0)
    if pooled:
        total += pooled * time + time + time * time + time
    for _, inner, out in sizes.layout.sizes():
        total += 2 * inner + 9 * inner * out + out + time * out + out + 2 * out + 9 * out * out + out
        total += inner * out + out if inner != out else 0
    for *_, level, depth in sizes.layout.transformers():
        c: int = channels[level]
        total += 2 * c + 2 * (c * c + c) + depth * (6 * c + 6 * c * c + 2 * d * c + 2 * c + 12 * c * c + 9 * c)
    return total + sum(9 * c * c + c for c in (*channels[:-1], *channels[1:]))  # down- and upsamplers


def text_parameters(sizes: Sizes) -> int:
    """Parameters of the text encoders (CLIP-L: 123,060,480)."""
    total = 0
    for text in sizes.texts:
        w, f = int(text["hidden_size"]), int(text["intermediate_size"])
        layer = 4 * (w * w + w) + 2 * w * f + f + w + 4 * w
        total += (int(text.get("vocab_size", 49408)) + TOKENS) * w + int(text["num_hidden_layers"]) * layer + 2 * w
        total += w * int(text.get("projection_dim", 0)) if len(sizes.texts) > 1 and text is sizes.texts[-1] else 0
    return total


def coded_parameters(sizes: Sizes) -> int:
    """Those of U-Net and text encoders that int8 keeps in a byte each: weights inside their blocks."""
    channels, d = sizes.channels, int(sizes.unet["cross_attention_dim"])
    total = sum(9 * c * c for c in (*channels[:-1], *channels[1:]))
    for _, inner, out in sizes.layout.sizes():
        total += 9 * inner * out + 9 * out * out + 4 * channels[0] * out + (inner * out if inner != out else 0)
    for *_, level, depth in sizes.layout.transformers():
        c = channels[level]
        total += 2 * c * c + depth * (18 * c * c + 2 * d * c)
    for text in sizes.texts:
        w, f = int(text["hidden_size"]), int(text["intermediate_size"])
        total += int(text["num_hidden_layers"]) * (4 * w * w + 2 * w * f)
    return total


def vae_parameters(sizes: Sizes) -> int:
    """Parameters of the VAE, about."""
    return _VAE_PER_SQUARE * sum(int(c) ** 2 for c in sizes.vae["block_out_channels"])


def lora_parameters(sizes: Sizes) -> tuple[int, int]:
    """LoRA parameters per unit of rank: of the U-Net, of the text encoders.

    A LoRA of rank r on a module in → out has r·(in + out) parameters. Per Transformer2DModel of width c, text width d:
    proj_in and proj_out 4c; and per block in it: self-attention 8c; cross-attention q and out 4c, k and v 2(d + c);
    feed-forward c + 8c (gated) and 4c + c. Per layer of a text encoder: q, k, v, out 8w; fc1 and fc2 2(w + f).
    """
    d = int(sizes.unet["cross_attention_dim"])
    found = [(sizes.channels[level], depth) for *_, level, depth in sizes.layout.transformers()]
    unet = sum(4 * c + depth * (26 * c + 2 * (d + c)) for c, depth in found)
    text = 0
    for one in sizes.texts:
        w, f = int(one["hidden_size"]), int(one["intermediate_size"])
        text += int(one["num_hidden_layers"]) * (8 * w + 2 * (w + f))
    return unet, text


def module_sizes(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """(inputs, times a kernel's cells; outputs) of every module that a LoRA can adapt, by kohya's name."""
    layout = sizes.layout
    inside = {path: size for (_, path, _), (_, *size) in zip(layout.blocks(), layout.sizes(), strict=True)}
    return {key: _module_size(sizes, target, inside) for key, target in kohya_keys(layout, resnets=True).items()}


def _module_size(sizes: Sizes, target: Target, inside: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    path = target.path
    if target.network == "text":
        text = sizes.texts[target.encoder]
        w, f = int(text["hidden_size"]), int(text["intermediate_size"])
        return {"fc1": (w, f), "fc2": (f, w)}.get(path.rpartition(".")[2], (w, w))
    if path.rpartition(".")[0] in inside:  # a ResNet's
        inner, out = inside[path.rpartition(".")[0]]
        name = path.rpartition(".")[2]
        return {
            "conv1": (9 * inner, out),
            "conv2": (9 * out, out),
            "time_emb_proj": (4 * sizes.channels[0], out),
        }.get(name, (inner, out))
    part, *numbers = target.block.split(".")
    c = sizes.channels[{"down": int(numbers[0]), "mid": -1, "up": -1 - int(numbers[0])}[part]]
    if target.resnet:
        return 9 * c, c  # a sampler
    d = int(sizes.unet["cross_attention_dim"])
    ends = {"attn2.to_k": (d, c), "attn2.to_v": (d, c), "ff.net.0.proj": (c, 8 * c), "ff.net.2": (4 * c, c)}
    return next((size for end, size in ends.items() if path.endswith(end)), (c, c))


def lora_numbers(sizes: Sizes, *specs: LoraSpec) -> int:
    """LoRA parameters of one row of the flat buffers that hold these shapes side by side: ranks padded to the largest.

    Of one shape, its own. Raises ConfigError where it names a block that the base lacks.
    """
    ranks: dict[str, int] = {}
    for spec in specs:
        for key, (_, part) in modules_of(sizes.layout, spec).items():
            ranks[key] = max(part.rank, ranks.get(key, 0))
    widths = module_sizes(sizes)
    return sum(rank * sum(widths[key]) for key, rank in ranks.items())


def kept_numbers(
    sizes: Sizes,
    *,
    side: int,
    rank: int,
    text: bool,
    specs: Sequence[LoraSpec] = (),
    checkpointing: Checkpointing = "none",
) -> float:
    """Numbers that one sample's forward pass keeps; and the largest block that is computed again, which is kept then.

    ``side`` of the picture in pixels; ``text``: the text encoders are trained too; ``rank`` of a LoRA that adapts no
    ResNet, or ``specs``, the shapes that lie side by side: then a place has the largest of their ranks there.
    """
    linear, convs = _ranks(sizes.layout, specs)
    area = [(side // FACTOR / 2**level) ** 2 for level in range(len(sizes.channels))]
    again = [0.0]
    total = 0.0
    for (_, path, _), (level, inner, out) in zip(sizes.layout.blocks(), sizes.layout.sizes(), strict=True):
        conv_rank = convs.get(path, 0)
        adapted = 2 if conv_rank else 1  # a LoRA on a convolution keeps its input, which else is made again
        block = area[level] * (adapted * (inner + out) + 2 * conv_rank)
        total += area[level] * inner if checkpointing == "whole" else block
        again += [block] if checkpointing == "whole" else []
    for path, _, level, depth in sizes.layout.transformers():
        pixels, c = area[level], sizes.channels[level]
        block = pixels * (KEPT * c + _MODULES * (linear.get(path, 0) if specs else rank))
        total += {
            "none": depth * block,
            "selective": pixels * c * (depth + AROUND),
            "whole": pixels * c,
        }[checkpointing]
        again += {"none": [], "selective": [block], "whole": [depth * block]}[checkpointing]
    if text:
        per = KEPT_TEXT if checkpointing == "none" else 1
        total += sum(int(t["num_hidden_layers"]) * TOKENS * per * int(t["hidden_size"]) for t in sizes.texts)
    return total + max(again)


def shares(
    sizes: Sizes, *, side: int, rows: int, number_bytes: int, text: bool, checkpointing: Checkpointing = "none"
) -> float:
    """Bytes of attention's matrices that a CPU keeps for the backward pass, of ``rows`` samples × variants together.

    Each of T tokens has a share of each of S, in every head; a matrix of more than `SHARES` bytes is made again. In
    fp32, and of larger pictures, PyTorch's fused attention keeps none.
    """
    if side > SHARES_PIXELS or number_bytes == FULL:
        return 0.0
    heads = sizes.unet.get("attention_head_dim", 8)
    blocks: list[float] = []
    for *_, level, depth in sizes.layout.transformers():
        pixels = (side // FACTOR / 2**level) ** 2
        each = heads if isinstance(heads, int) else heads[level]
        kept = [number_bytes * rows * each * pixels * keys for keys in (pixels, TOKENS)]
        blocks += [sum(one for one in kept if one <= SHARES)] * depth
    if checkpointing != "none":
        return max(blocks, default=0.0)
    for one in sizes.texts if text else ():
        kept_here = number_bytes * rows * int(one["num_attention_heads"]) * TOKENS**2
        blocks += [kept_here if kept_here <= SHARES else 0.0] * int(one["num_hidden_layers"])
    return sum(blocks)


def _ranks(layout: Layout, specs: Sequence[LoraSpec]) -> tuple[dict[str, int], dict[str, int]]:
    """The largest rank of the shapes in each transformer and on the convolutions of each ResNet, by diffusers' path."""
    linear: dict[str, int] = {}
    convs: dict[str, int] = {}
    transformers = [path for path, *_ in layout.transformers()]
    for spec in specs:
        for target, part in modules_of(layout, spec).values():
            if target.network != "unet":
                continue
            if target.resnet and target.kernel > 1:
                path = target.path.rpartition(".")[0]
                convs[path] = max(part.rank, convs.get(path, 0))
            elif not target.resnet:
                path = next(path for path in transformers if target.path.startswith(f"{path}."))
                linear[path] = max(part.rank, linear.get(path, 0))
    return linear, convs


@dataclass(frozen=True)
class Memory:
    """The parts of a predicted peak, in bytes."""

    program: float
    weights: float
    loras: float
    step: float

    @property
    def peak(self) -> float:
        """All of them."""
        return self.program + self.weights + self.loras + self.step


def memory(
    sizes: Sizes,
    *,
    side: int,
    batch: int,
    ranks: Sequence[int],
    number_bytes: int,
    on_cpu: bool = True,
    unet: bool = True,
    text: bool = True,
    vae: bool = True,
    specs: Sequence[LoraSpec] = (),
    checkpointing: Checkpointing = "none",
    quantize: Quantize = "none",
) -> Memory:
    """The predicted peak of a run of ``len(ranks)`` variants side by side.

    ``specs``: their shapes, where modules differ in rank; absent: all have their variant's, and no ResNet is adapted.
    Raises ConfigError for a shape that this base cannot have.

    ``number_bytes``: 4 for fp32, 2 for bf16; ``unet``, ``text``: whether any variant adapts them; ``vae``: whether one
    is loaded. Raises BaseModelError for a U-Net of an unknown build.
    """
    per_unet, per_text = lora_parameters(sizes)
    per_rank = (per_unet if unet else 0) + (per_text if text else 0)
    weights = number_bytes * (unet_parameters(sizes) + text_parameters(sizes))
    weights -= (number_bytes - 1) * coded_parameters(sizes) if quantize == "int8" else 0
    kept = kept_numbers(sizes, side=side, rank=max(ranks), text=text, specs=specs, checkpointing=checkpointing)
    largest = max(9 * inner * out for _, inner, out in sizes.layout.sizes())
    width = lora_numbers(sizes, *specs) if specs else per_rank * max(ranks)
    step = SPREAD * number_bytes * batch * len(ranks) * kept + (number_bytes * largest if quantize == "int8" else 0)
    if on_cpu:
        how = {"rows": batch * len(ranks), "number_bytes": number_bytes}
        step += number_bytes * COPIES * largest
        step += shares(sizes, side=side, text=text, checkpointing=checkpointing, **how)
    return Memory(
        program=PROGRAM,
        weights=weights + (FULL * vae_parameters(sizes) if vae else 0),
        loras=float(FULL * STATE_NUMBERS * width * len(ranks)),
        step=step,
    )


def largest_batch(
    sizes: Sizes,
    *,
    side: int,
    ranks: Sequence[int],
    bytes_free: float,
    number_bytes: int = 2,
    on_cpu: bool = False,
    text: bool = True,
    checkpointing: Checkpointing = "none",
    quantize: Quantize = "none",
) -> int:
    """The largest batch whose predicted peak fits; 0 where one picture does not."""
    one, two = (
        memory(
            sizes, side=side, batch=n, ranks=ranks, number_bytes=number_bytes, on_cpu=on_cpu, text=text,
            checkpointing=checkpointing, quantize=quantize,
        ).peak
        for n in (1, 2)
    )  # fmt: skip
    return 0 if one > bytes_free else 1 + int((bytes_free - one) // (two - one))
