"""What the modules of a LoRA are called in the layouts that are about, and which module of the model is meant.

One name per module here: the network and the module's path as diffusers has it, without `text_model.`. Names are read
by a fixed grammar of the U-Nets and CLIP text encoders of SD 1.x, SD 2.x and SDXL, never by walking live modules.
Sources: networks/lora.py and library/sdxl_model_util.py of kohya-ss/sd-scripts; diffusers' loaders. Pure: no tensors.
"""

import re
from typing import Literal, NamedTuple

Network = Literal["unet", "text", "text2"]
Style = Literal["diffusers", "ldm"]
PREFIXES: dict[Network, str] = {"unet": "unet", "text": "text_encoder", "text2": "text_encoder_2"}

_KOHYA: tuple[tuple[str, Network], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te2_", "text2"),
    ("lora_te1_", "text"),
    ("lora_te_", "text"),
)


class Place(NamedTuple):
    """A module of the model: in which network, and its path there (diffusers' names; without `text_model.`)."""

    network: Network
    path: str


_BLOCK = "|".join(
    (
        r"transformer_blocks\.\d{1,2}\.attn[12]\.to_(?:q|k|v|out\.0)",
        r"transformer_blocks\.\d{1,2}\.ff\.net\.(?:0\.proj|2)",
        "proj_in",
        "proj_out",
    )
)
_RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_UNET = re.compile(
    rf"(?:down_blocks\.\d|mid_block|up_blocks\.\d)\.(?:attentions\.\d\.(?:{_BLOCK})|resnets\.\d\.(?:{'|'.join(_RESNET)}))"
    r"|down_blocks\.\d\.downsamplers\.0\.conv|up_blocks\.\d\.upsamplers\.0\.conv"
    r"|conv_in|conv_out|(?:time|add)_embedding\.linear_[12]"
)
_TEXT = re.compile(r"encoder\.layers\.\d{1,2}\.(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12])")
# Where an underscore of kohya's names stands for a dot; what these do not name keeps its underscores.
_DOTTED = (
    (re.compile(r"^(down|up)_blocks_(\d)_"), r"\1_blocks.\2."),
    (re.compile(r"^mid_block_"), "mid_block."),
    (re.compile(r"(attentions|resnets|downsamplers|upsamplers)_(\d)_"), r"\1.\2."),
    (re.compile(r"transformer_blocks_(\d{1,2})_"), r"transformer_blocks.\1."),
    (re.compile(r"(attn[12])_to_"), r"\1.to_"),
    (re.compile(r"to_out_0$"), "to_out.0"),
    (re.compile(r"ff_net_0_proj$"), "ff.net.0.proj"),
    (re.compile(r"ff_net_2$"), "ff.net.2"),
    (re.compile(r"^encoder_layers_(\d{1,2})_"), r"encoder.layers.\1."),
    (re.compile(r"(self_attn|mlp)_(q_proj|k_proj|v_proj|out_proj|fc1|fc2)$"), r"\1.\2"),
    (re.compile(r"^(time|add)_embedding_linear_"), r"\1_embedding.linear_"),
)
_LDM_BLOCK = re.compile(r"(input|middle|output)_blocks?_(?:(\d{1,2})_)?(\d)_(.+)")
_LDM_RESNET = dict(zip(("in_layers_2", "out_layers_3", "skip_connection", "emb_layers_1"), _RESNET, strict=True))
_LDM_SINGLE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}
_RESNETS = 2  # per level on the way down, in all three families; one more on the way up


def known(network: Network, path: str) -> Place | None:
    """The place of a dotted path in diffusers' names, with or without `text_model.`; None for what no family has."""
    path = path.removeprefix("text_model.") if network != "unet" else path
    return Place(network, path) if (_UNET if network == "unet" else _TEXT).fullmatch(path) else None


