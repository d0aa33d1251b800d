"""A base, or a VAE, from one file: its weights under the names that the networks have for them."""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vez import ldm
from vez.base.model import Parts, Prediction, TextNetwork
from vez.base.schedule import STABLE_DIFFUSION, schedule_of
from vez.base.source import locate
from vez.errors import BaseModelError
from vez.family import Family, family_of, layout_of
from vez.nets.clip import ProjectedTextEncoder, TextConfig, TextEncoder
from vez.nets.tokens import Tokenizer, read_tokenizer
from vez.nets.unet import UNet, UNetConfig
from vez.nets.vae import Vae, VaeConfig
from vez.nets.weights import Source, assemble, open_file

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json")
_OPEN_CLIP_PAD = 0  # "!": what OpenCLIP's captions are filled up with
_AGAIN = "download the file again"
_V = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}


@dataclass(frozen=True)
class Weights:
    """An opened file: the shapes of its tensors, its metadata, and how one is read."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    get: Callable[[str], Tensor]


def open_weights(path: Path) -> Weights:
    """Open a .safetensors, or a .ckpt that holds weights and nothing that would run. Raises BaseModelError."""
    if path.suffix.lower() == ".ckpt":
        return _open_pickle(path)
    opened = open_file(path)
    return Weights(path, opened.shapes, opened.metadata, opened.get)


def _open_pickle(path: Path) -> Weights:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's word on old pickle protocols is nobody's to act on
            read = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise BaseModelError(
            f"{path} holds more than weights, and reading it would run its code; take the .safetensors file of the "
            "same model instead"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"{path} cannot be read ({first}); download it again") from error
    state = read.get("state_dict", read) if isinstance(read, dict) else {}
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return Weights(path, {name: tuple(value.shape) for name, value in tensors.items()}, {}, tensors.__getitem__)


def read_single(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    prediction: Prediction | None = None,
    tokenizer: str | None = None,
    has_vae: bool = True,
    quantize: bool = False,
) -> Parts:
    """The parts of a single-file checkpoint. ``has_vae`` False: the VAE comes from elsewhere. Raises BaseModelError."""
    file = open_weights(path)
    found = ldm.contents_of(file.shapes, name=str(path))
    configs = [config for _, config in found.texts]
    layout = layout_of(found.unet, configs)
    family = family_of(found.unet, configs, layout)
    predicted, said = _prediction(file, prediction, sd2=found.texts[0][0] == ldm.OPEN_CLIP)
    zero = "ztsnr" in file.shapes
    schedule = schedule_of(STABLE_DIFFUSION | {"rescale_betas_zero_snr": zero}, prediction=predicted)
    words, vocabulary = _tokenizer(tokenizer)
    if found.vae is None and has_vae:
        raise BaseModelError(f"{path} holds no VAE; name one as vae in [project] (a file, a folder or a hub id)")
    return Parts(
        unet=_unet(file, found.unet, dtype, device, quantize=quantize),
        vae=vae_of(file, found.vae, ldm.VAE, device) if found.vae and has_vae else None,
        text_encoders=tuple(
            _text(file, prefix, config, words, dtype, device, projected=n == 1, quantize=quantize)
            for n, (prefix, config) in enumerate(found.texts)
        ),
        tokenizers=(words,) * len(found.texts),
        pads=tuple(
            _OPEN_CLIP_PAD if prefix in (ldm.OPEN_CLIP, ldm.OPEN_CLIP_XL) else words.end for prefix, _ in found.texts
        ),
        family=family,
        layout=layout,
        schedule=schedule,
        size=_size(file, family, predicted),
        latent_scale=family.latent_scale,
        weights={"unet": path, "vae": path, "text_encoder": path},
        files=(path, vocabulary),
        notes=(said,) if said else (),
    )


def _prediction(file: Weights, asked: Prediction | None, *, sd2: bool) -> tuple[Prediction, str]:
    """What the U-Net predicts, and, where the file does not plainly say so, how that was found.

    Raises BaseModelError for an SD 2.x file that gives no sign: both kinds were published in the same shapes.
    """
    if asked:
        return asked, "as [project] prediction says"
    written = file.metadata.get("modelspec.prediction_type", "").lower()
    if written:
        if written not in _V:
            raise BaseModelError(
                f"{file.path} predicts {written[:40]!r} by its metadata; vez knows epsilon and v. If that is a "
                "mistake, set prediction in [project]"
            )
        return ("v_prediction" if _V[written] == "v_prediction" else "epsilon"), "as the file's metadata says"
    if "v_pred" in file.shapes:
        return "v_prediction", "as the file's v_pred mark says"
    if not sd2:
        return "epsilon", ""
    name = file.path.stem.lower()
    for mark, predicts in (("768", "v_prediction"), ("-v-", "v_prediction"), ("512", "epsilon"), ("base", "epsilon")):
        if mark in name:
            word: Prediction = "v_prediction" if predicts == "v_prediction" else "epsilon"
            return word, f'guessed from "{mark}" in the file\'s name: set prediction in [project] if it is wrong'
    raise BaseModelError(
        f"{file.path} is an SD 2.x checkpoint that does not say whether it predicts epsilon (the 512 base) or v (the "
        '768 model); set prediction = "epsilon" or prediction = "v" in [project]'
    )


def _size(file: Weights, family: Family, predicted: Prediction) -> int:
    """Side of the base's own pictures: as its metadata says, else as its family was trained."""
    side = file.metadata.get("modelspec.resolution", "").partition("x")[0]
    if side.isdecimal() and 64 <= int(side) <= 4096 and int(side) % 8 == 0:
        return int(side)
    return 768 if family.name == "sd2" and predicted == "v_prediction" else family.size


