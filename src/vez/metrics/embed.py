"""Who looks at pictures: CLIP (Radford et al. 2021), pictures and texts in one space, and DINOv2 (Oquab et al. 2023).

Unit vectors, cached by content. Pictures are prepared here, with PIL and numpy, so that every machine feeds the towers
the same pixels, as each was published: for CLIP `Resize(n, BICUBIC) · CenterCrop(n)`, for DINOv2
`Resize(256, BICUBIC) · CenterCrop(224)`, scaled and shifted by the encoder's own mean and deviation.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vez.errors import BaseModelError, DataError
from vez.store import file_sha256, write_atomic

PUBLISHED: Final = "openai/clip-vit-base-patch32"
"""The tower that CLIPscore is defined with; its weight of 2.5 holds for no other."""

_PREPARED: Final = 1  # counts up when the same picture would be prepared otherwise: what is in a cache is then not used
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_DEVIATION: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
_IMAGENET: Final = (
    np.array([0.485, 0.456, 0.406], dtype=np.float32),
    np.array([0.229, 0.224, 0.225], dtype=np.float32),
)
_DINO_SEES: Final = 224  # the middle of the picture ...
_DINO_SHORTEST: Final = 256  # ... after its shortest side is resized to this
_DINO_KINDS: Final = ("dinov2", "dinov2_with_registers")


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
    kind: str = "clip"

    @property
    def width(self) -> int:
        """Length of its vectors."""
        return int(self.model.config.projection_dim)

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """A picture as it sees it, (3, size, size)."""
        return prepare(image, self.size)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Prepared pictures as vectors, (B, D)."""
        out = self.model.get_image_features(pixel_values=pixels)
        # transformers 5 wraps them, older ones do not
        return out if isinstance(out, torch.Tensor) else torch.as_tensor(out.pooler_output)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """The vectors of its patches, row by row, in the space of the picture's: (B, P, D)."""
        vision = self.model.vision_model
        hidden = vision(pixel_values=pixels).last_hidden_state[:, 1:]
        return torch.as_tensor(self.model.visual_projection(vision.post_layernorm(hidden)))


@dataclass(eq=False)
class Dino:
    """A loaded DINOv2: knows no texts, and tells apart what CLIP has one word for."""

    name: str
    model: Any
    sha256: str
    size: int
    device: torch.device
    kind: str = "dino"

    @property
    def width(self) -> int:
        """Length of its vectors."""
        return int(self.model.config.hidden_size)

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """A picture as it sees it, (3, size, size)."""
        shortest = round(self.size * _DINO_SHORTEST / _DINO_SEES)
        mean, deviation = _IMAGENET
        return prepare(image, self.size, shortest=shortest, mean=mean, deviation=deviation)

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        """Prepared pictures as vectors, (B, D): the class token after the last norm."""
        return torch.as_tensor(self.model(pixel_values=pixels).last_hidden_state[:, 0])

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """The vectors of its patches, row by row: (B, P, D)."""
        first = 1 + int(getattr(self.model.config, "num_register_tokens", 0))
        return torch.as_tensor(self.model(pixel_values=pixels).last_hidden_state[:, first:])


Encoder = Clip | Dino
"""Who looks at pictures."""


def clip_for(base: str) -> str:
    """Which CLIP judges the pictures of a base: the one in the package for "tiny", else the published one."""
    return str(Path(__file__).parents[1] / "demo" / "clip") if base == "tiny" else PUBLISHED


def at_hand(source: str) -> bool:
    """Whether the weights are on this machine already: a folder, or fetched from the hub before."""
    if Path(source).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, "config.json"), str)


def load(source: str, *, device: str | torch.device = "cpu") -> Clip:
    """Load a CLIP from a folder or by its hub id. Raises BaseModelError.

    OpenAI's own weights may be a .bin file on the hub; transformers reads it with weights_only, which runs no code.
    """
    from transformers import CLIPModel, CLIPTokenizer  # a second, which nobody waits for who only asks what was made

    try:
        model, info = CLIPModel.from_pretrained(source, output_loading_info=True)
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot("CLIP", source, error) from error
    _check_whole("CLIP", source, info)
    device, sha256 = torch.device(device), _sha256_of(model)
    return Clip(
        name=source,
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=tokenizer,
        sha256=sha256,
        size=int(model.config.vision_config.image_size),
        longest=int(model.config.text_config.max_position_embeddings),
        device=device,
    )


