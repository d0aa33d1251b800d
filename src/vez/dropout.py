"""Dropout inside LoRA layers, with randomness from the tape: what is dropped depends on sample and module alone.

So a resumed run drops what an uncut one drops, and a variant drops the same in any company. Three kinds, as kohya has
them: of single values between down and up, of whole ranks for a sample, of the whole LoRA of a module for a sample.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vez.config import Variant
from vez.device import carried
from vez.lora import LoraSet


class Dropout:
    """The dropout of a pass's variants; it drops nothing but inside `of`."""

    def __init__(self, lora: LoraSet, variants: Sequence[Variant]) -> None:
        self.variants = tuple(variants)
        self.samples: tuple[int, ...] = ()
        self.device = lora.params.device
        if any(variant.dropout or variant.rank_dropout or variant.module_dropout for variant in variants):
            for segment in lora.segments:
                ranks = [part.rank if part else 0 for part in segment.parts]
                lora.drop(segment.key, partial(self._mask, _number(segment.key), ranks))

    @contextmanager
    def of(self, samples: NDArray[np.uint64]) -> Iterator[None]:
        """Inside, a batch of the samples of these noise seeds goes through the networks, forward and backward."""
        self.samples = tuple(int(sample) for sample in samples)
        try:
            yield
        finally:
            self.samples = ()

    def _mask(self, module: int, ranks: Sequence[int], positions: int) -> Tensor | None:
        """What the values between down and up are multiplied by, (V, positions, R); None outside of `of`."""
        if not self.samples:
            return None
        each = positions // len(self.samples)
        mask = np.zeros((len(ranks), len(self.samples), each, max(ranks)), dtype=np.float32)
        for v, (variant, rank) in enumerate(zip(self.variants, ranks, strict=True)):
            for n, sample in enumerate(self.samples if rank else ()):
                mask[v, n, :, :rank] = _of_sample(variant, sample, module, each, rank)
        return carried(torch.from_numpy(mask).view(len(ranks), positions, max(ranks)), self.device)


def _of_sample(variant: Variant, sample: int, module: int, positions: int, rank: int) -> NDArray[np.float32]:
    """One sample's mask in one module, (positions or 1, rank); kept values grow, so that their mean stays."""
    dice = np.random.Generator(np.random.Philox(key=np.array([sample, module], dtype=np.uint64)))
    first = dice.random(1 + rank)
    if first[0] < variant.module_dropout:
        return np.zeros((1, rank), dtype=np.float32)
    kept = (first[1:] >= variant.rank_dropout)[None] / (1 - variant.rank_dropout)
    if variant.dropout:
        single = dice.random((positions, rank), dtype=np.float32) >= variant.dropout
        kept = kept * single / (1 - variant.dropout)
    return np.asarray(kept, dtype=np.float32)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"dropout-1:{key}".encode()).digest()[:8], "little")
