"""Read a LoRA in whatever layout it comes: kohya's, diffusers' and peft's with all their spellings, and mixtures.

What cannot be a plain LoRA (DoRA, LoHa, LoKr, OFT, whole checkpoints, LoRAs of other models) is refused by its name,
with the way out. A file is hostile until checked: the header is read first, and nothing in it is used as a path.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vez.errors import LoraFileError
from vez.files.names import PREFIXES, Network, Place, from_kohya, known
from vez.interop import LoraWeights, module_weights, read_tensors

Layout = Literal["kohya", "diffusers", "mixed"]
FamilyName = Literal["sd1", "sd2", "sdxl", "tiny"]
ADAPTER_METADATA = "lora_adapter_metadata"
_HEADER_LIMIT = 16 * 2**20  # bytes
_WAY_OUT = (
    "merge it into its base with the program that made it, then take a LoRA out of the difference: "
    "vez convert MERGED OUT --minus BASE --rank 32"
)
_TRANSFORMERS = "a LoRA for a transformer model (FLUX, SD 3, …); vez knows SD 1.x, SD 2.x and SDXL"
# What else is shared under the name of LoRA, by a mark in a tensor's name, which has a dot before it here.
_REFUSED = tuple((re.compile(mark), what) for mark, what in (
    (r"\.dora_scale|lora_magnitude_vector", f"a DoRA, whose magnitudes no LoRA can hold; {_WAY_OUT}"),
    (r"\.hada_", f"a LoHa; {_WAY_OUT}"),
    (r"\.lokr_", f"a LoKr; {_WAY_OUT}"),
    (r"\.b?oft_", f"an OFT; {_WAY_OUT}"),
    (r"\.lora_mid\.", f"a LoCon with a middle part (CP decomposition); {_WAY_OUT}"),
    (r"\.on_input$", f"an (IA)³; {_WAY_OUT}"),
    (r"\.(diff|diff_b|w_norm|b_norm|set_weight)$", f"a file that also holds whole weights; {_WAY_OUT}"),
    (r"^\.(model\.diffusion_model|first_stage_model)\.", "a whole checkpoint, not a LoRA; name it with --minus BASE"),
    (r"^\.unet:\d+:", "a LoRA in cloneofsimo's first layout, which does not name its modules; train it again"),
    (r"^\.(lora_)?transformer[._]|double_blocks|joint_blocks", _TRANSFORMERS),
))  # fmt: skip
# The last part of a tensor's name in every spelling, and whether it is the down, the up or the alpha.
_ENDING = re.compile(
    r"(?P<module>.+?)(?:"
    r"(?:\.processor)?[._](?P<old>to_(?:q|k|v|out))_lora\.(?P<old_part>down|up)\.weight"
    r"|[._](?:lora|lora_linear_layer)[._](?P<dotted>down|up)\.weight"
    r"|\.lora_(?P<named>A|B)(?:\.[A-Za-z0-9-]{1,64})?\.weight"
    r"|(?:\.lora|\.lora_linear_layer)?\.(?P<alpha>alpha)"
    r")"
)
_PARTS = {"down": "lora_down.weight", "A": "lora_down.weight", "up": "lora_up.weight", "B": "lora_up.weight"}
_WIDTHS: dict[int, FamilyName] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of the text that a U-Net attends to
_TEXT_WIDTHS: dict[int, FamilyName] = {768: "sd1", 1024: "sd2"}
_VERSIONS: dict[str, FamilyName] = {"sd_v1": "sd1", "sd_v2": "sd2", "sdxl": "sdxl"}


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as read: its modules in fp32, what its header says, and what kind of file it was.

    ``family`` is by the shapes and names; "tiny" is an SD 1.x layout in other sizes.
    """

    modules: dict[Place, LoraWeights]
    metadata: dict[str, str]
    family: FamilyName
    layout: Layout
    dtype: torch.dtype