def kept_sha256(source: str, cache: Path) -> str | None:
    """The hash of a CLIP's weights as it was when they were loaded, if their file is untouched since."""
    file = _record(source, cache)
    return file.read_text(encoding="utf-8") if file is not None and file.is_file() else None


def keep_sha256(clip: Clip, cache: Path) -> None:
    """Keep it in the folder ``cache``; nothing is kept of one that lies in no folder."""
    file = _record(clip.name, cache)
    if file is not None:
        write_atomic(file, clip.sha256.encode())


def _record(source: str, cache: Path) -> Path | None:
    weights = Path(source) / "model.safetensors"
    if not weights.is_file():
        return None
    found = weights.resolve().stat()
    said = f"clip:{weights.resolve()}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"
    return cache / f"{hashlib.sha256(said.encode()).hexdigest()}.sha256"


def load_dino(source: str, *, device: str | torch.device = "cpu") -> Dino:
    """Load a DINOv2, with registers or without, from a folder or by its hub id. Raises BaseModelError."""
    from transformers import AutoConfig, AutoModel

    try:
        kind = str(AutoConfig.from_pretrained(source).model_type)
        if kind not in _DINO_KINDS:
            raise BaseModelError(f"{source!r} is a {kind}, not a DINOv2; name one, as facebook/dinov2-base")
        model, info = AutoModel.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot("DINOv2", source, error) from error
    _check_whole("DINOv2", source, info)
    device, sha256 = torch.device(device), _sha256_of(model)
    size = min(_DINO_SEES, int(model.config.image_size))
    return Dino(source, model.eval().requires_grad_(False).to(device), sha256, size, device)


def _cannot(what: str, source: str, error: Exception) -> BaseModelError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BaseModelError(
        f"the {what} {source!r} cannot be loaded ({first}); give a folder that transformers' save_pretrained wrote"
    )


def _check_whole(what: str, source: str, info: Mapping[str, Any]) -> None:
    missing = [*info["missing_keys"], *info["mismatched_keys"]]
    if missing:
        raise BaseModelError(f"the {what} {source!r} lacks {missing[0]!r} and would measure noise; download it again")


