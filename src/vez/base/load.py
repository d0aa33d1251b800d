"""Loading a base: where it lies, its parts from whichever layout, and what was asked for besides."""

from dataclasses import replace
from pathlib import Path

import torch

from vez.base.folder import HUB_FILES, read_folder
from vez.base.frugal import few_primitives, large
from vez.base.model import Base, Parts, Prediction
from vez.base.single import read_single
from vez.base.source import locate, tiny_path
from vez.base.vae import read_vae
from vez.config import Quantize
from vez.errors import BaseModelError

PIECE = 75
"""Tokens of a caption that a text encoder reads at a time."""


def load(
    name: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    vae: str | None = None,
    tokenizer: str | None = None,
    prediction: Prediction | None = None,
    clip_skip: int | None = None,
    tokens: int = PIECE,
    quantize: Quantize = "none",
) -> Base:
    """Load a base, frozen. Raises BaseModelError.

    Args:
        name: "tiny", a folder in diffusers' layout, a hub id, or a single LDM file (.safetensors; .ckpt of weights).
        device: where it goes.
        dtype: what U-Net and text encoders compute in: bfloat16 is about twice as fast where the processor knows it.
        vae: another VAE than the base's own: a folder, a hub id or a file.
        tokenizer: a folder or hub id with CLIP's tokenizer, which a single file lacks; None: OpenAI's.
        prediction: what the U-Net predicts, where the base says it wrongly or not at all.
        clip_skip: the text encoder's layer that is read, counted from the end (kohya's); None: the family's custom.
        tokens: longest caption, a multiple of 75.
        quantize: "int8" keeps the weights in U-Net and text encoders' blocks in eight bits (`vez.nets.coded`).
    """
    where, coded = torch.device(device), quantize == "int8"
    path = tiny_path() if name == "tiny" else locate(name, what="base", patterns=HUB_FILES)
    if path.is_file():
        parts = read_single(
            path, dtype=dtype, device=where, prediction=prediction, tokenizer=tokenizer, has_vae=vae is None,
            quantize=coded,
        )  # fmt: skip
    elif tokenizer:
        raise BaseModelError(f"the base {name!r} has a tokenizer of its own; leave tokenizer out of [project]")
    else:
        parts = read_folder(path, dtype=dtype, device=where, prediction=prediction, has_vae=vae is None, quantize=coded)
    if vae is not None:
        parts = _with_vae(name, parts, vae, where)
    skip = parts.family.clip_skip if clip_skip is None else clip_skip
    if not 1 <= skip <= min(parts.layout.text_layers):
        raise BaseModelError(
            f"clip_skip is {skip}, but the base {name!r} has text encoders of "
            f"{' and '.join(str(n) for n in parts.layout.text_layers)} layers; take a number from 1 to that"
        )
    if tokens < PIECE or tokens % PIECE:
        raise BaseModelError(f"captions of {tokens} tokens cannot be; take 75, 150 or 225")
    # Only what differs from the base as it is: ids of artifacts made before such a setting existed stay as they are.
    settings = [f"clip_skip={skip}"] * (skip != parts.family.clip_skip) + [f"tokens={tokens}"] * (tokens != PIECE)
    if prediction is not None or path.is_file():  # of a file it can hang on its name, which is not in its hash
        settings.append(f"predicts={parts.schedule.prediction_type}")
    if where.type == "cpu" and large(parts.unet):
        few_primitives()
    base = _base(name, path, parts, where, dtype)
    return replace(base, clip_skip=skip, chunks=tokens // PIECE, settings=tuple(settings), quantize=quantize)


def _with_vae(name: str, parts: Parts, source: str, device: torch.device) -> Parts:
    """The parts with another VAE. Raises BaseModelError where it is of another family."""
    vae, file, scale = read_vae(source, device)
    if scale is not None and abs(scale - parts.latent_scale) > 1e-6:
        raise BaseModelError(
            f"the VAE {source!r} scales its latents by {scale}, but the base {name!r} ({parts.family.title}) was "
            f"trained on ones scaled by {parts.latent_scale}; take a VAE for that family"
        )
    if vae.config.latent_channels != 4:
        raise BaseModelError(
            f"the VAE {source!r} has {vae.config.latent_channels} latent channels, not 4; take another"
        )
    files = tuple(f for f in parts.files if f != parts.weights["vae"] or f == parts.weights["unet"])
    return replace(
        parts,
        vae=vae,
        weights={**parts.weights, "vae": file},
        files=(*files, file),
        notes=(*parts.notes, f"VAE {source}"),
    )


def _base(name: str, path: Path, parts: Parts, device: torch.device, dtype: torch.dtype) -> Base:
    if parts.vae is None:
        raise BaseModelError(f"the base {name!r} holds no VAE; name one as vae in [project]")
    return Base(
        name=name,
        path=path,
        family=parts.family,
        layout=parts.layout,
        unet=parts.unet,
        vae=parts.vae,
        text_encoders=parts.text_encoders,
        tokenizers=parts.tokenizers,
        pads=parts.pads,
        schedule=parts.schedule.on(device),
        size=parts.size,
        device=device,
        dtype=dtype,
        latent_scale=parts.latent_scale,
        latent_factor=2 ** (len(parts.vae.config.block_out_channels) - 1),
        weights=parts.weights,
        files=parts.files,
        notes=parts.notes,
    )