def _tokenizer(source: str | None) -> tuple[Tokenizer, Path]:
    """The tokenizer that a single file lacks, and its vocabulary's file."""
    try:
        folder = locate(source or ldm.TOKENIZER, what="tokenizer", patterns=_TOKENIZER_FILES)
    except BaseModelError as error:
        if source:
            raise
        raise BaseModelError(
            f"a single file holds no tokenizer, and CLIP's ({ldm.TOKENIZER}) is not to be had; set tokenizer in "
            "[project] to a folder with its vocab.json and merges.txt, such as the tokenizer folder of any diffusers "
            "Stable Diffusion"
        ) from error
    if (folder / "tokenizer").is_dir():
        folder = folder / "tokenizer"
    return read_tokenizer(folder), next(f for f in (folder / "vocab.json", folder / "tokenizer.json") if f.is_file())


def _unet(file: Weights, config: dict[str, Any], dtype: torch.dtype, device: torch.device, *, quantize: bool) -> UNet:
    sources: dict[str, Source] = {}
    for name in file.shapes:
        if name.startswith(ldm.UNET):
            other = ldm.unet_name(name.removeprefix(ldm.UNET), layers=config["layers_per_block"])
            if other is not None:
                sources[other] = partial(file.get, name)
    own = UNetConfig.of(config)
    return assemble(
        lambda: UNet(own), sources, dtype=dtype, device=device, what=f"the U-Net in {file.path}", again=_AGAIN,
        complete=True, quantize=quantize,
    )  # fmt: skip


def vae_of(file: Weights, config: dict[str, Any], prefix: str, device: torch.device) -> Vae:
    """The VAE under a prefix of a file, fp32. Its 1×1 convolutions of attention become linear layers."""
    levels = len(config["block_out_channels"])
    sources: dict[str, Source] = {}
    for name, shape in file.shapes.items():
        other = ldm.vae_name(name.removeprefix(prefix), levels=levels) if name.startswith(prefix) else None
        if other is not None:
            flat = ".attentions." in other and len(shape) == 4
            sources[other] = partial(_flat, file, name) if flat else partial(file.get, name)
    own, single = VaeConfig.of(config), torch.float32
    return assemble(
        lambda: Vae(own), sources, dtype=single, device=device, what=f"the VAE in {file.path}", again=_AGAIN,
        complete=True,
    )  # fmt: skip


def _flat(file: Weights, name: str) -> Tensor:
    return file.get(name)[:, :, 0, 0]


def _turned(file: Weights, name: str) -> Tensor:
    return file.get(name).T


def _third(file: Weights, name: str, n: int, of: int) -> Tensor:
    return file.get(name).chunk(of)[n]


def _text(
    file: Weights,
    prefix: str,
    config: dict[str, Any],
    words: Tokenizer,
    dtype: torch.dtype,
    device: torch.device,
    *,
    projected: bool,
    quantize: bool,
) -> TextNetwork:
    """One text encoder; OpenCLIP's fused q‖k‖v are taken apart and its projection is turned."""
    if len(words) > config["vocab_size"]:
        raise BaseModelError(
            f"the tokenizer knows {len(words)} tokens, but the text encoder in {file.path} only "
            f"{config['vocab_size']}; set tokenizer in [project] to the one it was trained with"
        )
    level = "text_model." if projected else ""
    unread = f"encoder.layers.{config['num_hidden_layers']}."  # SD 2.x's last
    sources: dict[str, Source] = {}
    for name in file.shapes:
        if not name.startswith(prefix):
            continue
        short = name.removeprefix(prefix)
        if prefix in (ldm.OPEN_CLIP, ldm.OPEN_CLIP_XL):
            others = ldm.open_clip_names(short)
        else:
            others = (other,) if (other := ldm.clip_name(short)) else ()
        for n, other in enumerate(others):
            if other == "text_projection.weight":
                if projected:
                    sources[other] = partial(_turned, file, name)
            elif not other.startswith(unread):
                parts = len(others)
                sources[level + other] = partial(_third, file, name, n, parts) if parts > 1 else partial(file.get, name)
    own = TextConfig.of(config | {"eos_token_id": words.end})
    make = ProjectedTextEncoder if projected else TextEncoder
    return assemble(
        lambda: make(own), sources, dtype=dtype, device=device, what=f"the text encoder in {file.path}", again=_AGAIN,
        complete=True, quantize=quantize,
    )  # fmt: skip
