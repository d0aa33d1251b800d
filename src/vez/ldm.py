"""Single-file checkpoints in the layout of CompVis' and Stability's code (LDM): what is in one, and its names.

Pure: it reads names and shapes, never weights. The parts of such a file:

    model.diffusion_model.                        U-Net
    first_stage_model.                            VAE
    cond_stage_model.transformer.                 CLIP (SD 1.x)
    cond_stage_model.model.                       OpenCLIP (SD 2.x)
    conditioner.embedders.0.transformer.          CLIP (SDXL)
    conditioner.embedders.1.model.                OpenCLIP (SDXL)

What a file does not say is what its family never varies: groups of 32, 8 attention heads in SD 1.x and heads of 64
channels elsewhere and in the text encoders.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vez.errors import BaseModelError

Shapes = Mapping[str, tuple[int, ...]]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
TOKENIZER = "openai/clip-vit-large-patch14"
"""Whose tokenizer every published single file was trained with: the file holds none."""
_HEADER_LIMIT = 100 * 2**20  # bytes, safetensors' own limit
_SD2_LAYERS = 23  # of SD 2.x's 24: its last is never read
_TIME_IDS = 6


@dataclass(frozen=True)
class Contents:
    """What a single file holds: the configurations of its parts as diffusers and transformers name their fields.

    ``texts`` has, for each text encoder, the prefix of its names and its configuration. ``vae`` is None where the file
    has none.
    """

    unet: dict[str, Any]
    texts: tuple[tuple[str, dict[str, Any]], ...]
    vae: dict[str, Any] | None


def header_of(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Names, shapes and metadata of a .safetensors file, its weights unread. Raises BaseModelError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, path.stat().st_size - 8):
                raise ValueError("it is no safetensors file, or cut short")
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
            shapes = {str(name): tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
            return shapes, {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read ({error}); download it again") from error


def contents_of(shapes: Shapes, *, name: str) -> Contents:
    """What a checkpoint holds, by its names and shapes. Raises BaseModelError for what is no such base."""
    if not any(key.startswith(UNET) for key in shapes):
        raise BaseModelError(f"{name} is {_other(shapes)}; name a whole Stable Diffusion checkpoint as the base")
    texts = _texts(shapes, name)
    try:
        unet = _unet(shapes, texts)
        vae = vae_config(shapes, VAE) if any(key.startswith(VAE) for key in shapes) else None
    except (KeyError, IndexError, ValueError) as error:
        raise BaseModelError(f"{name} lacks {error} of a Stable Diffusion checkpoint; download it again") from error
    return Contents(unet, texts, vae)


def _other(shapes: Shapes) -> str:
    """What a file without an LDM U-Net may be."""
    if any(key.startswith(("lora_", "unet.", "text_encoder.")) for key in shapes):
        return "a LoRA, not a base"
    if any(key.startswith(("down_blocks.", "double_blocks.", "transformer_blocks.")) for key in shapes):
        return "one network alone, or a model of another kind"
    return "no Stable Diffusion checkpoint (it has no model.diffusion_model)"


def _texts(shapes: Shapes, name: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    found = {prefix for prefix in (CLIP, OPEN_CLIP, CLIP_XL, OPEN_CLIP_XL) if any(k.startswith(prefix) for k in shapes)}
    try:
        if found == {CLIP_XL, OPEN_CLIP_XL}:
            return (CLIP_XL, _clip(shapes, CLIP_XL)), (OPEN_CLIP_XL, _open_clip(shapes, OPEN_CLIP_XL))
        if found == {CLIP}:
            return ((CLIP, _clip(shapes, CLIP)),)
        if found == {OPEN_CLIP}:
            return ((OPEN_CLIP, _open_clip(shapes, OPEN_CLIP, cut=True)),)
    except (KeyError, ValueError) as error:
        raise BaseModelError(f"{name} lacks {error} of its text encoder; download it again") from error
    raise BaseModelError(
        f"{name} holds {', '.join(sorted(found)) or 'no text encoder'}, which is neither SD 1.x, SD 2.x nor SDXL: vez "
        "needs the whole checkpoint (a refiner or a U-Net alone cannot be trained here)"
    )


def _numbers(shapes: Shapes, prefix: str) -> list[int]:
    """The numbers that follow a prefix in the names, in order."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return sorted({int(found[1]) for key in shapes if (found := pattern.match(key))})


