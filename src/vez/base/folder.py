"""A base in diffusers' layout: one folder per part, each with its configuration and its weights."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from vez.base.model import Parts, Prediction
from vez.base.schedule import schedule_of
from vez.errors import BaseModelError
from vez.family import family_of, layout_of

_MODEL, _TEXT = "diffusion_pytorch_model.safetensors", "model.safetensors"
_WEIGHTS = {"unet": _MODEL, "vae": _MODEL, "text_encoder": _TEXT}
_CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "vocab.json"}
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SECOND = ("text_encoder_2", "tokenizer_2")  # SDXL's
HUB_FILES = (
    "model_index.json",
    "*/*.json",
    "tokenizer/*",
    "tokenizer_2/*",
    *(f"{part}/{name}" for part, name in _WEIGHTS.items()),
    f"text_encoder_2/{_TEXT}",
)


def read_folder(path: Path, *, dtype: torch.dtype, prediction: Prediction | None = None) -> Parts:
    """The parts of a diffusers folder. Raises BaseModelError."""
    weights = _check_files(path)
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in weights]
    unet_config = read_json(path / "unet" / "config.json")
    text_configs = [read_json(path / part / "config.json") for part in texts]
    layout = layout_of(unet_config, text_configs)
    family = family_of(unet_config, text_configs, layout)
    schedule = schedule_of(read_json(path / "scheduler" / _CONFIGS["scheduler"]), prediction=prediction)
    vae = read_module(AutoencoderKL, weights["vae"], torch.float32)
    tokenizers = tuple(read_tokenizer(path / part.replace("text_encoder", "tokenizer")) for part in texts)
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    vae_config: Any = vae.config
    factor = 2 ** (len(vae_config.block_out_channels) - 1)
    configs = [path / part / name for part, name in _CONFIGS.items()]
    if len(texts) > 1:
        configs.append(path / "tokenizer_2" / _CONFIGS["tokenizer"])
    return Parts(
        unet=read_module(UNet2DConditionModel, weights["unet"], dtype),
        vae=vae,
        text_encoders=tuple(read_module(kinds[n], weights[part], dtype) for n, part in enumerate(texts)),
        tokenizers=tokenizers,
        pads=tuple(int(tokenizer.pad_token_id) for tokenizer in tokenizers),
        family=family,
        layout=layout,
        schedule=schedule,
        size=int(unet_config.get("sample_size") or 64) * factor,
        latent_scale=float(vae_config.scaling_factor),
        weights=weights,
        files=(*weights.values(), *configs),
    )


def read_tokenizer(path: Path) -> Any:
    """A folder's tokenizer. Raises BaseModelError."""
    try:
        return CLIPTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"the tokenizer in {path} cannot be read ({error}); copy the folder again") from error


def _check_files(path: Path) -> dict[str, Path]:
    """The weight files of a diffusers folder; BaseModelError says which part is missing."""
    second = _SECOND if (path / _SECOND[0]).is_dir() else ()
    needed = {part: _CONFIGS.get(part, "config.json") for part in PARTS}
    needed |= {part: _CONFIGS.get(part.removesuffix("_2"), "config.json") for part in second}
    missing = [part for part, name in needed.items() if not (path / part / name).is_file()]
    if missing:
        raise BaseModelError(
            f"{path} is not a Stable Diffusion folder: it lacks {', '.join(missing)}; "
            f"it needs the folders {', '.join(needed)} as diffusers writes them"
        )
    names = _WEIGHTS | ({_SECOND[0]: _TEXT} if second else {})
    return {part: weight_file(path / part, name) for part, name in names.items()}


def weight_file(folder: Path, name: str = _MODEL) -> Path:
    """The weights in a part's folder, full or half precision. Raises BaseModelError where there are none."""
    half = name.replace(".safetensors", ".fp16.safetensors")
    found = next((f for f in (folder / name, folder / half) if f.is_file()), None)
    if found is None:
        raise BaseModelError(
            f"{folder} holds no {name}; vez reads safetensors only, since .bin and .ckpt files can run code: "
            "save the base again with safe_serialization=True"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file. Raises BaseModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} cannot be read ({error}); copy the base again") from error
    if not isinstance(value, dict):
        raise BaseModelError(f"{path} is not a configuration; copy the base again")
    return value


def read_module(kind: Any, weights: Path, dtype: torch.dtype) -> nn.Module:
    """One part from its folder, frozen; every one of its weights must be in the file, and fit."""
    variant = "fp16" if weights.name.endswith(".fp16.safetensors") else None
    key = "dtype" if kind in (CLIPTextModel, CLIPTextModelWithProjection) else "torch_dtype"
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a library's bar on stderr; what a person sees are vez's events
    try:
        module, info = kind.from_pretrained(
            weights.parent,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{key: dtype},
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise BaseModelError(f"{weights} cannot be loaded ({first}); copy the base again") from error
    finally:
        if bar:
            transformers_logging.enable_progress_bar()
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise BaseModelError(f"{weights} lacks {wrong[0]!r} and {len(wrong) - 1} more weights; copy the base again")
    frozen: nn.Module = module.eval().requires_grad_(False)
    return frozen