def read(path: Path) -> LoraFile:
    """A LoRA from a .safetensors file in any layout. Raises LoraFileError, in one sentence, for whatever is none."""
    names = _names(path)
    for mark, what in _REFUSED:
        if any(mark.search(f".{name}") for name in names):
            raise LoraFileError(f"{path} is {what}")
    if not names:
        raise LoraFileError(f"{path} holds no LoRA weights; take another file")
    tensors, metadata = read_tensors(path)
    modules: dict[Place, dict[str, Tensor]] = {}
    layouts: set[Layout] = set()
    ldm = False
    for name, tensor in tensors.items():
        place, part, layout, is_ldm = _parsed(path, name)
        layouts.add(layout)
        ldm = ldm or is_ldm
        if part in modules.setdefault(place, {}):
            raise LoraFileError(f"{path} holds {place.path} twice under two names; it was put together wrongly")
        modules[place][part] = tensor
    weights = {place: _weights(path, place, parts) for place, parts in modules.items()}
    without_alpha = {place for place, parts in modules.items() if "alpha" not in parts}
    if without_alpha:
        weights |= _with_alpha(path, {place: weights[place] for place in without_alpha}, metadata)
    kinds = Counter(tensor.dtype for tensor in tensors.values() if tensor.dim())
    return LoraFile(
        dict(sorted(weights.items())),
        metadata,
        family_of(weights, metadata, ldm=ldm),
        layouts.pop() if len(layouts) == 1 else "mixed",
        kinds.most_common(1)[0][0],
    )


def _names(path: Path) -> list[str]:
    """The tensors' names, from the header alone: a checkpoint of 7 GB is refused without being read."""
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise LoraFileError(f"{path} is a pickle, which can run code when read; take the .safetensors file instead")
    if path.is_dir():
        raise LoraFileError(f"{path} is a folder; name the .safetensors file in it")
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= min(_HEADER_LIMIT, size - 8) else b""
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror}") from error
    if size < 8 or not header:
        raise LoraFileError(f"{path} is not a safetensors file, or is cut short; download it again")
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise LoraFileError(f"{path} is damaged ({type(error).__name__} in its header); download it again") from error
    if not isinstance(fields, dict):
        raise LoraFileError(f"{path} is damaged (its header is no table); download it again")
    return [name for name in fields if name != "__metadata__"]


def _parsed(path: Path, name: str) -> tuple[Place, str, Layout, bool]:
    """(place, kohya's name of the part, layout, whether LDM's names) of one tensor name."""
    kohya, _, part = name.partition(".")
    found = from_kohya(kohya)
    if found and part in ("lora_down.weight", "lora_up.weight", "alpha"):
        return found[0], part, "kohya", found[1] == "ldm"
    # kohya's suffixes behind a dotted name are one of the mixtures
    ending = _ENDING.fullmatch(re.sub(r"\.lora_(down|up)\.weight$", r".lora.\1.weight", name))
    if ending:
        part = "alpha" if ending["alpha"] else _PARTS[ending["dotted"] or ending["named"] or ending["old_part"]]
        module: str = ending["module"]
        if ending["old"]:
            module += f".{ending['old']}"
        found = from_kohya(module.replace(".", "_")) if module.startswith("lora_") else None
        place = found[0] if found else _dotted(module)
        if place:
            return place, part, "mixed" if found or ".lora_down." in name or ".lora_up." in name else "diffusers", False
    raise LoraFileError(
        f"{path} holds {name[:80]!r}, which is no part of a LoRA for SD 1.x, SD 2.x or SDXL that vez knows; "
        "if another program reads it, let that one save it in kohya's layout"
    )


def _dotted(module: str) -> Place | None:
    """The place of a dotted name, with or without diffusers' or peft's prefixes; the oldest spellings too."""
    module = module.removeprefix("base_model.model.")
    network: Network = "text" if ".layers." in module else "unet"
    for candidate, prefix in PREFIXES.items():
        if module.startswith(f"{prefix}."):
            network, module = candidate, module.removeprefix(f"{prefix}.")
    module = re.sub(r"(attn[12])\.to_out$", r"\1.to_out.0", module)
    if network != "unet":  # "to_q" of a CLIP layer: diffusers before 0.20
        module = re.sub(r"(self_attn)\.to_(q|k|v|out)$", r"\1.\2_proj", module)
    return known(network, module)


