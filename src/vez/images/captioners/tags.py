"""Tags of the WD taggers (SmilingWolf, v3): what is on a drawing, as Danbooru's words for it. Needs the extra "tags".

A tagger is a folder with ``model.onnx`` and ``selected_tags.csv`` (a row per output of the model: its name and its
category, 0 general, 4 character, 9 rating). Pictures go in and tags come out as on its author's page
(huggingface.co/spaces/SmilingWolf/wd-tagger, app.py).
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.errors import BaseModelError, MissingExtra

MODEL: Final = "model.onnx"
TAGS: Final = "selected_tags.csv"
_GENERAL, _CHARACTER = "0", "4"
_THRESHOLDS: Final = {_GENERAL: 0.35, _CHARACTER: 0.85}
_LETTERS: Final = re.compile(r"[^\W_]{2}")


@dataclass(frozen=True)
class Tag:
    """What one output of the model means."""

    name: str
    category: str


class Tagger:
    """A WD tagger from a folder. Pictures are asked about one by one, so a batch cannot change a tag."""

    def __init__(self, folder: str | Path, *, identity: str = "") -> None:
        """Load the model and its tags. Raises MissingExtra without onnxruntime, BaseModelError for a damaged tagger."""
        try:
            onnxruntime = import_module("onnxruntime")
            known = vars(import_module("onnxruntime.capi.onnxruntime_pybind11_state")).values()
        except ImportError as error:
            raise MissingExtra('a tagger needs onnxruntime: pip install "vez[tags]"') from error
        # its errors share no class of their own
        raised = [kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)]
        self._errors: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *raised)
        folder = Path(folder)
        self._tags = read_tags(folder / TAGS)
        try:
            self._session: Any = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
        except self._errors as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BaseModelError(f"{folder / MODEL} cannot be loaded: {first}; download the tagger again") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs[0].shape)
        side = shape[1] if len(shape) == 4 else None
        if len(inputs) != 1 or len(outputs) != 1 or not isinstance(side, int) or shape[2:] != [side, 3]:
            raise BaseModelError(
                f"{folder / MODEL} takes {shape} and is no WD tagger, which takes one square picture (1, side, side, 3)"
            )
        self._size, self._input = side, inputs[0].name
        self.identity = identity

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Per RGB picture "tag, tag, …": characters first, then the general tags, the surest first."""
        captions = []
        for image in images:
            try:
                (sure,) = self._session.run(None, {self._input: prepare(image, self._size)[None]})
            except self._errors as error:
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise BaseModelError(f"the tagger cannot look at a picture: {first}; download it again") from error
            if sure.shape != (1, len(self._tags)):
                raise BaseModelError(
                    f"the tagger gave {sure.shape[-1]} values for {len(self._tags)} tags; its two files do not belong "
                    "together: download it again"
                )
            captions.append(", ".join(said(self._tags, sure[0])))
        return captions


def prepare(image: Image.Image, size: int) -> NDArray[np.float32]:
    """An RGB picture as a WD tagger sees it: centred on a white square, bicubic to ``size``². (size, size, 3), BGR,
    0 to 255."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, dtype=np.float32)[:, :, ::-1])


def said(tags: Sequence[Tag], sure: NDArray[np.float32]) -> list[str]:
    """The names of the tags that are sure enough: characters, then general ones, each the surest first."""
    names = []
    for category in (_CHARACTER, _GENERAL):
        above = [i for i, tag in enumerate(tags) if tag.category == category and sure[i] > _THRESHOLDS[category]]
        names += [tags[i].name for i in sorted(above, key=lambda i: (-float(sure[i]), tags[i].name))]
    return names


def read_tags(path: Path) -> tuple[Tag, ...]:
    """The tags of a tagger in the order of its outputs; "_" is a space, but not in a face such as ``>_<``.

    Raises BaseModelError where the file is absent or is none of these.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = [(row["name"], row["category"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise BaseModelError(f"{path} cannot be read as a list of tags; download the tagger again") from error
    if not rows or not all(name and category for name, category in rows):
        raise BaseModelError(f"{path} has no tags, or a tag without a category; download the tagger again")
    return tuple(Tag(_plain(name), category) for name, category in rows)


def _plain(name: str) -> str:
    spaced = name.replace("_", " ") if _LETTERS.search(name) else name
    return " ".join(spaced.replace(",", " ").split())
