"""The samples of a step as the networks see them: from the tape's row to batches on the base's device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vez.base import Base, Conditioning, cached_moments, encode_text, tokenize
from vez.config import Variant
from vez.dataset import Dataset, Row
from vez.denoise import Batch, Words, sizes_of
from vez.device import carried
from vez.errors import StoreError
from vez.images.pixels import pixels_sha256
from vez.noising import changed, changes_noise
from vez.rewording import reworded, rewords
from vez.tape import Tape, dice, noise, record

FLIPPED = 0.5  # chance that a sample is mirrored
WORDINGS_KEPT = 256  # encoded captions: 60 MB for SD 1.x, 160 MB for SDXL, in fp32


def views_of(rows: Sequence[Row]) -> tuple[Row, ...]:
    """All that samples of these rows may show: each row's own picture, then it at its other places, row by row."""
    return tuple(view for row in rows for view in row.views)


def masks_of(base: Base, dataset: Dataset) -> list[Tensor]:
    """The masks of the training views at the latents' size, each (1, h, w) in [0, 1]: the mean over a cell's pixels.

    A row without a mask counts whole. Raises StoreError for a mask that cannot be read.
    """
    masks = []
    for row in views_of(dataset.train):
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


def mirrored_of(base: Base, dataset: Dataset, *, cache: Path | None) -> list[Tensor]:
    """The training views' moments, each (8, h, w), of their pictures mirrored left to right."""
    moments = []
    for row in views_of(dataset.train):
        pixels = np.ascontiguousarray(dataset.pixels(row)[:, ::-1])
        sha256 = pixels_sha256(Image.fromarray(pixels))
        moments.append(cached_moments(base, pixels, sha256=sha256, cache=cache))
    return moments


def encoder(base: Base) -> Callable[[str], Conditioning]:
    """Encodes a caption by frozen text encoders, alone: a caption's bits depend on no other. The last ones are kept."""
    return lru_cache(maxsize=WORDINGS_KEPT)(lambda caption: encode_text(base, [caption]))


def samples_of(
    base: Base,
    dataset: Dataset,
    variants: Sequence[Variant],
    *,
    seed: int,
    steps: int,
    cache: Path | None,
    beside: bool = False,
) -> "Samples":
    """Encode the training pictures and their captions, and write the tape; ``beside`` for class pictures' own tape."""
    batch, timesteps = variants[0].per_step, len(base.schedule)
    rows, frozen = dataset.train, not any(variant.trains_text for variant in variants)
    return Samples(
        base,
        rows,
        variants,
        record(len(rows), seed=seed, steps=steps, batch=batch, timesteps=timesteps, beside=beside),
        Words.of(base, [row.caption for row in rows], frozen=frozen),
        [cached_moments(base, dataset.pixels(row), sha256=row.sha256, cache=cache) for row in views_of(rows)],
        masks_of(base, dataset) if any(variant.masked for variant in variants) else None,
        mirrored_of(base, dataset, cache=cache) if any(variant.flip for variant in variants) else None,
        encoder(base),
    )


