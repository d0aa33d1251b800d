"""The base: the frozen model that is trained on; diffusers' and transformers' modules hold its weights.

A base is "tiny" (the one in the package), a folder in diffusers' layout, or a hub id. What differs between families
stands in `vez.family`; what differs between two bases of one family is read from their own configuration.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from vez.errors import BaseModelError, DataError
from vez.family import Family, Layout, family_of, layout_of
from vez.store import file_sha256, write_atomic

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
_CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "vocab.json"}
_HUB_FILES = ["model_index.json", "*/*.json", "tokenizer/*", *(f"{part}/{name}" for part, name in _WEIGHTS.items())]


@dataclass(frozen=True)
class Schedule:
    """The noise schedule: ``alphas_cumprod`` (T,) fp32 falls from nearly 1 to nearly 0 (DDPM; Ho et al. 2020)."""

    betas: Tensor
    alphas_cumprod: Tensor
    prediction_type: Literal["epsilon", "v_prediction"]

    def __len__(self) -> int:
        return len(self.betas)


@dataclass(eq=False)
class Base:
    """A loaded base: frozen modules in evaluation mode on one device.

    U-Net and text encoder have ``dtype``; the VAE is fp32.
    """

    name: str
    path: Path
    family: Family
    layout: Layout
    unet: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    schedule: Schedule
    size: int
    """Side of its own pictures, in pixels."""
    device: torch.device
    dtype: torch.dtype
    latent_scale: float
    latent_factor: int
    """Pixels per latent cell along one side."""
    weights: dict[str, Path]

    @cached_property
    def sha256(self) -> str:
        """One SHA-256 of the weights, the tokenizer and the schedule: what an artifact names as its base."""
        files = [*self.weights.values(), *(self.path / part / name for part, name in _CONFIGS.items())]
        return hashlib.sha256("\n".join(file_sha256(f) for f in files).encode()).hexdigest()

    @cached_property
    def vae_sha256(self) -> str:
        """SHA-256 of the VAE's weights: what cached latents depend on besides the pixels."""
        return file_sha256(self.weights["vae"])


def tiny_path() -> Path:
    """Folder of the base in the package."""
    return Path(__file__).parent / "demo" / "base"


def load(name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Base:
    """Load a base, frozen: "tiny", a folder in diffusers' layout, or a hub id. Raises BaseModelError.

    ``dtype`` is what U-Net and text encoder compute in: bfloat16 is about twice as fast where the processor knows it.
    """
    path = _folder(name)
    weights = _check_files(path)
    unet_config = _read_json(path / "unet" / "config.json")
    text_config = _read_json(path / "text_encoder" / "config.json")
    layout = layout_of(unet_config, text_config)
    family = family_of(unet_config, text_config, layout)
    schedule = _schedule(_read_json(path / "scheduler" / "scheduler_config.json"))
    device = torch.device(device)
    unet = _module(UNet2DConditionModel, weights["unet"], dtype).to(device)
    vae = _module(AutoencoderKL, weights["vae"], torch.float32).to(device)
    text_encoder = _module(CLIPTextModel, weights["text_encoder"], dtype).to(device)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"the tokenizer in {path} cannot be read ({error}); copy the folder again") from error
    vae_config: Any = vae.config
    factor = 2 ** (len(vae_config.block_out_channels) - 1)
    return Base(
        name=name,
        path=path,
        family=family,
        layout=layout,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        schedule=schedule,
        size=int(unet_config.get("sample_size") or 64) * factor,
        device=device,
        dtype=dtype,
        latent_scale=float(vae_config.scaling_factor),
        latent_factor=factor,
        weights=weights,
    )


def _folder(name: str) -> Path:
    """Where the base lies on this machine; a hub id is fetched first."""
    if name == "tiny":
        return tiny_path()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise BaseModelError(
            f"{name} is a single file, which vez cannot read yet; convert it to a folder with diffusers' "
            "StableDiffusionPipeline.from_single_file(…).save_pretrained(…) and name the folder"
        )
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise BaseModelError(
            f'there is no folder {name!r}; a base is "tiny", a diffusers folder, or a hub id (owner/name)'
        )
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseModelError(
            f"the base {name!r} is neither a folder here nor to be had from the hub ({first}); "
            "check the name and the network, or give a folder"
        ) from error


def _check_files(path: Path) -> dict[str, Path]:
    """The weight files of a diffusers folder; BaseModelError says which part is missing."""
    missing = [part for part in PARTS if not (path / part / _CONFIGS.get(part, "config.json")).is_file()]
    if missing:
        raise BaseModelError(
            f"{path} is not a Stable Diffusion folder: it lacks {', '.join(missing)}; "
            f"it needs the folders {', '.join(PARTS)} as diffusers writes them"
        )
    if (path / "text_encoder_2").is_dir():
        raise BaseModelError(f"{path} is an SDXL base, which vez cannot train yet; take an SD 1.x or SD 2.x one")
    weights = {}
    for part, name in _WEIGHTS.items():
        half = name.replace(".safetensors", ".fp16.safetensors")
        found = next((f for f in (path / part / name, path / part / half) if f.is_file()), None)
        if found is None:
            raise BaseModelError(
                f"{path / part} holds no {name}; vez reads safetensors only, since .bin and .ckpt files can run code: "
                "save the base again with safe_serialization=True"
            )
        weights[part] = found
    return weights


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} cannot be read ({error}); copy the base again") from error
    if not isinstance(value, dict):
        raise BaseModelError(f"{path} is not a configuration; copy the base again")
    return value


