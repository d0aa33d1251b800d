"""The samples of a step as the networks see them: from the tape's row to batches on the base's device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset, Row
from vez.denoise import Batch, Words, sizes_of
from vez.errors import StoreError
from vez.noising import changed, changes_noise
from vez.tape import Tape, noise


def masks_of(base: Base, dataset: Dataset) -> list[Tensor]:
    """The training rows' masks at the latents' size, each (1, h, w) in [0, 1]: the mean over each cell's pixels.

    A row without a mask counts whole. Raises StoreError for a mask that cannot be read.
    """
    masks = []
    for row in dataset.train:
        try:
            mask = dataset.mask(row)
        except (OSError, ValueError) as error:
            raise StoreError(f"the mask {row.mask} of {dataset.name} is damaged ({error}); build it again") from error
        height, width = (side // base.latent_factor for side in (row.height, row.width))
        if mask is None:
            masks.append(torch.ones(1, height, width, device=base.device))
        else:
            pixels = torch.from_numpy(mask).float()[None] / 255
            masks.append(adaptive_avg_pool2d(pixels, (height, width)).to(base.device))
    return masks


@dataclass(frozen=True)
class Samples:
    """What a pass of several variants learns from; ``moments``, each (8, h, w), and ``words`` are of the rows."""

    base: Base
    rows: Sequence[Row]
    variants: Sequence[Variant]
    tape: Tape
    words: Words
    moments: Sequence[Tensor]
    masks: Sequence[Tensor] | None = None
    """How much of each row counts where a variant is masked, each (1, h, w); None where none is."""

    def batches(self, step: int) -> Iterator[tuple[NDArray[np.uint64], Batch, float]]:
        """A step's samples (1-based) in batches of one shape: their noise seeds, the batch, its share of the step.

        So a step is what the tape says, whatever the buckets, and as many batches as a variant accumulates.
        """
        images = self.tape.image[step - 1]
        shapes = [tuple(self.moments[i].shape) for i in images]
        for shape in dict.fromkeys(shapes):
            alike = [n for n, other in enumerate(shapes) if other == shape]
            size = self.variants[0].batch
            for start in range(0, len(alike), size):
                samples = np.array(alike[start : start + size])
                seeds = self.tape.noise_seed[step - 1, samples]
                yield seeds, self._batch(step, samples), len(samples) / len(shapes)

    def _batch(self, step: int, samples: NDArray[np.intp]) -> Batch:
        """Samples of a step, all of one shape: latents drawn from the cached moments, noise, timesteps, captions."""
        tape, at = self.tape, (step - 1, samples)
        seeds = [int(seed) for seed in tape.noise_seed[at]]
        moments = torch.stack([self.moments[i] for i in tape.image[at]])  # (b, 8, h, w)
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        drawn = torch.from_numpy(np.stack([noise(seed, shape) for seed in seeds]))  # (b, 2, 4, h, w)
        fields = drawn.to(self.base.device)
        mean, deviation = moments.chunk(2, dim=1)
        captions = np.concatenate(
            [np.where(tape.drop[at] < variant.caption_dropout, -1, tape.image[at]) for variant in self.variants]
        )  # (V·b,), -1 is the empty caption
        batch = self.words.batch(
            torch.from_numpy(captions),
            mean + deviation * fields[:, 0],
            fields[:, 1],
            torch.from_numpy(tape.timestep[at]),
            sizes=sizes_of(self.base, [self.rows[i] for i in tape.image[at]]),
        )
        if self.masks is not None:
            masks = torch.stack([self.masks[i] for i in tape.image[at]])
            each = [masks if variant.masked else torch.ones_like(masks) for variant in self.variants]
            batch = replace(batch, mask=torch.cat(each))  # (V·b, 1, h, w)
        return self._with_noise(batch, drawn[:, 1], seeds)

    def _with_noise(self, batch: Batch, plain: Tensor, seeds: Sequence[int]) -> Batch:
        """The batch with each variant's own noise, where one changes it."""
        if not any(changes_noise(variant) for variant in self.variants):
            return batch
        pairs = [
            changed(variant, field, seed=seed)
            for variant in self.variants
            for field, seed in zip(plain, seeds, strict=True)
        ]
        predicted, mixed = (torch.stack(fields).to(self.base.device) for fields in zip(*pairs, strict=True))
        latents = batch.latents.repeat(len(pairs) // len(batch.latents), 1, 1, 1)
        return replace(batch, latents=latents, noise=predicted, mixed=mixed)
