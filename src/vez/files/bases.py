"""LoRAs and whole models: add LoRAs to a base's weights, take a LoRA out of the difference of two.

Weights are worked on by name, without building the model: SD 1.x, SD 2.x and SDXL alike, in the precision of the files.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vez import ldm
from vez.base.folder import HUB_FILES, weight_file
from vez.base.single import open_weights
from vez.base.source import locate, tiny_path
from vez.errors import BaseModelError, ConfigError, LoraFileError, StoreError
from vez.family import FAMILIES
from vez.family import family_of as base_family
from vez.files.names import PREFIXES, Network, Place, known
from vez.files.operations import Keep, Kept, factored
from vez.files.reading import LoraFile, family_of
from vez.interop import LoraWeights
from vez.room import sizes_of

_WEIGHTS = (".safetensors", ".ckpt", ".bin", ".msgpack", ".onnx", ".pt")
_ADAPTED = ("attn1.", "attn2.", "ff.net.", "proj_in", "proj_out", "encoder.layers.")


@dataclass(frozen=True)
class Extracted:
    """What a LoRA keeps of the difference of two models, and how many tensors differ that it cannot hold."""

    kept: Kept
    outside: int
    """Convolutions, norms, biases and embeddings that differ besides."""


def merge_into(base: str, loras: Sequence[LoraFile], weights: Sequence[float], out: Path) -> int:
    """Write the base with Σ weight · delta added as a new folder in diffusers' layout; returns the modules changed.

    Sums are fp32 and rounded once to the type of the base's files. The base is left as it is; ``out`` must not exist,
    and appears only when it is whole. Raises LoraFileError if a LoRA does not fit, before anything is written.
    """
    if out.exists():
        raise LoraFileError(f"{out} exists; a base is written into a new folder only")
    folder = _folder(base)
    files = _files(folder)
    changes: dict[Network, dict[Place, list[tuple[LoraWeights, float]]]] = {network: {} for network in files}
    for lora, weight in zip(loras, weights, strict=True):
        for place, module in lora.modules.items():
            if place.network not in changes:
                raise LoraFileError(
                    f"{_about(lora)} adapts {PREFIXES[place.network]}, which {_titled(base, folder)} lacks"
                )
            changes[place.network].setdefault(place, []).append((module, weight))
    about = _about(loras[0]) if len({lora.family for lora in loras}) == 1 else "a LoRA"
    for network, of in changes.items():
        _check(lambda: (about, _titled(base, folder)), _load(files[network]), of)
    making = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(making, ignore_errors=True)
        changed = [network for network, of in changes.items() if of]
        shutil.copytree(
            folder, making, ignore=lambda at, names: [n for n in names if _skipped(Path(at, n), folder, changed)]
        )
        for network in changed:
            target = making / PREFIXES[network] / files[network].name
            save_file(_changed(_load(files[network]), changes[network]), target, metadata={"format": "pt"})
        making.rename(out)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return sum(len(of) for of in changes.values())


def extract(tuned: str, base: str, keep: Keep) -> tuple[LoraFile, Extracted]:
    """The LoRA that best turns ``base`` into ``tuned``, by SVD of each module's difference; alpha = rank.

    Modules are those that kohya's LoRA adapts (attention, feed-forward, proj_in and proj_out, text encoders). A module
    that is equal, or differs by no more than the rounding of the coarser of two different types, is left out.
    Raises LoraFileError for models of different families or without a difference.
    """
    if keep == Keep():
        raise LoraFileError("how large is the LoRA to be? Give --rank, --energy or --sv-ratio")
    ours, theirs = _networks(tuned), _networks(base)
    if ours.keys() != theirs.keys():
        raise LoraFileError(f"{tuned!r} and {base!r} are of two families: one has more text encoders")
    modules: dict[Place, LoraWeights] = {}
    kept = total = 0.0
    outside = 0
    for network, opened in ours.items():
        after, before = opened(), {_plain(name): tensor for name, tensor in theirs[network]().items()}
        for name, new in sorted(after.items()):
            place = known(network, _plain(name).removesuffix(".weight"))
            if place and not any(part in place.path for part in _ADAPTED):
                place = None
            old = before.get(_plain(name))
            if (place and old is None) or (old is not None and old.numel() != new.numel()):
                raise LoraFileError(f"{tuned!r} and {base!r} have different sizes at {name}; they are of two families")
            if old is None or not new.is_floating_point():
                continue  # positions and projections that only one of two layouts has
            delta = new.float() - old.float().view(new.shape)
            if not torch.isfinite(delta).all():
                raise LoraFileError(f"{name} of {tuned!r} or {base!r} holds values that are not numbers")
            if float(delta.norm()) <= _rounding(new, old):
                continue
            if place is None:
                outside += 1
                continue
            u, values, v = torch.linalg.svd(delta.flatten(1), full_matrices=False)
            rank = keep.of(values)
            modules[place] = factored(u[:, :rank], values[:rank], v[:rank], scale=1.0, like=delta)
            kept, total = kept + float((values[:rank] ** 2).sum()), total + float((values**2).sum())
    if not modules:
        raise LoraFileError(f"{tuned!r} and {base!r} do not differ where a LoRA could hold it")
    ranks = [weights.rank for weights in modules.values()]
    lora = LoraFile(modules, {}, family_of(modules, {}), "kohya", torch.float16)
    return (
        LoraFile(lora.modules, _metadata(lora, tuned, base), lora.family, lora.layout, lora.dtype),
        Extracted(Kept(kept / total, (min(ranks), max(ranks))), outside),
    )


def _metadata(lora: LoraFile, tuned: str, base: str) -> dict[str, str]:
    """The header that kohya's own extraction writes, and what it was made from."""
    ranks = {weights.rank for weights in lora.modules.values()}
    dim = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    return {
        "ss_v2": str(lora.family == "sd2"),
        "ss_base_model_version": FAMILIES[lora.family].version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": dim,
        "ss_network_alpha": dim,
        "ss_network_args": "{}",
        "ss_training_comment": f"extracted: {Path(tuned).name} - {Path(base).name}",
    }