@dataclass(frozen=True)
class Samples:
    """What a pass of several variants learns from: ``words`` of the rows, ``moments``, each (8, h, w), of their views.

    The tape says the row of a sample; which of the row's views it shows, it draws itself.
    """

    base: Base
    rows: Sequence[Row]
    variants: Sequence[Variant]
    tape: Tape
    words: Words
    moments: Sequence[Tensor]
    masks: Sequence[Tensor] | None = None
    """How much of each view counts where a variant is masked, each (1, h, w); None where none is."""
    mirrored: Sequence[Tensor] | None = None
    """``moments`` of the mirrored pictures; None where no variant flips."""
    encoded: Callable[[str], Conditioning] | None = None
    """Encodes new wordings where the text encoders are frozen."""
    _drawn: dict[int, list[tuple[NDArray[np.uint64], Batch, float]]] = field(default_factory=dict, init=False)
    """Batches of steps to come."""

    @cached_property
    def views(self) -> tuple[Row, ...]:
        """What samples may show (`views_of` the rows)."""
        return views_of(self.rows)

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """The place of each row's first view; at the end, how many views there are."""
        return np.cumsum([0, *(1 + len(row.moved) for row in self.rows)], dtype=np.int64)

    def shown(self, images: NDArray[np.int64], seeds: Sequence[int]) -> NDArray[np.int64]:
        """The view that each sample shows: of row ``images[n]``, drawn by ``seeds[n]``."""
        first = self._first[images]
        of = self._first[images + 1] - first
        pairs = zip(of.tolist(), seeds, strict=True)
        drawn = [int(dice(seed, "crop").integers(count)) if count > 1 else 0 for count, seed in pairs]
        return first + np.array(drawn, dtype=np.int64)

    def draw(self, step: int) -> None:
        """Have a step's batches ready before it comes: the processor draws them while a device is busy."""
        self._drawn[step] = list(self._batches(step))

    def batches(self, step: int) -> Iterator[tuple[NDArray[np.uint64], Batch, float]]:
        """A step's samples (1-based) in batches of one shape: their noise seeds, the batch, its share of the step.

        So a step is what the tape says, whatever the buckets, and as many batches as a variant accumulates.
        """
        yield from self._drawn.pop(step, None) or self._batches(step)

    def _batches(self, step: int) -> Iterator[tuple[NDArray[np.uint64], Batch, float]]:
        images = self.tape.image[step - 1]
        shapes = [tuple(self.moments[i].shape) for i in self._first[images]]  # all views of a row have one
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
        images, seeds = tape.image[at], [int(seed) for seed in tape.noise_seed[at]]
        views = self.shown(images, seeds)
        moments = self.moments[views[0]]  # (8, h, w)
        shape = (moments.shape[0] // 2, *moments.shape[1:])
        drawn = torch.from_numpy(np.stack([noise(seed, shape) for seed in seeds]))  # (b, 2, 4, h, w)
        fields = carried(drawn, self.base.device)
        turned = [dice(seed, "flip").random() < FLIPPED for seed in seeds]
        captions = np.concatenate(
            [np.where(self._without(step, samples, variant), -1, images) for variant in self.variants]
        )  # (V·b,), -1 is the empty caption
        batch = self.words.batch(
            torch.from_numpy(captions),
            self._latents(views, fields[:, 0], turned),
            fields[:, 1],
            torch.from_numpy(tape.timestep[at]),
            sizes=self._sizes(views, turned),
        )
        batch = replace(batch, rows=tuple(images.tolist()))
        return self._with_mask(
            self._with_noise(self._with_wording(batch, captions, seeds), drawn[:, 1], seeds), views, turned
        )

    def _without(self, step: int, samples: NDArray[np.intp], variant: Variant) -> NDArray[np.bool_]:
        """Which samples of a step a variant sees without their caption."""
        dropped: NDArray[np.bool_] = self.tape.drop[step - 1, samples] < variant.caption_dropout
        if variant.caption_dropout_every:
            seen = (step - 1) * self.tape.image.shape[1] + samples
            passes = seen // len(self.rows) + 1  # from 1, as kohya counts epochs
            dropped = dropped | (passes % variant.caption_dropout_every == 0)
        return dropped

    def _latents(self, views: NDArray[np.int64], field: Tensor, turned: Sequence[bool]) -> Tensor:
        """Latents of a batch, (b, 4, h, w), or (V·b, 4, h, w) where a variant flips."""
        found = []
        for flips in [variant.flip for variant in self.variants] if self.mirrored is not None else [False]:
            mirrored = self.mirrored if flips and self.mirrored is not None else self.moments
            pairs = zip(views, turned, strict=True)
            moments = torch.stack([mirrored[i] if turn else self.moments[i] for i, turn in pairs])  # (b, 8, h, w)
            mean, deviation = moments.chunk(2, dim=1)
            found.append(mean + deviation * field)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _sizes(self, views: NDArray[np.int64], turned: Sequence[bool]) -> Tensor | None:
        """What a base is told of a batch's sizes, (b, 6), or (V·b, 6) where a variant flips."""
        shown = [self.views[i] for i in views]
        flips = [variant.flip for variant in self.variants] if self.mirrored is not None else [False]
        told = [sizes_of(self.base, shown, turned=turned if flip else None) for flip in flips]
        found = [sizes for sizes in told if sizes is not None]
        return torch.cat(found) if found else None

    def _with_wording(self, batch: Batch, captions: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        """The batch with captions worded for each sample, where a variant does so."""
        if not any(rewords(variant) for variant in self.variants):
            return batch
        told = [(variant, seed) for variant in self.variants for seed in seeds]
        texts = [
            reworded(self.rows[i].caption, variant, seed=seed) if i >= 0 else ""
            for i, (variant, seed) in zip(captions, told, strict=True)
        ]
        if batch.text is not None and self.encoded is not None:
            return replace(batch, text=Conditioning.joined([self.encoded(text) for text in texts]))
        return replace(batch, tokens=tokenize(self.base, texts))

    def _with_mask(self, batch: Batch, views: NDArray[np.int64], turned: Sequence[bool]) -> Batch:
        """The batch with each variant's masks, mirrored as its pictures are; ones where it is not masked."""
        if self.masks is None:
            return batch
        plain = torch.stack([self.masks[i] for i in views])  # (b, 1, h, w)
        mirrored = torch.stack([m.flip(-1) if turn else m for m, turn in zip(plain, turned, strict=True)])
        each = [(mirrored if v.flip else plain) if v.masked else torch.ones_like(plain) for v in self.variants]
        return replace(batch, mask=torch.cat(each))  # (V·b, 1, h, w)

    def _with_noise(self, batch: Batch, plain: Tensor, seeds: Sequence[int]) -> Batch:
        """The batch with each variant's own noise, where one changes it."""
        if not any(changes_noise(variant) for variant in self.variants):
            return batch
        pairs = [
            changed(variant, field, seed=seed)
            for variant in self.variants
            for field, seed in zip(plain, seeds, strict=True)
        ]
        predicted, mixed = (carried(torch.stack(fields), self.base.device) for fields in zip(*pairs, strict=True))
        return replace(batch, noise=predicted, mixed=mixed)