def from_kohya(name: str) -> tuple[Place, Style] | None:
    """The place that a name with underscores means (`lora_unet_…`, `lora_te_…`, `lora_te1_…`, `lora_te2_…`)."""
    prefix, network = next(((p, n) for p, n in _KOHYA if name.startswith(p)), (None, None))
    if prefix is None or network is None:
        return None
    inner = name.removeprefix(prefix)
    if network == "unet" and (path := _from_ldm(inner)) is not None:
        place = known("unet", path)
        return (place, "ldm") if place else None
    inner = inner.removeprefix("text_model_") if network != "unet" else inner
    for pattern, dotted in _DOTTED:
        inner = pattern.sub(dotted, inner)
    place = known(network, inner)
    return (place, "diffusers") if place else None


def to_kohya(place: Place, *, sdxl: bool) -> str:
    """kohya's name: SD 1.x and 2.x by diffusers' paths and `lora_te_`; SDXL by LDM's, `lora_te1_` and `lora_te2_`."""
    if place.network == "unet":
        return "lora_unet_" + (_to_ldm(place.path) if sdxl else place.path).replace(".", "_")
    prefix = {"text": "lora_te1_" if sdxl else "lora_te_", "text2": "lora_te2_"}[place.network]
    return f"{prefix}text_model_{place.path.replace('.', '_')}"


def to_diffusers(place: Place) -> str:
    """The path as diffusers' files have it; with `text_model.`, which diffusers takes off where it must."""
    inner = "" if place.network == "unet" else "text_model."
    return f"{PREFIXES[place.network]}.{inner}{place.path}"


def _from_ldm(name: str) -> str | None:
    """A U-Net's path from LDM's name with underscores; None if it is no such name."""
    if name in _LDM_SINGLE:
        return _LDM_SINGLE[name]
    found = _LDM_BLOCK.fullmatch(name)
    if not found or (found[2] is None) != (found[1] == "middle"):
        return None
    kind, part, tail = found[1], int(found[3]), found[4]
    if kind == "middle":
        return _inside("mid_block", part // 2 if part != 1 else 0, tail, attention=part == 1)
    number = int(found[2])
    if kind == "input":
        level, j = divmod(number - 1, _RESNETS + 1)
        if (j == _RESNETS) != (tail == "op"):  # a level ends with its downsampler
            return None
        if tail == "op":
            return f"down_blocks.{level}.downsamplers.0.conv"
        return _inside(f"down_blocks.{level}", j, tail, attention=part == 1)
    level, j = divmod(number, _RESNETS + 1)
    if tail == "conv":
        return f"up_blocks.{level}.upsamplers.0.conv"
    return _inside(f"up_blocks.{level}", j, tail, attention=part == 1)


def _inside(block: str, j: int, tail: str, *, attention: bool) -> str | None:
    if not attention:
        return f"{block}.resnets.{j}.{_LDM_RESNET[tail]}" if tail in _LDM_RESNET else None
    path = f"attentions_{j}_{tail}"
    for pattern, dotted in _DOTTED:
        path = pattern.sub(dotted, path)
    return f"{block}.{path}"


def _to_ldm(path: str) -> str:
    """LDM's name, its dots already underscores, of a U-Net's path."""
    for name, single in _LDM_SINGLE.items():
        if single == path:
            return name
    block, _, rest = path.partition(".attentions." if ".attentions." in path else ".resnets.")
    if not rest:  # a sampler: down_blocks.I.downsamplers.0.conv
        level = int(path.split(".")[1])
        if path.startswith("down"):
            return f"input_blocks_{(_RESNETS + 1) * (level + 1)}_0_op"
        # SDXL's upsamplers stand behind an attention
        return f"output_blocks_{(_RESNETS + 1) * level + _RESNETS}_2_conv"
    j, _, tail = rest.partition(".")
    attention = ".attentions." in path
    if not attention:
        tail = {ours: theirs for theirs, ours in _LDM_RESNET.items()}[tail]
    if block == "mid_block":
        return f"middle_block_{1 if attention else 2 * int(j)}_{tail}"
    level = int(block.split(".")[1])
    number = (_RESNETS + 1) * level + int(j)
    part = int(attention)
    if block.startswith("down"):
        return f"input_blocks_{number + 1}_{part}_{tail}"
    return f"output_blocks_{number}_{part}_{tail}"
