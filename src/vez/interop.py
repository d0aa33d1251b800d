"""LoRA files: kohya's layout in and out, diffusers' layout out, and merging into a base.

kohya's layout (networks/lora.py of kohya-ss/sd-scripts) is the one that A1111, Forge, ComfyUI, InvokeAI and diffusers
read: ``<module>.lora_down.weight`` (rank, in[, k, k]), ``<module>.lora_up.weight`` (out, rank[, 1, 1]) and a scalar
``<module>.alpha``; W' = W + alpha/rank · up·down. Module names come from fixed tables and never from live module paths.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vez.base import Base
from vez.errors import LoraFileError
from vez.family import FAMILIES, Layout, Network, Target, kohya_keys
from vez.store import write_atomic

_HEADER_LIMIT = 16 * 2**20  # bytes; a LoRA of every SDXL module has a header of about one MiB
SDXL_CODE = "https://github.com/Stability-AI/generative-models"
_PARTS = ("lora_down.weight", "lora_up.weight", "alpha")
# Names that only an SDXL LoRA has in kohya's layout.
_XL_MARKS = ("lora_te2_", "lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
# What else people call a LoRA, by a mark in its tensor names.
_OTHER_FORMATS = (
    ("model.diffusion_model.", "a whole checkpoint, not a LoRA"),
    ("hada_", "a LoHa"),
    ("lokr_", "a LoKr"),
    ("oft_", "an OFT"),
    ("dora_scale", "a DoRA"),
    ("lora_mid", "a LoCon with a middle part (CP decomposition)"),
    (".lora_A.", "a LoRA in diffusers' or peft's layout"),
    (".lora.down.", "a LoRA in diffusers' layout"),
    (".lora_linear_layer.", "a LoRA in an old layout of diffusers"),
    ("unet:0:", "a LoRA in cloneofsimo's layout"),
)


__all__ = [
    "LoraState",
    "LoraWeights",
    "Network",
    "Target",
    "base_keys",
    "check_fit",
    "kohya_keys",
    "load_kohya",
    "lora_metadata",
    "merge",
    "parent_of",
    "save_kohya",
    "title_of",
    "to_bytes",
    "to_diffusers",
]


class LoraWeights(NamedTuple):
    """One module's LoRA: ``down`` (rank, in[, k, k]), ``up`` (out, rank[, 1, 1]), and ``alpha``."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Its rank."""
        return int(self.down.shape[0])

    def delta(self) -> Tensor:
        """What it adds to the weight, (out, in·k·k) fp32: alpha/rank · up·down."""
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)) * (self.alpha / self.rank)


LoraState = dict[str, LoraWeights]  # by kohya's module name


def base_keys(base: Base, *, resnets: bool = False) -> dict[str, Target]:
    """`kohya_keys` of a base; the counts that its family promises are held (SDXL: 722, 72 and 192)."""
    keys = kohya_keys(base.layout, resnets=resnets)
    unet = sum(target.network == "unet" and not target.resnet for target in keys.values())
    numbers = range(len(base.text_encoders))
    texts = tuple(sum(t.network == "text" and t.encoder == n for t in keys.values()) for n in numbers)
    if base.family.unet_modules not in (None, unet) or base.family.text_modules not in (None, texts):
        raise LoraFileError(f"a {base.family.name} base has {unet} and {texts} modules, against its family")
    beside = sum(target.resnet for target in keys.values())
    if resnets and base.family.resnet_modules not in (None, beside):
        raise LoraFileError(f"a {base.family.name} base has {beside} modules in its ResNets, against its family")
    return keys