def _unet(shapes: Shapes, texts: tuple[tuple[str, dict[str, Any]], ...]) -> dict[str, Any]:
    """UNet2DConditionModel's configuration."""
    levels: list[tuple[int, int, int]] = []  # channels, resnets, depth of the transformers (0: none)
    channels = count = depth = 0
    for n in _numbers(shapes, f"{UNET}input_blocks.")[1:]:
        block = f"{UNET}input_blocks.{n}."
        if f"{block}0.op.weight" in shapes:
            levels.append((channels, count, depth))
            count = depth = 0
            continue
        channels, count = shapes[f"{block}0.in_layers.2.weight"][0], count + 1
        depth = max(depth, len(_numbers(shapes, f"{block}1.transformer_blocks.")))
    levels.append((channels, count, depth))
    mid = len(_numbers(shapes, f"{UNET}middle_block.1.transformer_blocks."))
    depths = [level[2] or 1 for level in levels[:-1]] + [levels[-1][2] or mid]
    widths = [level[0] for level in levels]
    sd1 = texts[0][0] == CLIP
    kinds = ["CrossAttn" if level[2] else "" for level in levels]
    config: dict[str, Any] = {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": levels[0][1],
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "transformer_layers_per_block": depths,
        "cross_attention_dim": shapes[f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": 8 if sd1 else [width // 64 for width in widths],
        "use_linear_projection": len(shapes[f"{UNET}middle_block.1.proj_in.weight"]) == 2,
    }
    label = shapes.get(f"{UNET}label_emb.0.0.weight")
    if label and len(texts) == 2:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (label[1] - texts[1][1]["projection_dim"]) // _TIME_IDS,
            "projection_class_embeddings_input_dim": label[1],
        }
    elif label or len(texts) == 2:
        config["addition_embed_type"] = "label" if label else None  # family_of says what is wrong
    return config


def vae_config(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """AutoencoderKL's configuration, without its latents' scale. Raises KeyError, ValueError."""
    levels = _numbers(shapes, f"{prefix}encoder.down.")
    widths = [shapes[f"{prefix}encoder.down.{n}.block.0.conv1.weight"][0] for n in levels]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": len(_numbers(shapes, f"{prefix}encoder.down.0.block.")),
        "latent_channels": shapes[f"{prefix}decoder.conv_in.weight"][1],
    }


def _clip(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """CLIPTextConfig's fields of OpenAI's CLIP."""
    inner = f"{prefix}text_model." if any(key.startswith(f"{prefix}text_model.") for key in shapes) else prefix
    words, width = shapes[f"{inner}embeddings.token_embedding.weight"]
    layers = len(_numbers(shapes, f"{inner}encoder.layers."))
    return _text(
        words,
        width,
        layers,
        positions=shapes[f"{inner}embeddings.position_embedding.weight"][0],
        intermediate=shapes[f"{inner}encoder.layers.0.mlp.fc1.weight"][0],
        act="quick_gelu",
    )


def _open_clip(shapes: Shapes, prefix: str, *, cut: bool = False) -> dict[str, Any]:
    """CLIPTextConfig's fields of an OpenCLIP; ``cut``: its last layer is never read (SD 2.x)."""
    words, width = shapes[f"{prefix}token_embedding.weight"]
    layers = len(_numbers(shapes, f"{prefix}transformer.resblocks."))
    config = _text(
        words,
        width,
        layers - 1 if cut and layers != _SD2_LAYERS else layers,
        positions=shapes[f"{prefix}positional_embedding"][0],
        intermediate=shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
        act="gelu",
    )
    return config | {"projection_dim": shapes.get(f"{prefix}text_projection", (width, width))[1]}


def _text(words: int, width: int, layers: int, *, positions: int, intermediate: int, act: str) -> dict[str, Any]:
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": positions,
        "hidden_act": act,
    }


