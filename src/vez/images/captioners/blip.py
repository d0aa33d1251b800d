"""BLIP (Li et al., 2022, arXiv:2201.12086): one short plain sentence a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import BertTokenizer, BlipForConditionalGeneration

from vez.images.captioners.weights import load_weights

# The mean and deviation that CLIP's and BLIP's picture towers were trained with (openai/CLIP, clip.py: _transform).
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
_LONGEST: Final = 30  # tokens of a caption


class Blip:
    """BLIP from a folder; greedy, so a picture has one caption, whatever else is in its batch."""

    def __init__(self, folder: str | Path, *, identity: str = "", device: str = "cpu", batch: int = 8) -> None:
        """Load model and tokenizer. Raises BaseModelError where they cannot be had."""
        model, self._tokenizer = load_weights(BlipForConditionalGeneration, BertTokenizer, Path(folder))
        self._model: Any = model.to(device)
        self._size = int(model.config.vision_config.image_size)
        self._device = device
        self._batch = batch
        self.identity = identity

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per RGB picture, in order; without the tokenizer's special tokens."""
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


def prepare(image: Image.Image, size: int) -> NDArray[np.float32]:
    """An RGB picture as BLIP sees it: bicubic to ``size``², CLIP's mean and deviation. (3, size, size) float32."""
    small = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255  # (s, s, 3)
    return np.ascontiguousarray(((small - _MEAN) / _STD).transpose(2, 0, 1), dtype=np.float32)