def _schedule(config: dict[str, Any]) -> Schedule:
    """The betas of diffusers' DDPM schedule, computed as it computes them."""
    kind, steps = config.get("beta_schedule"), int(config.get("num_train_timesteps", 1000))
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise BaseModelError(f"the base predicts {prediction!r}; vez knows epsilon and v_prediction")
    if config.get("rescale_betas_zero_snr"):
        raise BaseModelError("the base uses a zero terminal SNR schedule, which vez does not know yet")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float32)
    elif kind == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    elif kind == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float32)
    else:
        raise BaseModelError(f"the base's beta_schedule is {kind!r}; vez knows scaled_linear and linear")
    return Schedule(betas, torch.cumprod(1.0 - betas, dim=0), prediction)


def _module(kind: Any, weights: Path, dtype: torch.dtype) -> nn.Module:
    """One part from its folder, frozen; every one of its weights must be in the file, and fit."""
    variant = "fp16" if weights.name.endswith(".fp16.safetensors") else None
    key = "dtype" if kind is CLIPTextModel else "torch_dtype"
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


@contextmanager
def computing_in(base: Base, dtype: torch.dtype) -> Iterator[None]:
    """U-Net and text encoder compute in ``dtype`` inside the block; after it they have their own weights back.

    Whole networks are cast, once; autocast would cast every frozen weight anew at every step.
    """
    own, networks = base.dtype, (base.unet, base.text_encoder)
    kept = [(p, p.data) for network in networks for p in network.parameters() if p.dtype != dtype]
    try:
        for parameter, data in kept:
            parameter.data = data.to(dtype)
        base.dtype = dtype
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
        base.dtype = own


@contextmanager
def plain_attention(base: Base) -> Iterator[None]:
    """Attention in plain products inside the block: the fused one's backward is slow in bfloat16 on a CPU.

    At 64 to 256 tokens it took 1 to 9 times as long, forward and backward together (torch 2.13, AVX-512). Plain
    attention keeps all its matrices, so it is for small pictures.
    """
    unet: Any = base.unet
    text_encoder: Any = base.text_encoder
    processors, implementation = dict(unet.attn_processors), text_encoder.config._attn_implementation
    unet.set_attn_processor(AttnProcessor())
    text_encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        unet.set_attn_processor(processors)
        text_encoder.set_attn_implementation(implementation)


def tokenize(base: Base, captions: Sequence[str]) -> Tensor:
    """Captions as token ids, (N, 77) int64 on the base's device: cut or padded to the text encoder's length."""
    config: Any = base.text_encoder.config
    length = int(config.max_position_embeddings)
    ids: Tensor = base.tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids.to(base.device)


def text_states(base: Base, tokens: Tensor) -> Tensor:
    """The text encoder's last hidden state, final layer norm applied: (N, 77) -> (N, 77, D)."""
    states: Tensor = base.text_encoder(input_ids=tokens).last_hidden_state
    return states


@torch.no_grad()
def encode_text(base: Base, captions: Sequence[str]) -> Tensor:
    """Captions as the U-Net's conditioning, (N, 77, D) in the base's dtype."""
    return text_states(base, tokenize(base, captions))


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
    moments = []
    for picture in pixels:
        x = torch.from_numpy(np.array(picture)).to(base.device).permute(2, 0, 1)[None]  # (1, 3, H, W)
        posterior = base.vae.encode(x.float() / 127.5 - 1).latent_dist  # type: ignore[operator]
        moments.append(torch.cat([posterior.mean, posterior.std], dim=1) * base.latent_scale)  # (1, 8, h, w)
    return torch.cat(moments)


def cached_moments(base: Base, pixels: NDArray[np.uint8], *, sha256: str, cache: Path | None) -> Tensor:
    """`encode_images` of one picture (H, W, 3) -> (8, h, w), kept in the folder ``cache`` by pixel hash and VAE.

    ``sha256`` is the hash of the pixels. A damaged cache file is made again.
    """
    if cache is None:
        return encode_images(base, pixels[None])[0]
    key = hashlib.sha256(f"moments-1:{base.vae_sha256}:{pixels.shape}:{sha256}".encode()).hexdigest()
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
def decode_latents(base: Base, latents: Tensor, *, batch: int = 8) -> NDArray[np.uint8]:
    """Scaled latents as RGB pictures: (N, 4, h, w) -> (N, H, W, 3) uint8, ``batch`` at a time."""
    pictures = []
    for some in torch.split(latents.float(), batch):
        x: Tensor = base.vae.decode(some / base.latent_scale).sample  # type: ignore[operator]  # (n, 3, H, W)
        x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        pictures.append(x.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(pictures)
