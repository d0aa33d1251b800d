"""Florence-2 (Xiao et al., 2024, arXiv:2311.06242): captions by task, in the layout that transformers has itself.

Microsoft's own repositories hold another layout, which needs code from the hub; vez runs none.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import BartTokenizer, Florence2ForConditionalGeneration

from vez.errors import BaseModelError
from vez.images.captioners.weights import load_weights

# What the task <CAPTION> or <DETAILED_CAPTION> is put to the model as (transformers, processing_florence2.py).
_SHORT: Final = "What does the image describe?"
_DETAILED: Final = "Describe in detail what is shown in the image."
# ImageNet's mean and deviation, and the side that it was trained at (preprocessor_config.json of Florence-2-base).
_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_SIZE: Final = 768
_LONGEST: Final = 100  # tokens of a caption: more than a text encoder of Stable Diffusion takes


class Florence:
    """Florence-2 from a folder; three beams without sampling, as its authors ask it, so a picture has one caption."""

    def __init__(
        self, folder: str | Path, *, detailed: bool = False, identity: str = "", device: str = "cpu", batch: int = 8
    ) -> None:
        """Load model and tokenizer; ``detailed`` asks for sentences instead of one sentence.

        Raises BaseModelError where they cannot be had.
        """
        model, tokenizer = load_weights(Florence2ForConditionalGeneration, BartTokenizer, Path(folder))
        self._tokenizer: Any = tokenizer
        self._model: Any = model.to(device)
        self._size = _side(Path(folder))
        self._prompt: list[int] = [
            tokenizer.bos_token_id,
            *tokenizer(_DETAILED if detailed else _SHORT, add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        with torch.inference_mode():  # how many tokens stand for a picture of this size: the model itself says it
            nothing = torch.zeros(1, 3, self._size, self._size, device=device)
            self._places = int(model.get_image_features(nothing).pooler_output.shape[1])
        self._device = device
        self._batch = batch
        self.identity = identity

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per RGB picture, in order; a full stop at its end is left out, since tags may follow it."""
        captions: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(images), self._batch):
                group = images[start : start + self._batch]
                asked = self.ask(group)
                tokens = self._model.generate(
                    **asked,
                    do_sample=False,
                    num_beams=3,
                    no_repeat_ngram_size=3,
                    early_stopping=True,
                    max_new_tokens=_LONGEST,
                )
                captions += self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(caption.split()).removesuffix(".") for caption in captions]

    def ask(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The model's inputs: pixel_values (B, 3, s, s), input_ids and attention_mask (B, places + prompt)."""
        pixels = np.stack([prepare(image, self._size) for image in images])
        places = [int(self._model.config.image_token_id)] * self._places
        ids = torch.tensor([places + self._prompt] * len(images), device=self._device)
        return {
            "pixel_values": torch.from_numpy(pixels).to(self._device),
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }


def prepare(image: Image.Image, size: int) -> NDArray[np.float32]:
    """An RGB picture as Florence-2 sees it: bicubic to ``size``², ImageNet's mean and deviation. (3, size, size)."""
    small = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255  # (s, s, 3)
    return np.ascontiguousarray(((small - _MEAN) / _STD).transpose(2, 0, 1), dtype=np.float32)


def _side(folder: Path) -> int:
    """Side of the pictures in pixels, from either file in which transformers keeps it; else the published one."""
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        try:
            row = json.loads((folder / name).read_bytes())
            size = (row[key] if key else row)["size"]
            height, width = int(size["height"]), int(size["width"])
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BaseModelError(f"{folder / name} says no size of pictures; copy the captioner again") from error
        if height != width or not 0 < height <= 4096:
            raise BaseModelError(f"{folder / name} asks for pictures of {width}×{height}; vez needs a square")
        return height
    return _SIZE