def _folder(name: str) -> Path:
    """Where a base in diffusers' layout lies. Raises BaseModelError."""
    path = tiny_path() if name == "tiny" else locate(name, what="base", patterns=HUB_FILES)
    if path.is_file():
        raise BaseModelError(
            f"{name} is a single file, and a base is written as a folder only; convert it first with diffusers' "
            "StableDiffusionPipeline.from_single_file(…).save_pretrained(…)"
        )
    if not (path / "unet").is_dir() or not (path / "text_encoder").is_dir():
        raise BaseModelError(f"{path} is not a Stable Diffusion folder: it lacks unet/ or text_encoder/")
    return path


def _networks(name: str) -> dict[Network, Callable[[], dict[str, Tensor]]]:
    """The networks of a model, folder or single file, each read when it is asked for; diffusers' names."""
    path = Path(name).expanduser()
    if path.is_file():
        return _in_single(locate(name, what="base", patterns=()))
    files = _files(_folder(name))
    return {network: partial(_load, file) for network, file in files.items()}


def _in_single(path: Path) -> dict[Network, Callable[[], dict[str, Tensor]]]:
    file = open_weights(path)
    found = ldm.contents_of(file.shapes, name=str(path))

    def unet() -> dict[str, Tensor]:
        names = {name: name.removeprefix(ldm.UNET) for name in file.shapes if name.startswith(ldm.UNET)}
        layers = found.unet["layers_per_block"]
        others = {name: ldm.unet_name(short, layers=layers) for name, short in names.items()}
        return {other: file.get(name) for name, other in others.items() if other is not None}

    def text(prefix: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name in file.shapes:
            if name.startswith(prefix):
                short = name.removeprefix(prefix)
                one = ldm.clip_name(short)
                open_clip = prefix in (ldm.OPEN_CLIP, ldm.OPEN_CLIP_XL)
                others = ldm.open_clip_names(short) if open_clip else (one,) if one else ()
                if others:  # OpenCLIP keeps q, k and v in one, and its projection the other way
                    value = file.get(name).T if short == "text_projection" else file.get(name)
                    tensors |= dict(zip(others, value.chunk(len(others)), strict=True))
        cut = f"encoder.layers.{config['num_hidden_layers']}."  # SD 2.x never reads its last layer
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(cut)}

    networks: tuple[Network, ...] = ("text", "text2")
    texts = {network: partial(text, *one) for network, one in zip(networks, found.texts, strict=False)}
    return {"unet": unet, **texts}