def parent_of(base: Base, target: Target) -> tuple[nn.Module, str]:
    """The module that holds the target, and the target's name in it. Raises LoraFileError if the base lacks it."""
    root = base.unet if target.network == "unet" else base.text_encoders[target.encoder]
    path = target.path
    if target.network == "text" and hasattr(root, "text_model"):  # one level more, where there is a projection
        path = f"text_model.{path}"
    parent, _, name = path.rpartition(".")
    try:
        module = root.get_submodule(parent)
        module.get_submodule(name)
    except AttributeError as error:
        raise LoraFileError(f"the base {base.name!r} has no module {target.path!r}; its folder is damaged") from error
    return module, name


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A .safetensors file whose bytes depend on nothing but its content.

    safetensors writes metadata in an order that differs from process to process; here the header is sorted.
    """
    data: bytes = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    if metadata:
        header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def save_kohya(
    path: Path, state: LoraState, *, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Write a LoRA in kohya's layout, then read it back and compare. ``metadata`` gets kohya's two hashes besides.

    Equal weights and metadata give equal bytes. Raises LoraFileError if a weight does not fit ``dtype``.
    """
    tensors: dict[str, Tensor] = {}
    for key, weights in state.items():
        for part, value in zip(_PARTS, (weights.down, weights.up, torch.tensor(weights.alpha)), strict=True):
            tensors[f"{key}.{part}"] = value.detach().to("cpu", dtype)
            if not torch.isfinite(tensors[f"{key}.{part}"]).all():
                raise LoraFileError(
                    f"{key}.{part} is not finite as {dtype}; save as float32, or lower the learning rate"
                )
    write_atomic(path, to_bytes(tensors, {**metadata, **sshs_hashes(tensors, metadata)}))
    again, _ = load_kohya(path)
    for key in state:
        read = again.get(key)
        same = (
            read is not None
            and read.alpha == float(tensors[f"{key}.alpha"])
            and all(
                torch.equal(a, tensors[f"{key}.{part}"].float()) for a, part in zip(read[:2], _PARTS[:2], strict=True)
            )
        )
        if not same:
            raise LoraFileError(f"{path} does not read back as it was written ({key}); the disk may be failing")


def sshs_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """kohya's (and A1111's) two model hashes, over the file as it is with its ss_ metadata alone.

    The first is the SHA-256 of all after the header; the second 8 hex digits over 64 KiB from 1 MiB on.
    """
    data = to_bytes(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    body = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(data[body:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8],
    }


def load_kohya(path: Path) -> tuple[LoraState, dict[str, str]]:
    """Read a LoRA in kohya's layout as fp32, and its metadata. A module without alpha has alpha = rank, as has alpha 0.

    Raises LoraFileError, in one sentence, for whatever is not such a file.
    """
    tensors, metadata = read_tensors(path)
    marks = [what for mark, what in _OTHER_FORMATS if any(mark in name for name in tensors)]
    if marks:
        raise LoraFileError(f"{path} is {marks[0]}; only kohya's layout is read here; try `vez convert`")
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, part = name.partition(".")
        if part not in _PARTS or not module.startswith("lora_"):
            raise LoraFileError(f"{path} holds {name[:80]!r}, which is not in kohya's LoRA layout; try `vez convert`")
        modules.setdefault(module, {})[part] = tensor
    if not any(module.startswith(_XL_MARKS) for module in modules):
        # kohya's SDXL name, which some tools also write for the one text encoder of SD 1.x
        modules = {module.replace("lora_te1_", "lora_te_", 1): parts for module, parts in modules.items()}
    if not modules:
        raise LoraFileError(f"{path} holds no LoRA weights; take another file")
    return {module: module_weights(path, module, parts) for module, parts in modules.items()}, metadata


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file, its header's size checked before anything is allocated for it."""
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise LoraFileError(f"{path} is a pickle, which can run code when read; take the .safetensors file instead")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror}") from error
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_HEADER_LIMIT, len(data) - 8):
        raise LoraFileError(f"{path} is not a safetensors file, or is cut short; download it again")
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise LoraFileError(f"{path} is damaged ({error}); download it again") from error
    return tensors, header.get("__metadata__") or {}


