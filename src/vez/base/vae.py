"""A VAE of one's own choice in place of the base's: a folder, a hub id, or a single file."""

from pathlib import Path

import torch

from vez import ldm
from vez.base.folder import read_json, read_vae_weights, weight_file
from vez.base.single import open_weights, vae_of
from vez.base.source import locate
from vez.errors import BaseModelError
from vez.nets.vae import Vae, VaeConfig

_NAME = "diffusion_pytorch_model"
HUB_FILES = (
    *(f"{folder}{name}" for folder in ("", "vae/") for name in ("config.json", f"{_NAME}.safetensors")),
    f"{_NAME}.fp16.safetensors",
)


def read_vae(source: str, device: torch.device) -> tuple[Vae, Path, float | None]:
    """The VAE called ``source``, the file of its weights, and its latents' scale, None where it does not say.

    Raises BaseModelError.
    """
    path = locate(source, what="VAE", patterns=HUB_FILES)
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        config = read_json(folder / "config.json")
        if config.get("_class_name") != "AutoencoderKL":
            raise BaseModelError(
                f"{folder} holds a {config.get('_class_name')}, not an AutoencoderKL; take another VAE"
            )
        weights = weight_file(folder)
        own = VaeConfig.of(config)
        return read_vae_weights(weights, own, device), weights, own.scaling_factor
    file = open_weights(path)
    prefix = ldm.VAE if any(name.startswith(ldm.VAE) for name in file.shapes) else ""
    if f"{prefix}encoder.down_blocks.0.resnets.0.conv1.weight" in file.shapes:
        raise BaseModelError(f"{path} has diffusers' names but no configuration; name the folder that it came in")
    try:
        config = ldm.vae_config(file.shapes, prefix)
    except (KeyError, ValueError) as error:
        raise BaseModelError(f"{path} holds no VAE (it lacks {error}); take another file") from error
    return vae_of(file, config, prefix, device), path, None