def _files(folder: Path) -> dict[Network, Path]:
    """The weight files of a diffusers folder."""
    stems: dict[Network, str] = {"unet": "diffusion_pytorch_model", "text": "model", "text2": "model"}
    return {
        network: weight_file(folder / prefix, f"{stems[network]}.safetensors")
        for network, prefix in PREFIXES.items()
        if (folder / prefix).is_dir()
    }


def _skipped(path: Path, folder: Path, changed: Sequence[Network]) -> bool:
    """Not copied: weights that are written anew, and copies of them in other forms, which would then disagree."""
    parents = (folder, *(folder / PREFIXES[network] for network in changed))
    return path.name.startswith(".") or (path.suffix in _WEIGHTS and path.parent in parents)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{file} cannot be read ({error}); copy the base again") from error
    return tensors


def _plain(name: str) -> str:
    """A tensor's name without the level that transformers 5 dropped."""
    return name.removeprefix("text_model.")


def _about(lora: LoraFile) -> str:
    return f"this LoRA ({FAMILIES[lora.family].title})"


def _titled(base: str, folder: Path) -> str:
    """A base's name, and its family where its configurations tell it."""
    try:
        sizes = sizes_of(folder)
        return f"{base!r} ({base_family(sizes.unet, sizes.texts, sizes.layout).title})"
    except (ConfigError, BaseModelError):
        return repr(base)


def _check(
    names: Callable[[], tuple[str, str]],
    tensors: Mapping[str, Tensor],
    changes: Mapping[Place, Sequence[tuple[LoraWeights, float]]],
) -> None:
    """Raise LoraFileError unless every module that is to change is there, in the LoRA's size.

    ``names`` says what LoRA and base are called in it.
    """
    sizes = {_plain(name): tensor.shape for name, tensor in tensors.items()}
    for place, modules in changes.items():
        size = sizes.get(f"{place.path}.weight")
        if size is None:
            lora, base = names()
            raise LoraFileError(f"{lora} adapts {place.path}, which {base} lacks: it is for another family")
        for weights, _ in modules:
            have, want = (weights.up.shape[0], weights.down[0].numel()), (size[0], size[1:].numel())
            if have != want:
                lora, base = names()
                raise LoraFileError(
                    f"{place.path} of {lora} is {have[0]}×{have[1]}, but {base} has {want[0]}×{want[1]} there: "
                    "it is for another base"
                )


def _changed(
    tensors: dict[str, Tensor], changes: Mapping[Place, Sequence[tuple[LoraWeights, float]]]
) -> dict[str, Tensor]:
    names = {_plain(name): name for name in tensors}
    for place, modules in changes.items():
        name = names[f"{place.path}.weight"]
        weight = tensors[name]
        change = sum((weights.delta() * strength for weights, strength in modules), torch.zeros(()))
        tensors[name] = (weight.float() + change.view(weight.shape)).to(weight.dtype)
        if not torch.isfinite(tensors[name]).all():
            raise LoraFileError(f"{name} would hold numbers too large for the base's {str(weight.dtype)[6:]}; "
                                "give a smaller --weight")  # fmt: skip
    return tensors


def _rounding(new: Tensor, old: Tensor) -> float:
    """How far two roundings of the same numbers may lie apart; 0 where both have one type."""
    if new.dtype == old.dtype or not new.is_floating_point():
        return 0.0
    eps = max(torch.finfo(new.dtype).eps, torch.finfo(old.dtype).eps)
    return eps / 2 * float(old.float().norm())
