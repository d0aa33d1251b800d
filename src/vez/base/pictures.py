"""Pictures to latents and back: the VAE's side of a base."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vez.base.model import Base
from vez.errors import BaseModelError, DataError
from vez.nets.vae import Vae
from vez.store import write_atomic


@torch.no_grad()
def encode_images(base: Base, pixels: NDArray[np.uint8]) -> Tensor:
    """The VAE's moments of RGB pictures: (N, H, W, 3) uint8 -> (N, 8, h, w) fp32, scaled mean ‖ scaled deviation.

    One picture at a time, so that a picture's moments do not depend on its company. Raises DataError for sizes that do
    not divide into latents.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise DataError(f"pictures must be (N, H, W, 3) bytes, not {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[1:3]
    if height % base.latent_factor or width % base.latent_factor:
        raise DataError(f"pictures of {width}×{height} pixels do not divide by {base.latent_factor}; crop them so")
    moments, vae = [], _vae(base)
    for picture in pixels:
        x = torch.from_numpy(np.array(picture)).to(base.device).permute(2, 0, 1)[None]  # (1, 3, H, W)
        moments.append(torch.cat(vae.encode(x.float() / 127.5 - 1), dim=1) * base.latent_scale)  # (1, 8, h, w)
    return torch.cat(moments)


def cached_moments(base: Base, pixels: NDArray[np.uint8], *, sha256: str, cache: Path | None) -> Tensor:
    """`encode_images` of one picture (H, W, 3) -> (8, h, w), kept in the folder ``cache`` by pixel hash and VAE.

    ``sha256`` is the hash of the pixels. A damaged cache file is made again.
    """
    if cache is None:
        return encode_images(base, pixels[None])[0]
    made_by = f"{base.vae_sha256}:{base.latent_scale!r}"  # one VAE file can serve two families, scaled otherwise
    key = hashlib.sha256(f"moments-2:{made_by}:{pixels.shape}:{sha256}".encode()).hexdigest()
    file = cache / f"{key}.safetensors"
    if file.is_file():
        try:
            kept: Tensor = load_tensors(file.read_bytes())["moments"]
            return kept.to(base.device)
        except (SafetensorError, KeyError):
            file.unlink()
    moments = encode_images(base, pixels[None])[0]
    write_atomic(file, save_tensors({"moments": moments.cpu().contiguous()}))
    return moments


@torch.no_grad()
def decode_latents(
    base: Base, latents: Tensor, *, batch: int = 8, decoder: Callable[[Tensor], Tensor] | None = None
) -> NDArray[np.uint8]:
    """Scaled latents as RGB pictures: (N, 4, h, w) -> (N, H, W, 3) uint8, ``batch`` at a time.

    ``decoder`` is asked in place of the base's.
    """
    pictures, decode = [], decoder or _vae(base).decode
    for some in torch.split(latents.float(), batch):
        x = decode(some / base.latent_scale)  # (n, 3, H, W)
        x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        pictures.append(x.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(pictures)


def _vae(base: Base) -> Vae:
    if base.vae is None:
        raise BaseModelError(f"the base {base.name!r} holds no VAE; take one that does")
    return base.vae
