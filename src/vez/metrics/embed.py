"""CLIP's two towers (Radford et al. 2021): pictures and texts as unit vectors in one space, cached by content.

Pictures are prepared here, with PIL and numpy, so that every machine feeds the tower the same pixels: OpenAI's
`Resize(n, BICUBIC) · CenterCrop(n)`, scaled and shifted by CLIP's own mean and deviation.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from vez.errors import BaseModelError, DataError
from vez.store import file_sha256, write_atomic

PUBLISHED: Final = "openai/clip-vit-base-patch32"
"""The tower that CLIPscore is defined with; its weight of 2.5 holds for no other."""

_PREPARED: Final = 1  # counts up when the same picture would be prepared otherwise: what is in a cache is then not used
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_DEVIATION: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


@dataclass(eq=False)
class Clip:
    """A loaded CLIP. ``sha256`` is of its weights, whatever file they came in; ``size`` the side it sees, in pixels."""

    name: str
    model: Any
    tokenizer: Any
    sha256: str
    size: int
    longest: int
    """Tokens of the longest text, start and end included (77)."""
    device: torch.device


def clip_for(base: str) -> str:
    """Which CLIP judges the pictures of a base: the one in the package for "tiny", else the published one."""
    return str(Path(__file__).parents[1] / "demo" / "clip") if base == "tiny" else PUBLISHED


def at_hand(source: str) -> bool:
    """Whether the weights are on this machine already: a folder, or fetched from the hub before."""
    return Path(source).is_dir() or isinstance(try_to_load_from_cache(source, "config.json"), str)


def load(source: str, *, device: str | torch.device = "cpu") -> Clip:
    """Load a CLIP from a folder or by its hub id. Raises BaseModelError.

    OpenAI's own weights may be a .bin file on the hub; transformers reads it with weights_only, which runs no code.
    """
    try:
        model, info = CLIPModel.from_pretrained(source, output_loading_info=True)
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the CLIP {source!r} cannot be loaded ({first}); give a folder that transformers' save_pretrained wrote"
        ) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        missing = [*info["missing_keys"], *info["mismatched_keys"]][0]
        raise BaseModelError(f"the CLIP {source!r} lacks {missing!r} and would measure noise; download it again")
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    device = torch.device(device)
    return Clip(
        name=source,
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=tokenizer,
        sha256=digest.hexdigest(),
        size=int(model.config.vision_config.image_size),
        longest=int(model.config.text_config.max_position_embeddings),
        device=device,
    )


def image_features(
    clip: Clip, paths: Sequence[Path], *, cache: Path | None = None, batch: int = 32
) -> NDArray[np.float32]:
    """Picture files as unit vectors, (N, D) fp32 in the order of ``paths``.

    What is in the folder ``cache`` for a file's bytes and this CLIP is not computed again; a damaged file there is.
    Raises DataError for a file that is no picture.
    """
    keys = [_key(clip, path) for path in paths]
    found: dict[str, NDArray[np.float32]] = {}
    if cache is not None:
        found = {key: kept for key in keys if (kept := _kept(cache / f"{key}.npy")) is not None}
    todo = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
    for start in range(0, len(todo), batch):
        group = list(todo.items())[start : start + batch]
        vectors = _see(clip, np.stack([prepare(_opened(path), clip.size) for _, path in group]))
        for (key, _), vector in zip(group, vectors, strict=True):
            found[key] = vector
            if cache is not None:
                file = io.BytesIO()
                np.save(file, vector, allow_pickle=False)
                write_atomic(cache / f"{key}.npy", file.getvalue())
    width = int(clip.model.config.projection_dim)
    return np.stack([found[key] for key in keys]) if keys else np.zeros((0, width), dtype=np.float32)  # (N, D)


def features_of(clip: Clip, images: Iterable[Image.Image], *, batch: int = 32) -> NDArray[np.float32]:
    """Pictures as unit vectors, (N, D) fp32; no more than a batch of them is held at a time."""
    vectors = [np.zeros((0, int(clip.model.config.projection_dim)), dtype=np.float32)]
    prepared = (prepare(image, clip.size) for image in images)
    while group := list(islice(prepared, batch)):
        vectors.append(_see(clip, np.stack(group)))
    return np.concatenate(vectors)


def text_features(clip: Clip, texts: Sequence[str], *, batch: int = 64) -> NDArray[np.float32]:
    """Texts as unit vectors, (N, D) fp32. A text that is too long is cut before its end token, which always stays."""
    vectors = [np.zeros((0, int(clip.model.config.projection_dim)), dtype=np.float32)]
    for start in range(0, len(texts), batch):
        group = list(texts[start : start + batch])
        tokens = clip.tokenizer(group, padding=True, truncation=True, max_length=clip.longest, return_tensors="pt")
        with torch.inference_mode():
            # No mask: attention is causal, so the end token, which is read, sees nothing of the padding after it.
            out = clip.model.get_text_features(input_ids=tokens.input_ids.to(clip.device))
        vectors.append(_unit(out))
    return np.concatenate(vectors)  # (N, D)


def prepare(image: Image.Image, size: int) -> NDArray[np.float32]:
    """A picture as CLIP sees it: shortest side to ``size`` (bicubic), centre crop, normalised. (3, size, size) fp32."""
    rgb = image.convert("RGB")
    width, height = rgb.size
    # torchvision's rule for the longer side (cut, not rounded): what the published scores were computed with
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    if rgb.size != scaled:
        rgb = rgb.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    pixels = np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.float32) / 255  # (s, s, 3)
    return np.ascontiguousarray(((pixels - _MEAN) / _DEVIATION).transpose(2, 0, 1), dtype=np.float32)


def _see(clip: Clip, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return _unit(clip.model.get_image_features(pixel_values=torch.from_numpy(pixels).to(clip.device)))


def _unit(out: Any) -> NDArray[np.float32]:
    """Projected vectors (transformers 5 wraps them, older ones do not), at length 1 on the CPU."""
    vectors = out if isinstance(out, torch.Tensor) else out.pooler_output
    return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy(), dtype=np.float32)


def _key(clip: Clip, path: Path) -> str:
    try:
        content = file_sha256(path)
    except OSError as error:
        raise DataError(f"the picture {path} cannot be read: {error.strerror}; make it again") from error
    return hashlib.sha256(f"clip-{_PREPARED}:{clip.sha256}:{content}".encode()).hexdigest()


def _kept(file: Path) -> NDArray[np.float32] | None:
    """A cached vector (D,); None where there is none or it is damaged."""
    try:
        vector = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(vector, dtype=np.float32) if vector.ndim == 1 else None


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a picture that can be read ({error}); make it again") from error