# Parts of names, LDM's → diffusers'.
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_CLIP_LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_CLIP_ENDS = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
    "text_projection": "text_projection.weight",  # turned: OpenCLIP multiplies from the right
}


def unet_name(name: str, *, layers: int) -> str | None:
    """diffusers' name of a U-Net's weight in LDM's naming (without prefix); None where it has none.

    ``layers`` is diffusers' layers_per_block.
    """
    path, _, end = name.rpartition(".")
    if path in _UNET_ENDS:
        return f"{_UNET_ENDS[path]}.{end}"
    if found := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)", path):
        side, n, place, inner = found[1], int(found[2]), int(found[3]), found[4]
        level, j = divmod(n - 1 if side == "input" else n, layers + 1)
        block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
        if inner == "op":
            return f"{block}.downsamplers.0.conv.{end}"
        if side == "output" and inner == "conv":
            return f"{block}.upsamplers.0.conv.{end}"
        return f"{block}.{_piece(place, j, inner)}.{end}"
    if found := re.fullmatch(r"middle_block\.([012])\.(.+)", path):
        place = int(found[1])
        return f"mid_block.{_piece(place % 2, place // 2, found[2])}.{end}"
    return None


def _piece(place: int, j: int, inner: str) -> str:
    return f"attentions.{j}.{inner}" if place == 1 else f"resnets.{j}.{_RESNET.get(inner, inner)}"


def vae_name(name: str, *, levels: int) -> str | None:
    """diffusers' name of a VAE's weight in LDM's naming (without prefix); None where it has none."""
    path, _, end = name.rpartition(".")
    if found := re.fullmatch(r"(encoder|decoder)\.(down|up)\.(\d+)\.(.+)", path):
        side, level, inner = found[1], int(found[3]), found[4]
        if side == "decoder":
            level = levels - 1 - level
        inner = re.sub(r"^block\.(\d+)", r"resnets.\1", inner).replace("nin_shortcut", "conv_shortcut")
        inner = inner.replace("downsample.conv", "downsamplers.0.conv").replace("upsample.conv", "upsamplers.0.conv")
        return f"{side}.{found[2]}_blocks.{level}.{inner}.{end}"
    if found := re.fullmatch(r"(encoder|decoder)\.mid\.(block_1|block_2|attn_1)\.(.+)", path):
        if found[2] == "attn_1":
            return f"{found[1]}.mid_block.attentions.0.{_VAE_ATTENTION.get(found[3], found[3])}.{end}"
        number = int(found[2][-1]) - 1
        return f"{found[1]}.mid_block.resnets.{number}.{found[3].replace('nin_shortcut', 'conv_shortcut')}.{end}"
    if re.fullmatch(r"(encoder|decoder)\.(conv_in|conv_out|norm_out)|(post_)?quant_conv", path):
        return f"{path.replace('norm_out', 'conv_norm_out')}.{end}"
    return None


def clip_name(name: str) -> str | None:
    """transformers' name (without `text_model.`) of a CLIP's weight, which LDM files keep; None: not a weight."""
    name = name.removeprefix("text_model.")
    return None if name.endswith("position_ids") or not name.startswith(("embeddings.", "encoder.", "final_")) else name


def open_clip_names(name: str) -> tuple[str, ...]:
    """transformers' names (without `text_model.`) of an OpenCLIP's weight: three of a fused q‖k‖v, none of others."""
    if name in _CLIP_ENDS:
        return (_CLIP_ENDS[name],)
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if not found:
        return ()
    layer, inner = f"encoder.layers.{found[1]}", found[2]
    if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
        return tuple(f"{layer}.self_attn.{part}_proj.{inner.rpartition('_')[2]}" for part in "qkv")
    path, _, end = inner.rpartition(".")
    if path == "attn.out_proj":
        return (f"{layer}.self_attn.out_proj.{end}",)
    return (f"{layer}.{_CLIP_LAYER[path]}.{end}",) if path in _CLIP_LAYER else ()
