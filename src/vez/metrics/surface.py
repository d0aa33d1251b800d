"""What a picture's own pixels say, without a model: mean colour, saturation, contrast, blur, lettering."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from vez.errors import DataError
from vez.images import shifts
from vez.images.lettering import lettering
from vez.images.quality import blur, training_view
from vez.images.saliency import lab
from vez.images.shifts import Grey
from vez.metrics.material import Pixels, Vectors
from vez.store import file_sha256, write_atomic

_READ: Final = 1  # counts up when the same picture would give other numbers: what is in a cache is then not used
_SMALL: Final = 128  # longest side at which colours are averaged, in pixels

Facts = tuple[Vectors, Grey]


def surface(pictures: Sequence[Path], training: Mapping[str, Sequence[Path]], *, cache: Path | None = None) -> Pixels:
    """Read drawn pictures, and an arm's training pictures for laying over. Raises DataError for what is no picture."""
    everything = dict.fromkeys([*pictures, *(path for of in training.values() for path in of)])
    known = {path: _facts(path, cache) for path in everything}
    numbers = np.array([known[path][0] for path in pictures]).reshape(-1, 7)
    return Pixels(
        colour=numbers[:, :3],
        chroma=numbers[:, 3],
        contrast=numbers[:, 4],
        blur=numbers[:, 5],
        lettering=numbers[:, 6],
        greys=tuple(known[path][1] for path in pictures),
        training={arm: tuple(known[path][1] for path in of) for arm, of in training.items()},
    )


def _facts(path: Path, cache: Path | None) -> Facts:
    """Seven numbers (`Pixels`' order) and the grey picture."""
    try:
        kept = None if cache is None else cache / f"{_key(path)}.npz"
        if kept is not None and (found := _kept(kept)) is not None:
            return found
        with Image.open(path) as image:
            facts = _read(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a picture that can be read ({error}); make it again") from error
    if kept is not None:
        file = io.BytesIO()
        np.savez(file, numbers=facts[0], grey=facts[1])
        write_atomic(kept, file.getvalue())
    return facts


def _read(image: Image.Image) -> Facts:
    small = image.copy()
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    colours = lab(np.asarray(small, dtype=np.float64) / 255)
    chroma = float(np.hypot(colours[..., 1], colours[..., 2]).mean())
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    soft = blur(training_view(image, min(image.size)))
    numbers = [*colours.reshape(-1, 3).mean(axis=0), chroma, float(grey.std()), soft, lettering(image)]
    return np.array(numbers), shifts.grey(image)


def _key(path: Path) -> str:
    return hashlib.sha256(f"surface-{_READ}:{file_sha256(path)}".encode()).hexdigest()


def _kept(file: Path) -> Facts | None:
    """What was read before; None where there is nothing or it is damaged."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as held:
            numbers, grey = held["numbers"], held["grey"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return (numbers, grey) if numbers.shape == (7,) and grey.ndim == 2 and grey.dtype == np.uint8 else None
