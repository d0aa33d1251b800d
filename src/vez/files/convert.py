"""`vez convert` as one function: files in, one file (or one base) out, and a sentence on what was done."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from vez.errors import LoraFileError
from vez.files import bases
from vez.files.operations import Keep, Kept, add, resize
from vez.files.reading import LoraFile, read
from vez.files.writing import Written, minimum, write

Precision = Literal["fp16", "bf16", "fp32"]
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "tiny": "SD 1.x layout in sizes of its own"}


@dataclass(frozen=True)
class Wanted:
    """What is to be made: layout, precision (None: as read, the finest of several), size, what of the header stays."""

    layout: Written = "kohya"
    precision: Precision | None = None
    keep: Keep = field(default_factory=Keep)
    strip: bool = False
    force: bool = False


def convert(files: Sequence[Path], out: Path, wanted: Wanted, *, weights: Sequence[float] = ()) -> str:
    """Read LoRAs, add them up by ``weights`` (1 each if none are given), resize, write one file; says what was done.

    Raises LoraFileError.
    """
    loras, scales = _read(files, weights)
    lora = add(loras, scales, names=[file.name for file in files])
    kept = None
    if wanted.keep != Keep():
        lora, kept = resize(lora, wanted.keep)
    return _written(out, lora, wanted, kept)


def extract(tuned: str, base: str, out: Path, wanted: Wanted) -> str:
    """Take a LoRA out of the difference of two models and write it; says what it keeps. Raises LoraFileError."""
    if out.exists() and not wanted.force:  # asked before minutes of work
        raise LoraFileError(f"{out} exists; take another name, or --force to replace a file")
    lora, found = bases.extract(tuned, base, wanted.keep)
    said = _written(out, lora, wanted, found.kept)
    if found.outside:
        said += (
            f"\n{found.outside} more tensors differ (convolutions, norms, biases, embeddings) and are in no such LoRA."
        )
    return said


def into(files: Sequence[Path], base: str, out: Path, *, weights: Sequence[float] = ()) -> str:
    """Write a base with LoRAs added to its weights as a new folder; says what was done. Raises LoraFileError."""
    loras, scales = _read(files, weights)
    changed = bases.merge_into(base, loras, scales, out)
    return f"Wrote {out}: {base} with {len(loras)} LoRA{'s' * (len(loras) > 1)} added, {changed} modules changed"


def _read(files: Sequence[Path], weights: Sequence[float]) -> tuple[list[LoraFile], list[float]]:
    if weights and len(weights) != len(files):
        raise LoraFileError(
            f"there are {len(files)} LoRAs and {len(weights)} --weight; give one for each, in their order"
        )
    if not all(map(math.isfinite, weights)):
        raise LoraFileError("a --weight that is no finite number makes no LoRA; 1 is the LoRA as it is")
    return [read(file) for file in files], list(weights) or [1.0] * len(files)


def _written(out: Path, lora: LoraFile, wanted: Wanted, kept: Kept | None) -> str:
    dtype = _TYPES[wanted.precision] if wanted.precision else lora.dtype
    if wanted.strip:
        lora = replace(lora, metadata=minimum(lora.metadata))
    size = write(out, lora, layout=wanted.layout, dtype=dtype, force=wanted.force)
    said = (
        f"Wrote {out}: {NAMES[lora.family]}, {len(lora.modules)} modules, {wanted.layout} layout, "
        f"{str(dtype)[6:]}, {size / 2**20:.1f} MiB"
    )
    if kept is None:
        return said
    low, high = kept.ranks
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    return f"{said}\nKept {kept.energy:.2%} of the energy (squared singular values) at {ranks}."
