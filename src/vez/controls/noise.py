"""The control that was not trained: a random LoRA that changes every module by as much as the finished one does."""

import hashlib
from pathlib import Path
from typing import Final

import torch

from vez.files.operations import norm
from vez.interop import LoraState, LoraWeights, load_kohya, save_kohya
from vez.store import artifact_id, file_sha256, find, making, open_artifact
from vez.sweep import LAST

KIND: Final = "control"

VERSION: Final = 1
"""Counts up when the same LoRA would give another random one."""


def random_like(state: LoraState, *, seed: int) -> LoraState:
    """A LoRA of the same modules, shapes and alphas whose deltas are random and of the same Frobenius norms.

    Each module has random numbers of its own by its name, so that others do not move them. One that changes nothing
    stays so.
    """
    return {name: _random(weights, name, seed) for name, weights in state.items()}


def _random(weights: LoraWeights, name: str, seed: int) -> LoraWeights:
    word = hashlib.sha256(f"{seed} {name}".encode()).digest()
    dice = torch.Generator().manual_seed(int.from_bytes(word[:8], "little") >> 1)
    down, up = (torch.randn(part.shape, generator=dice, dtype=torch.float64) for part in weights[:2])
    drawn = LoraWeights(down, up, weights.alpha)
    factor = (norm(weights) / norm(drawn)) ** 0.5  # on both sides, so that neither is far from 1
    return LoraWeights((down * factor).float(), (up * factor).float(), weights.alpha)


def random_lora(run: Path, into: Path, *, seed: int) -> Path:
    """The file of a random LoRA after the finished run's, in an artifact at ``into``; made once.

    Stored as fp32: as fp16 its norms would be those of the run's file only to about 1e-4. Raises StoreError where
    ``run`` is none or nothing can be written, LoraFileError where its LoRA cannot be read.
    """
    parents = {"run": open_artifact(run).id}
    config = {"seed": seed, "lora": file_sha256(run / LAST)}
    if find(into, artifact_id(KIND, parents, config, VERSION)) is None:
        state, metadata = load_kohya(run / LAST)
        kept = {key: value for key, value in metadata.items() if not key.startswith("sshs_")}
        said = "not trained: random numbers of the norms of another LoRA (a control)"
        with making(into, kind=KIND, parents=parents, config=config, version=VERSION) as made:
            random = random_like(state, seed=seed)
            save_kohya(made.path / LAST, random, metadata=kept | {"ss_training_comment": said}, dtype=torch.float32)
    return into / LAST
