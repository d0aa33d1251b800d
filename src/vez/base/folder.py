"""A base in diffusers' layout: one folder per part, each with its configuration and its weights."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vez.base.model import Parts, Prediction, TextNetwork
from vez.base.schedule import schedule_of
from vez.errors import BaseModelError
from vez.family import family_of, layout_of
from vez.nets.clip import ProjectedTextEncoder, TextConfig, TextEncoder
from vez.nets.tokens import read_tokenizer
from vez.nets.unet import UNet, UNetConfig
from vez.nets.vae import Vae, VaeConfig
from vez.nets.weights import Source, assemble, open_file

_MODEL, _TEXT = "diffusion_pytorch_model.safetensors", "model.safetensors"
_WEIGHTS = {"unet": _MODEL, "vae": _MODEL, "text_encoder": _TEXT}
_CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "vocab.json"}
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_SECOND = ("text_encoder_2", "tokenizer_2")  # SDXL's
_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_AGAIN = "copy the base again"
HUB_FILES = (
    "model_index.json",
    "*/*.json",
    "tokenizer/*",
    "tokenizer_2/*",
    *(f"{part}/{name}" for part, name in _WEIGHTS.items()),
    f"text_encoder_2/{_TEXT}",
)


def read_folder(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    prediction: Prediction | None = None,
    has_vae: bool = True,
    quantize: bool = False,
) -> Parts:
    """The parts of a diffusers folder. ``has_vae`` False: the VAE comes from elsewhere. Raises BaseModelError."""
    weights = _check_files(path)
    texts = [part for part in ("text_encoder", "text_encoder_2") if part in weights]
    unet_config = read_json(path / "unet" / "config.json")
    text_configs = [read_json(path / part / "config.json") for part in texts]
    own, texts_own = UNetConfig.of(unet_config), [TextConfig.of(config) for config in text_configs]
    layout = layout_of(unet_config, text_configs)
    family = family_of(unet_config, text_configs, layout)
    schedule = schedule_of(read_json(path / "scheduler" / _CONFIGS["scheduler"]), prediction=prediction)
    vae_config = VaeConfig.of(read_json(path / "vae" / "config.json"))
    tokenizers = tuple(read_tokenizer(path / part.replace("text_encoder", "tokenizer")) for part in texts)
    configs = [path / part / name for part, name in _CONFIGS.items()]
    if len(texts) > 1:
        configs.append(path / "tokenizer_2" / _CONFIGS["tokenizer"])
    return Parts(
        unet=read_unet(weights["unet"], own, dtype, device, quantize=quantize),
        vae=read_vae_weights(weights["vae"], vae_config, device) if has_vae else None,
        text_encoders=tuple(
            read_text(weights[part], config, dtype, device, projected=n == 1, quantize=quantize)
            for n, (part, config) in enumerate(zip(texts, texts_own, strict=True))
        ),
        tokenizers=tokenizers,
        pads=tuple(tokenizer.pad for tokenizer in tokenizers),
        family=family,
        layout=layout,
        schedule=schedule,
        size=own.sample_size * 2 ** (len(vae_config.block_out_channels) - 1),
        latent_scale=vae_config.scaling_factor,
        weights=weights,
        files=(*weights.values(), *configs),
    )


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


def read_unet(
    weights: Path, config: UNetConfig, dtype: torch.dtype, device: torch.device, *, quantize: bool = False
) -> UNet:
    """A U-Net from its file, frozen; every one of its weights must be in the file, and fit. Raises BaseModelError."""
    return assemble(
        lambda: UNet(config), _sources(weights), dtype=dtype, device=device, what=str(weights), again=_AGAIN,
        quantize=quantize,
    )  # fmt: skip


def read_vae_weights(weights: Path, config: VaeConfig, device: torch.device) -> Vae:
    """A VAE from its file, fp32. Those of 2022 call the attention's matrices otherwise. Raises BaseModelError."""
    sources = {}
    for name, source in _sources(weights).items():
        for old, new in _OLD_VAE.items():
            name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
        sources[name] = source
    return assemble(lambda: Vae(config), sources, dtype=torch.float32, device=device, what=str(weights), again=_AGAIN)


def read_text(
    weights: Path,
    config: TextConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    projected: bool,
    quantize: bool = False,
) -> TextNetwork:
    """A text encoder from its file. Raises BaseModelError."""
    level = "text_model." if projected else ""  # files have it in front of each name or leave it out
    sources = {
        name if name.startswith("text_projection") else level + name.removeprefix("text_model."): source
        for name, source in _sources(weights).items()
    }
    make = ProjectedTextEncoder if projected else TextEncoder
    return assemble(
        lambda: make(config), sources, dtype=dtype, device=device, what=str(weights), again=_AGAIN, quantize=quantize
    )


def _sources(weights: Path) -> dict[str, Source]:
    file = open_file(weights)
    return {name: partial(file.get, name) for name in file.entries}