def _weights(path: Path, place: Place, parts: dict[str, Tensor]) -> LoraWeights:
    return module_weights(path, f"{PREFIXES[place.network]}.{place.path}", parts)


def _with_alpha(
    path: Path, modules: Mapping[Place, LoraWeights], metadata: Mapping[str, str]
) -> dict[Place, LoraWeights]:
    """Alpha of the modules that carry none, from diffusers' header or the adapter_config.json beside peft's file.

    Without either it is the rank, as diffusers has it. rsLoRA's scale alpha/√rank becomes alpha·√rank over rank.
    """
    config = _adapter_config(path, metadata)
    found = {}
    for place, weights in modules.items():
        prefix = f"{PREFIXES[place.network]}."
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)} or {
            key: value for key, value in config.items() if not key.startswith(tuple(PREFIXES.values()))
        }
        if own.get("use_dora") or own.get("lora_bias"):
            raise LoraFileError(f"{path} is a DoRA or has biases, which no LoRA can hold; {_WAY_OUT}")
        alpha = _matched(path, own.get("alpha_pattern"), place)
        alpha = own.get("lora_alpha", weights.rank) if alpha is None else alpha
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise LoraFileError(f"{path}: its {ADAPTER_METADATA} gives {place.path} no usable alpha; it is damaged")
        scale = math.sqrt(weights.rank) if own.get("use_rslora") else 1.0
        found[place] = weights._replace(alpha=float(alpha) * scale)
    return found


def _adapter_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text: str | bytes | None = metadata.get(ADAPTER_METADATA)
    beside = path.with_name("adapter_config.json")
    if text is None and path.name == "adapter_model.safetensors" and beside.is_file():
        text = beside.read_bytes()
    if text is None:
        return {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraFileError(f"{path}: its {ADAPTER_METADATA} is not JSON, so its alpha is unknown") from error
    if not isinstance(config, dict):
        raise LoraFileError(f"{path}: its {ADAPTER_METADATA} is no table, so its alpha is unknown")
    return config


def _matched(path: Path, pattern: Any, place: Place) -> Any:
    """peft's entry for a module: the first whose words end its path. peft takes them as regular expressions."""
    if not pattern:
        return None
    if not isinstance(pattern, dict):
        raise LoraFileError(f"{path}: the alpha_pattern of its {ADAPTER_METADATA} is no table; it is damaged")
    for key, value in pattern.items():
        words = key.removeprefix("^").removesuffix("$").replace("\\.", ".").removeprefix("text_model.")
        if not re.fullmatch(r"[\w.]{1,200}", words):
            raise LoraFileError(f"{path}: its alpha_pattern holds the expression {key[:60]!r}; vez reads plain names")
        if f".{place.path}".endswith(f".{words}"):
            return value
    return None


def family_of(modules: Mapping[Place, LoraWeights], metadata: Mapping[str, str], *, ldm: bool = False) -> FamilyName:
    """The family by text width, text encoders and depth; where these say nothing, by what the header claims."""
    if any(place.network == "text2" for place in modules) or _deep(modules):
        return "sdxl"
    claimed = metadata.get("ss_base_model_version", "")
    for place, weights in modules.items():
        if place.path.endswith(("attn2.to_k", "attn2.to_v")):
            other: FamilyName = "sdxl" if claimed.startswith("sdxl") else "tiny"
            return _WIDTHS.get(weights.down.shape[1], other)
    for start, family in _VERSIONS.items():
        if claimed.startswith(start):
            return family
    for place, weights in modules.items():
        if place.network == "text" and place.path.endswith("q_proj"):
            return _TEXT_WIDTHS.get(weights.down.shape[1], "tiny")
    return "sdxl" if ldm else "sd1"


def _deep(places: Iterable[Place]) -> bool:
    return any(re.search(r"transformer_blocks\.[1-9]", place.path) for place in places)
