"""Write a LoRA in kohya's layout or in diffusers', and compare what was written with what was meant."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vez.errors import LoraFileError
from vez.files.names import PREFIXES, Place, to_diffusers, to_kohya
from vez.files.reading import ADAPTER_METADATA, FamilyName, LoraFile, read
from vez.interop import LoraWeights, sshs_hashes, to_bytes
from vez.store import write_atomic

Written = Literal["kohya", "diffusers"]
# What kohya keeps of the header when it is told to write none.
MINIMUM = (
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
)
_OF_A_LAYOUT = ("format", ADAPTER_METADATA, "sshs_model_hash", "sshs_legacy_hash")  # made anew for each file


def write(path: Path, lora: LoraFile, *, layout: Written, dtype: torch.dtype, force: bool = False) -> int:
    """Write ``lora`` and read it back; returns the file's size in bytes.

    kohya's layout gets kohya's two hashes over it, diffusers' the header without which its alphas are lost; all other
    metadata stays. Raises LoraFileError if the file exists (unless ``force``), if a weight does not fit ``dtype``, or
    if the file does not read back as it was written.
    """
    if path.suffix != ".safetensors":
        raise LoraFileError(f"{path} must end in .safetensors, the one format for weights that cannot run code")
    if path.is_dir() or (path.exists() and not force):
        raise LoraFileError(f"{path} exists; take another name, or --force to replace a file")
    if not lora.modules:
        raise LoraFileError("there is nothing left to write: no module of this LoRA changes anything")
    kept = {key: value for key, value in lora.metadata.items() if key not in _OF_A_LAYOUT}
    if layout == "kohya":
        tensors = kohya_tensors(lora, dtype=dtype)
        metadata = {**kept, **sshs_hashes(tensors, kept)}
    else:
        tensors, metadata = diffusers_tensors(lora, dtype=dtype)
        metadata = {**kept, **metadata}
    data = to_bytes(tensors, metadata)
    write_atomic(path, data)
    _compare(path, lora, dtype)
    return len(data)


def kohya_tensors(lora: LoraFile, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors by kohya's names: SD 1.x and 2.x as diffusers' paths, SDXL as LDM's."""
    tensors = {}
    for place, weights in lora.modules.items():
        name, weights = to_kohya(place, sdxl=lora.family == "sdxl"), _with_alpha(weights)
        tensors[f"{name}.lora_down.weight"] = _cast(weights.down, dtype, name)
        tensors[f"{name}.lora_up.weight"] = _cast(weights.up, dtype, name)
        alpha = torch.tensor(weights.alpha).to(dtype)
        # an alpha that is rounded rescales the whole module; every reader takes it in any type
        tensors[f"{name}.alpha"] = alpha if float(alpha) == weights.alpha else torch.tensor(weights.alpha)
    return tensors


def diffusers_tensors(lora: LoraFile, *, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors as diffusers and peft name them, and the header that carries ranks and alphas.

    The most frequent rank and alpha are the network's, others stand in rank_pattern and alpha_pattern. Targets are
    whole paths, so that no other module is adapted by chance.
    """
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for network, prefix in PREFIXES.items():
        part = {place: _as_module(place, w, lora.family) for place, w in lora.modules.items() if place[0] == network}
        if not part:
            continue
        rank = Counter(weights.rank for weights in part.values()).most_common(1)[0][0]
        alpha = Counter(weights.alpha for weights in part.values()).most_common(1)[0][0]
        config |= {
            f"{prefix}.r": rank,
            f"{prefix}.lora_alpha": alpha,
            f"{prefix}.rank_pattern": {p.path: w.rank for p, w in part.items() if w.rank != rank},
            f"{prefix}.alpha_pattern": {p.path: w.alpha for p, w in part.items() if w.alpha != alpha},
            f"{prefix}.target_modules": [place.path for place in part],
        }
        for place, weights in part.items():
            path = to_diffusers(place)
            tensors[f"{path}.lora_A.weight"] = _cast(weights.down, dtype, path)
            tensors[f"{path}.lora_B.weight"] = _cast(weights.up, dtype, path)
    return tensors, {"format": "pt", ADAPTER_METADATA: json.dumps(config, sort_keys=True)}


def minimum(metadata: Mapping[str, str]) -> dict[str, str]:
    """What kohya's `--no_metadata` leaves: enough for a program to load the file, nothing about the pictures."""
    return {key: metadata[key] for key in MINIMUM if key in metadata}


def _as_module(place: Place, weights: LoraWeights, family: FamilyName) -> LoraWeights:
    """Shapes as the diffusers module has them: proj_in and proj_out are convolutions in SD 1.x, linear after it."""
    if not place.path.endswith((".proj_in", ".proj_out")) or family == "tiny":
        return weights
    return shaped(weights, 4 if family == "sd1" else 2)


def shaped(weights: LoraWeights, dimensions: int) -> LoraWeights:
    """The same LoRA of a 1×1 convolution as of a linear layer (2), or the other way (4)."""
    down, up = weights.down, weights.up
    if down.dim() == dimensions or down[0, 0].numel() != 1:
        return weights
    if dimensions == 2:
        return weights._replace(down=down.flatten(1), up=up.flatten(1))
    return weights._replace(down=down[..., None, None], up=up[..., None, None])


def _with_alpha(weights: LoraWeights) -> LoraWeights:
    """For kohya alpha 0 means alpha = rank, so a module of scale 0 is written with zeros instead."""
    if weights.alpha != 0:
        return weights
    return LoraWeights(weights.down, torch.zeros_like(weights.up), float(weights.rank))


def _cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    cast = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.isfinite(cast).all():
        raise LoraFileError(f"{name} holds numbers too large for {str(dtype)[6:]}; write it with --dtype fp32 or bf16")
    return cast


def _compare(path: Path, lora: LoraFile, dtype: torch.dtype) -> None:
    """Raise LoraFileError unless the file holds exactly ``lora``, rounded to ``dtype``."""
    again = read(path).modules
    for place, weights in lora.modules.items():
        found, meant = again.get(place), _with_alpha(weights)
        same = (
            found is not None
            and found.rank == meant.rank
            and _scale(found) == _scale(meant)
            and all(
                torch.equal(a.flatten(), b.to(dtype).float().flatten())
                for a, b in zip(found[:2], meant[:2], strict=True)
            )
        )
        if not same:
            raise LoraFileError(f"{path} does not read back as it was written ({place.path}); the disk may be failing")
    if len(again) != len(lora.modules):
        raise LoraFileError(f"{path} does not read back as it was written; the disk may be failing")


def _scale(weights: LoraWeights) -> float:
    return float(torch.tensor(weights.alpha)) / weights.rank