def _sha256_of(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def image_features(
    clip: Encoder, paths: Sequence[Path], *, cache: Path | None = None, batch: int = 32
) -> NDArray[np.float32]:
    """Picture files as unit vectors, (N, D) fp32 in the order of ``paths``.

    What is in the folder ``cache`` for a file's bytes and this encoder is not computed again; a damaged file there is.
    Raises DataError for a file that is no picture.
    """
    keys = [_key(clip, path) for path in paths]
    found: dict[str, NDArray[np.float32]] = {}
    if cache is not None:
        found = {key: kept for key in keys if (kept := _kept(cache / f"{key}.npy")) is not None}
    todo = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
    for start in range(0, len(todo), batch):
        group = list(todo.items())[start : start + batch]
        vectors = _see(clip, np.stack([clip.prepare(_opened(path)) for _, path in group]))
        for (key, _), vector in zip(group, vectors, strict=True):
            found[key] = vector
            if cache is not None:
                _keep(cache / f"{key}.npy", vector)
    return np.stack([found[key] for key in keys]) if keys else np.zeros((0, clip.width), dtype=np.float32)  # (N, D)


def foreground_likeness(
    encoder: Encoder,
    paths: Sequence[Path],
    references: Sequence[tuple[Path, Path]],
    *,
    cache: Path | None = None,
    batch: int = 16,
) -> NDArray[np.float32]:
    """How much of each reference's subject is found on each picture, wherever it lies: (N, R).

    For each patch of the subject the largest cosine to any of the picture's patches, and of these the mean (after MaSC,
    arXiv 2605.22469); so only ``references``, pairs of a picture and its mask, need masks. Cached by content.
    Raises DataError for a file that is no picture.
    """
    subjects = [_subject(encoder, picture, mask) for picture, mask in references]
    about = hashlib.sha256("".join(_key(encoder, path) for pair in references for path in pair).encode()).hexdigest()
    keys = [hashlib.sha256(f"foreground-1:{about}:{_key(encoder, path)}".encode()).hexdigest() for path in paths]
    found: dict[str, NDArray[np.float32]] = {}
    if cache is not None:
        found = {key: kept for key in keys if (kept := _kept(cache / f"{key}.npy")) is not None}
    todo = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
    for start in range(0, len(todo), batch):
        group = list(todo.items())[start : start + batch]
        patches = _patches(encoder, np.stack([encoder.prepare(_opened(path)) for _, path in group]))  # (B, P, D)
        likeness = [[(subject @ of.T).max(axis=1).mean() for subject in subjects] for of in patches]
        for (key, _), row in zip(group, np.array(likeness, dtype=np.float32), strict=True):
            found[key] = row
            if cache is not None:
                _keep(cache / f"{key}.npy", row)
    return np.stack([found[key] for key in keys]) if keys else np.zeros((0, len(references)), dtype=np.float32)


def _subject(encoder: Encoder, picture: Path, mask: Path) -> NDArray[np.float32]:
    """The vectors (F, D) of the patches that show the subject: half of each or more; else the one that shows most."""
    image, white = _opened(picture), _opened(mask).convert("L")
    (patches,) = _patches(encoder, encoder.prepare(image)[None])
    side = round(len(patches) ** 0.5)
    # The mask is cut as the picture is: its own normalised values only have to keep their order.
    seen = encoder.prepare(white.resize(image.size, Image.Resampling.BILINEAR))[0]  # (size, size)
    low, high = (encoder.prepare(Image.new("L", (8, 8), level))[0, 0, 0] for level in (0, 255))
    cells = ((seen - low) / (high - low))[: seen.shape[0] // side * side, : seen.shape[1] // side * side]
    share = cells.reshape(side, cells.shape[0] // side, side, -1).mean(axis=(1, 3)).ravel()
    return np.asarray(patches[(share >= 0.5) | (share == share.max())], dtype=np.float32)


def _patches(encoder: Encoder, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return _unit(encoder.patches(torch.from_numpy(pixels).to(encoder.device)))


def _keep(file: Path, vector: NDArray[np.float32]) -> None:
    held = io.BytesIO()
    np.save(held, vector, allow_pickle=False)
    write_atomic(file, held.getvalue())


def features_of(clip: Encoder, images: Iterable[Image.Image], *, batch: int = 32) -> NDArray[np.float32]:
    """Pictures as unit vectors, (N, D) fp32; no more than a batch of them is held at a time."""
    vectors = [np.zeros((0, clip.width), dtype=np.float32)]
    prepared = (clip.prepare(image) for image in images)
    while group := list(islice(prepared, batch)):
        vectors.append(_see(clip, np.stack(group)))
    return np.concatenate(vectors)


def text_features(clip: Clip, texts: Sequence[str], *, batch: int = 64) -> NDArray[np.float32]:
    """Texts as unit vectors, (N, D) fp32. A text that is too long is cut before its end token, which always stays."""
    vectors = [np.zeros((0, clip.width), dtype=np.float32)]
    for start in range(0, len(texts), batch):
        group = list(texts[start : start + batch])
        tokens = clip.tokenizer(group, padding=True, truncation=True, max_length=clip.longest, return_tensors="pt")
        with torch.inference_mode():
            # No mask: attention is causal, so the end token, which is read, sees nothing of the padding after it.
            out = clip.model.get_text_features(input_ids=tokens.input_ids.to(clip.device))
        vectors.append(_unit(out if isinstance(out, torch.Tensor) else out.pooler_output))
    return np.concatenate(vectors)  # (N, D)


def prepare(
    image: Image.Image,
    size: int,
    *,
    shortest: int | None = None,
    mean: NDArray[np.float32] = _MEAN,
    deviation: NDArray[np.float32] = _DEVIATION,
) -> NDArray[np.float32]:
    """A picture as CLIP sees it: shortest side to ``size`` (bicubic), centre crop, normalised. (3, size, size) fp32.

    ``shortest`` is the shortest side before the crop where that is another; ``mean`` and ``deviation`` (3,) are CLIP's.
    """
    rgb = image.convert("RGB")
    (width, height), side = rgb.size, shortest or size
    # torchvision's rule for the longer side (cut, not rounded): what the published scores were computed with
    scaled = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    if rgb.size != scaled:
        rgb = rgb.resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    pixels = np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.float32) / 255  # (s, s, 3)
    return np.ascontiguousarray(((pixels - mean) / deviation).transpose(2, 0, 1), dtype=np.float32)


def _see(encoder: Encoder, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return _unit(encoder.see(torch.from_numpy(pixels).to(encoder.device)))


def _unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    """Vectors (…, D) at length 1 on the CPU."""
    return np.asarray(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy(), dtype=np.float32)


def _key(encoder: Encoder, path: Path) -> str:
    try:
        content = file_sha256(path)
    except OSError as error:
        raise DataError(f"the picture {path} cannot be read: {error.strerror}; make it again") from error
    return hashlib.sha256(f"{encoder.kind}-{_PREPARED}:{encoder.sha256}:{content}".encode()).hexdigest()


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