def module_weights(path: Path, module: str, parts: dict[str, Tensor]) -> LoraWeights:
    """One module's tensors (kohya's part names), checked against each other.

    Raises LoraFileError, naming the file and the module.
    """
    missing = [part for part in _PARTS[:2] if part not in parts]
    if missing:
        raise LoraFileError(f"{path}: {module[:80]} lacks its {missing[0]}; the file is incomplete, download it again")
    down, up, alpha = parts["lora_down.weight"], parts["lora_up.weight"], parts.get("alpha")
    for name, tensor in parts.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise LoraFileError(
                f"{path}: {module[:80]}.{name} holds values that are not numbers; the file is of no use"
            )
    if down.dim() not in (2, 4) or down.dim() != up.dim() or min(*down.shape, *up.shape) < 1:
        raise LoraFileError(f"{path}: {module[:80]} has the shapes {_sizes(down, up)}, which no LoRA has")
    if up.shape[2:].numel() != 1:
        raise LoraFileError(f"{path}: {module[:80]} has an up part that is a convolution, which no LoRA has")
    if down.shape[0] != up.shape[1]:
        raise LoraFileError(f"{path}: the ranks of {module[:80]} disagree: {_sizes(down, up)}; the file is damaged")
    rank = down.shape[0]
    if alpha is not None and alpha.numel() != 1:
        raise LoraFileError(f"{path}: {module[:80]}.alpha is not one number; the file is damaged")
    return LoraWeights(down.float(), up.float(), float(rank) if alpha is None else float(alpha) or float(rank))


def _sizes(*tensors: Tensor) -> str:
    return " and ".join("×".join(str(n) for n in tensor.shape) for tensor in tensors)


def title_of(state: LoraState) -> str:
    """The family that a LoRA is for, as people call it, by its names and widths; empty where they do not tell."""
    if any(key.startswith(_XL_MARKS) for key in state):
        return FAMILIES["sdxl"].title
    for family in FAMILIES.values():
        width = sum(family.text_widths or ())
        read = ("attn2_to_k", "attn2_to_v")  # the modules that take the text as it comes
        if width and any(key.endswith(read) and w.down.shape[1] == width for key, w in state.items()):
            return family.title
    return ""


def check_fit(base: Base, state: LoraState) -> LoraState:
    """The LoRA in the base's own names: an SDXL one may have come with diffusers' names for the U-Net's blocks.

    Raises LoraFileError unless every module of the LoRA exists in the base with its width.
    """
    keys = base_keys(base, resnets=True)
    own = {}
    if len(base.text_encoders) > 1:
        own = {"lora_unet_" + target.path.replace(".", "_"): key for key, target in keys.items()}
        own |= {key.replace("lora_te1_", "lora_te_", 1): key for key in keys}
    renamed = {own.get(key, key): weights for key, weights in state.items()}
    title = title_of(state)
    other = title if title != base.family.title else ""
    for key, weights in renamed.items():
        if key not in keys:
            raise LoraFileError(
                f"this LoRA adapts {key[:80]!r}, which {base.name!r} ({base.family.title}) lacks: it is for "
                f"{other or 'another family'}"
            )
        parent, name = parent_of(base, keys[key])
        weight = _weight(parent.get_submodule(name))
        have, want = _size(len(weights.up), weights.down), _size(len(weight), weight)
        if have != want:
            raise LoraFileError(
                f"this LoRA's {key} is {have}, but {base.name!r} ({base.family.title}) has {want} there: it is for "
                f"{other or 'another base'}"
            )
    return renamed


def _size(outputs: int, tensor: Tensor) -> str:
    """Of a module, out×in, and ×k×k where it is a convolution of such a kernel."""
    kernel = [] if tensor.shape[2:].numel() == 1 else tensor.shape[2:]
    return "×".join(str(n) for n in (outputs, tensor.shape[1], *kernel))


def merge(base: Base, state: LoraState, *, strength: float = 1.0) -> Callable[[], None]:
    """Add a LoRA to the base's own weights: fp32 sum, rounded once. Returns what undoes it, bit for bit.

    Undo in the reverse order if several are merged. Raises LoraFileError if it does not fit; nothing is changed then.
    """
    state = check_fit(base, state)
    keys = base_keys(base, resnets=True)
    kept: list[tuple[Tensor, Tensor]] = []
    for key, weights in state.items():
        parent, name = parent_of(base, keys[key])
        weight = _weight(parent.get_submodule(name))
        kept.append((weight, weight.detach().clone()))
        with torch.no_grad():
            delta = weights.delta().to(weight.device).view(weight.shape)
            weight.copy_(weight.float() + strength * delta)

    def undo() -> None:
        for weight, original in kept:
            with torch.no_grad():
                weight.copy_(original)

    return undo


