"""Regularisation without pictures: beside each sample, what the base says without the trigger stays what it says.

The LoRA'd networks get the step's own noisy latents again, with captions that do not call the concept, and are drawn to
what the frozen base predicts for them (OneTrainer's prior prediction; ai-toolkit's differential output preservation).
On the concept's own pictures a class word would be the first to learn along, so that is where it is held.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vez.base import Base, Conditioning
from vez.config import Variant
from vez.dataset import Row
from vez.denoise import Batch, Words, predictions
from vez.lora import LoraSet
from vez.rewording import first_wording
from vez.tape import dice

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

    ``told`` is what the base's own text encoders make of them, the empty caption's last.
    """

    base: Base
    variants: Sequence[Variant]
    words: Words
    told: Conditioning

    @classmethod
    def of(cls, base: Base, rows: Sequence[Row], variants: Sequence[Variant], *, trigger: str, noun: str) -> Self:
        """Encode the captions, of those with alternatives the first; the base must have no LoRA attached yet."""
        first = any(variant.wildcards for variant in variants)
        texts = [first_wording(row.caption) if first else row.caption for row in rows]
        captions = [uncalled(text, trigger=trigger, noun=noun) for text in texts]
        words = Words.of(base, captions, frozen=True)
        if words.states is None:
            raise ValueError("frozen words have states")
        if any(variant.trains_text for variant in variants):
            return cls(base, variants, Words(words.tokens, None), words.states)
        return cls(base, variants, words, words.states)

    def distances(self, lora: LoraSet, batch: Batch, seeds: NDArray[np.uint64]) -> Tensor:
        """Each variant's mean squared distance from the base on each sample of a batch, (V, B).

        ``seeds`` are the samples' noise seeds. Masks do not count: around the subject, too, the base is to stay.
        """
        count, alike = len(self.variants), max(len(batch.latents), len(batch.noise)) // len(seeds)
        dropped = [dice(int(seed), "preserve").random() < EMPTY for seed in seeds]
        index = torch.tensor([-1 if drop else row for drop, row in zip(dropped, batch.rows, strict=True)])
        index = index.to(self.words.tokens.device)
        with torch.no_grad(), lora.without():  # once for all variants that see the same noisy latents
            plain = replace(batch, tokens=None, text=self.told.at(index.repeat(alike)))
            wanted = predictions(self.base, plain, variants=alike)
        asked = self.words.batch(index.repeat(count), batch.latents, batch.noise, batch.timesteps, sizes=batch.sizes)
        said = predictions(self.base, replace(asked, mixed=batch.mixed), variants=count)
        error = said - wanted.repeat(len(said) // len(wanted), 1, 1, 1)
        return error.square().mean(dim=(1, 2, 3)).view(count, -1)
