"""Pictures → words. Machine captions come through one protocol; the trigger rule that makes them final is pure."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from vez.config import Project, Rule
from vez.errors import BaseModelError

# The mean and deviation that CLIP's and BLIP's picture towers were trained with (openai/CLIP, clip.py: _transform).
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
_HUB: Final = "Salesforce/blip-image-captioning-base"
_LONGEST: Final = 30  # tokens of a caption


class Captioner(Protocol):
    """Whatever says in words what pictures show."""

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per picture, in order."""
        ...


def blip_source(captioner: str, base: str, root: Path) -> str:
    """The folder or hub id behind a dataset's ``captioner``: "blip" is the base's own; a folder is below ``root``."""
    if captioner != "blip":
        return str(root / captioner) if (root / captioner).is_dir() else captioner
    return str(Path(__file__).parents[1] / "demo" / "blip") if base == "tiny" else _HUB


class Blip:
    """BLIP (Li et al., 2022, arXiv:2201.12086) from a folder or hub id; greedy: one picture, one caption."""

    def __init__(self, source: str, *, device: str = "cpu", batch: int = 8) -> None:
        """Load model and tokenizer. Raises BaseModelError where they cannot be had."""
        # Inside, so that a build whose captions are all written by hand loads no torch.
        import torch
        from transformers import BertTokenizer, BlipForConditionalGeneration

        try:
            # float32 whatever the file holds: half precision is slow on a CPU, and its choices depend on the batch
            model: Any = BlipForConditionalGeneration.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
            self._tokenizer: Any = BertTokenizer.from_pretrained(source)
        except (OSError, ValueError) as error:
            way_out = "give a folder that holds BLIP and its tokenizer, or write the captions by hand"
            raise BaseModelError(f"the captioner {source!r} cannot be loaded: {error}; {way_out}") from error
        self._model = model.eval().to(device)
        self._size = int(model.config.vision_config.image_size)
        self._device = device
        self._batch = batch

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per RGB picture, in order; without the tokenizer's special tokens."""
        import torch

        captions: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(images), self._batch):
                group = images[start : start + self._batch]
                pixels = torch.from_numpy(np.stack([prepare(image, self._size) for image in group]))  # (B, 3, s, s)
                tokens = self._model.generate(
                    pixel_values=pixels.to(self._device), do_sample=False, num_beams=1, max_new_tokens=_LONGEST
                )
                captions += self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in captions]


def prepare(image: Image.Image, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """An RGB picture as BLIP sees it: bicubic to ``size``², CLIP's mean and deviation. (3, size, size) float32."""
    small = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255  # (s, s, 3)
    return np.ascontiguousarray(((small - _MEAN) / _STD).transpose(2, 0, 1), dtype=np.float32)


def final_caption(machine: str, project: Project, *, rules: Sequence[Rule] = (), prefix: bool = True) -> str:
    """The caption trained on: each rule replaces whole words (any case) in turn; then "<trigger>, " goes first.

    A caption that begins with the trigger already is not given a second one.
    """
    caption = machine
    for rule in rules:
        put = project.expand(rule.replace).replace("\\", r"\\")  # no group references: what is written is meant
        caption = re.sub(rf"(?<!\w){re.escape(rule.find)}(?!\w)", put, caption, flags=re.IGNORECASE)
    caption = " ".join(caption.split())
    if not prefix or re.match(rf"{re.escape(project.trigger)}(?!\w)", caption):
        return caption
    return f"{project.trigger}, {caption}" if caption else project.trigger