def _weight(module: nn.Module) -> Tensor:
    weight = module._parameters.get("weight")  # one that is made at each reading (quantize) is none to change
    if weight is None:
        raise LoraFileError(f"a {type(module).__name__} has no weight to merge into; take the base as it was loaded")
    return weight


def to_diffusers(state: LoraState, layout: Layout) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The LoRA as diffusers and peft name it, and the header metadata without which they lose alpha.

    Write it with `to_bytes` as pytorch_lora_weights.safetensors. Text keys have the `text_model.` level, which
    diffusers takes off where its transformers has dropped it. Raises LoraFileError if modules differ in rank or alpha.
    """
    keys = kohya_keys(layout, resnets=True)
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for network, encoder, prefix in (("unet", 0, "unet"), ("text", 0, "text_encoder"), ("text", 1, "text_encoder_2")):
        part = {k: w for k, w in state.items() if (keys[k].network, keys[k].encoder) == (network, encoder)}
        if not part:
            continue
        scales = {(weights.rank, weights.alpha) for weights in part.values()}
        if len(scales) > 1:
            raise LoraFileError(
                "modules of different rank or alpha cannot be written for diffusers; use kohya's layout, or vez convert"
            )
        rank, alpha = scales.pop()
        # peft matches a target by the end of a module's path, so the paths inside a block are enough.
        paths = [keys[key].path for key in part]
        targets = sorted({path.rpartition(".attentions.")[2].split(".", 1)[1] if ".attentions." in path else path
                          for path in paths})  # fmt: skip
        config |= {f"{prefix}.r": rank, f"{prefix}.lora_alpha": alpha, f"{prefix}.target_modules": targets}
        for key, weights in part.items():
            path = f"{prefix}.{'text_model.' if network == 'text' else ''}{keys[key].path}"
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = weights.down, weights.up
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)}


def lora_metadata(
    base: Base,
    *,
    title: str,
    rank: int,
    alpha: float,
    trigger: str,
    resolution: int,
    captions: list[str],
    session: str,
    settings: Mapping[str, str],
) -> dict[str, str]:
    """A file's header: kohya's ss_* and modelspec.*, all text. ``settings`` are further ss_ fields, without the prefix.

    No time stamps: equal runs give equal files. ``session`` (hex) is what made the run; ss_session_id follows from it.
    The words of the captions travel in ss_tag_frequency, where A1111 shows them.
    """
    frequency: dict[str, int] = {}
    for caption in captions:
        for tag in filter(None, (part.strip().lower() for part in caption.split(","))):
            frequency[tag] = frequency.get(tag, 0) + 1
    folder = f"1_{trigger}" if trigger else "1_images"
    version, architecture = base.family.names(base.schedule.prediction_type)
    fields = {
        "network_module": "networks.lora",
        "network_dim": str(rank),
        "network_alpha": f"{alpha:g}",
        "output_name": title,
        "base_model_version": version,
        "sd_model_name": Path(base.name).name,
        "v2": str(version.startswith("sd_v2")),
        "session_id": str(int(session[:8], 16)),
        "num_train_images": str(len(captions)),
        "resolution": f"({resolution}, {resolution})",
        "dataset_dirs": json.dumps({folder: {"n_repeats": 1, "img_count": len(captions)}}),
        "tag_frequency": json.dumps({folder: dict(sorted(frequency.items()))}, ensure_ascii=False),
        **settings,
    }
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        # kohya's rule: SDXL's names are those of Stability's own code
        "implementation": SDXL_CODE if base.family.pooled else "diffusers",
        "title": title,
        "resolution": f"{resolution}x{resolution}",
        "prediction_type": {"epsilon": "epsilon", "v_prediction": "v"}[base.schedule.prediction_type],
        **({"trigger_phrase": trigger} if trigger else {}),
    }
    return {f"ss_{k}": v for k, v in fields.items()} | {f"modelspec.{k}": v for k, v in spec.items()}
