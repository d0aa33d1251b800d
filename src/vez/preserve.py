"""Regularisation without pictures: beside each sample, what the base says without the trigger stays what it says.

The LoRA'd networks get the step's own noisy latents again, with captions that do not call the concept, and are drawn to
what the frozen base predicts for them (OneTrainer's prior prediction; ai-toolkit's differential output preservation).
On the concept's own pictures a class word would be the first to learn along, so that is where it is held.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vez.base import Base, Conditioning, encode_text, tokenize
from vez.config import Variant
from vez.dataset import Row
from vez.denoise import Batch, Words, predictions
from vez.device import carried
from vez.lora import LoraSet
from vez.rewording import drawn_wording
from vez.tape import dice

WORDINGS_KEPT: Final = 256  # encoded captions, as in `vez.samples`
EMPTY: Final = 0.25
"""Share of samples that are held with the empty caption: what guidance subtracts, and every prompt's common part."""


def uncalled(caption: str, *, trigger: str, noun: str) -> str:
    """The caption with the noun in the trigger's place; the noun alone where the trigger is not in it.

    A trigger that stands before the noun leaves one noun. A caption without the trigger is trained on as it is, and to
    hold the base to the very same words would undo that.
    """
    word, kind = (r"\s+".join(re.escape(part) for part in words.split()) for words in (trigger, noun))
    found, count = re.subn(rf"(?<!\w){word}(?!\w)(\s+{kind}(?!\w))?", lambda _: noun, caption, flags=re.IGNORECASE)
    return found if count else noun


@dataclass(frozen=True)
class Preserved:
    """What a pass's variants are held to; ``words`` are the uncalled captions of the dataset's training rows.

    ``told`` is what the base's own text encoders make of them, the empty caption's last. Where a variant draws its
    wording, both hold the empty caption alone, and each sample is worded anew: as it is trained, and then uncalled.
    """

    base: Base
    variants: Sequence[Variant]
    words: Words
    told: Conditioning
    worded: Callable[[int, Variant, int], str] | None = None
    """(row, variant, seed) → the uncalled caption of a sample; None where no variant draws."""
    encoded: Callable[[str], Conditioning] | None = None
    """What the base's own text encoders make of a caption; its LoRAs must be off."""

    @classmethod
    def of(cls, base: Base, rows: Sequence[Row], variants: Sequence[Variant], *, trigger: str, noun: str) -> Self:
        """Encode the captions; the base must have no LoRA attached yet."""
        draws = any(variant.wildcards for variant in variants)
        captions = [] if draws else [uncalled(row.caption, trigger=trigger, noun=noun) for row in rows]
        words = Words.of(base, captions, frozen=True)
        if words.states is None:
            raise ValueError("frozen words have states")
        told = words.states
        if any(variant.trains_text for variant in variants):
            words = Words(words.tokens, None)
        if not draws:
            return cls(base, variants, words, told)

        def worded(row: int, variant: Variant, seed: int) -> str:
            caption = rows[row].caption
            drawn = drawn_wording(caption, seed=seed) if variant.wildcards else caption
            return uncalled(drawn, trigger=trigger, noun=noun)

        encoded = lru_cache(maxsize=WORDINGS_KEPT)(lambda caption: encode_text(base, [caption]))
        return cls(base, variants, words, told, worded, encoded)

    def distances(self, lora: LoraSet, batch: Batch, seeds: NDArray[np.uint64]) -> Tensor:
        """Each variant's mean squared distance from the base on each sample of a batch, (V, B).

        ``seeds`` are the samples' noise seeds. Masks do not count: around the subject, too, the base is to stay.
        """
        alike = max(len(batch.latents), len(batch.noise)) // len(seeds)  # variants that see noisy latents of their own
        dropped = [dice(int(seed), "preserve").random() < EMPTY for seed in seeds]
        if self.worded is None:
            told, asked = self._as_cached(batch, dropped, alike)
        else:
            alike = len(self.variants) if len({variant.wildcards for variant in self.variants}) > 1 else alike
            told, asked = self._as_drawn(lora, batch, dropped, seeds, alike)
        with torch.no_grad(), lora.without():  # once for all variants that see the same
            wanted = predictions(self.base, replace(batch, tokens=None, text=told), variants=alike)
        said = predictions(self.base, asked, variants=len(self.variants))
        error = said - wanted.repeat(len(said) // len(wanted), 1, 1, 1)
        return error.square().mean(dim=(1, 2, 3)).view(len(self.variants), -1)

    def _as_cached(self, batch: Batch, dropped: Sequence[bool], alike: int) -> tuple[Conditioning, Batch]:
        """What the base is told, (alike·B), and what the variants are asked, (V·B)."""
        rows = torch.tensor([-1 if drop else row for drop, row in zip(dropped, batch.rows, strict=True)])
        index = carried(rows, self.words.tokens.device)
        times = len(self.variants)
        asked = self.words.batch(index.repeat(times), batch.latents, batch.noise, batch.timesteps, sizes=batch.sizes)
        return self.told.at(index.repeat(alike)), replace(asked, mixed=batch.mixed)

    def _as_drawn(
        self, lora: LoraSet, batch: Batch, dropped: Sequence[bool], seeds: NDArray[np.uint64], alike: int
    ) -> tuple[Conditioning, Batch]:
        """The same, each sample in its own words."""
        if self.worded is None or self.encoded is None:
            raise ValueError("no variant draws its wording")
        texts = [
            "" if drop else self.worded(row, variant, int(seed))
            for variant in self.variants
            for row, drop, seed in zip(batch.rows, dropped, seeds, strict=True)
        ]
        with torch.no_grad(), lora.without():
            each = [self.encoded(text) for text in texts]
        told = Conditioning.joined(each[: alike * len(seeds)])
        if self.words.states is None:
            return told, replace(batch, tokens=tokenize(self.base, texts), text=None)
        return told, replace(batch, tokens=None, text=Conditioning.joined(each))
