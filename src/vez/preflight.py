"""Fail in seconds: one picture encoded, one step made, one sample drawn, before the long run.

Nothing is kept and nothing is drawn from a shared source of randomness: the LoRAs it trains are thrown away, so a run
after it is, bit for bit, the run without it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from time import perf_counter
from typing import Literal

import psutil
import torch

from vez.base import Base, computing_in, decode_latents, encode_images, encode_text, plain_attention
from vez.config import Sampling, Variant
from vez.dataset import Dataset, Row
from vez.denoise import Batch, Words, sizes_of, variant_losses
from vez.errors import TrainError
from vez.events import Event, Note
from vez.images.wording import visible
from vez.lora import LoraSpec, attach
from vez.optim import AdamW, Rates
from vez.solver import denoise, moves
from vez.solver import noise as start
from vez.tape import noise
from vez.train import PLAIN_ATTENTION_PIXELS

SHOWN = 3  # captions told to the person
SAMPLE_STEPS = 2  # of the solver
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def preflight(
    base: Base,
    dataset: Dataset,
    variants: Mapping[str, Variant],
    *,
    precision: Literal["fp32", "bf16"],
    sampling: Sampling,
) -> Iterator[Event]:
    """Try what a pass of these variants will do, once, with its own batch and the dataset's largest picture.

    Yields what captions are trained on, and how it went. Raises TrainError for a base whose values are not finite and
    for too little memory on a GPU; otherwise what the run itself would raise, in seconds.
    """
    began = perf_counter()
    yield from captions(dataset)
    try:
        loss, broken = one_step(base, dataset, variants, precision=precision)
        one_sample(base, dataset.train[0].caption, sampling=sampling, bf16=precision == "bf16")
    except torch.OutOfMemoryError as error:
        raise TrainError(
            f"one step of {', '.join(variants)} does not fit into the memory of {base.device}; set a smaller batch, "
            f'side_by_side = {max(1, len(variants) // 2)} or precision = "bf16"'
        ) from error
    for name in broken:
        yield Note(f"the gradient of {name} is not finite at the very first step: it will stop; lower its alpha")
    well = "" if broken else ": all is well"
    took = perf_counter() - began
    yield Note(f"tried one picture, one step (loss {loss:.4f}) and one sample{well}, in {took:.0f} s")


def captions(dataset: Dataset) -> Iterator[Note]:
    """The captions that are trained on, three of them: the first, the middle and the last row's."""
    rows = dataset.train
    picked = dict.fromkeys(rows[i * (len(rows) - 1) // (SHOWN - 1)] for i in range(SHOWN)) if rows else {}
    for row in picked:
        yield Note(f"{visible(row.file)} is trained with: {visible(row.caption)}")


def one_step(
    base: Base, dataset: Dataset, variants: Mapping[str, Variant], *, precision: Literal["fp32", "bf16"]
) -> tuple[float, list[str]]:
    """Encode a picture and make one optimizer step on LoRAs that are thrown away.

    Returns the variants' mean loss, and those whose gradient is not finite: such a variant will stop, the others go on.
    Raises TrainError for latents or a loss that are not finite.
    """
    row = largest(dataset)
    batch = next(iter(variants.values())).batch
    moments = encode_images(base, dataset.pixels(row)[None])[0]  # (8, h, w)
    if not bool(moments.isfinite().all()):
        raise TrainError(f"the VAE of {base.name} makes numbers of {row.file} that are not finite; take another VAE")
    mean = moments.chunk(2)[0]
    specs = [LoraSpec(v.rank, v.scale_alpha, unet=v.lr_unet > 0, text=v.lr_text > 0) for v in variants.values()]
    plain = precision == "bf16" and base.device.type == "cpu" and dataset.resolution <= PLAIN_ATTENTION_PIXELS
    with computing_in(base, DTYPES[precision]), plain_attention(base) if plain else nullcontext():
        words = Words.of(base, [row.caption], frozen=not any(spec.text for spec in specs))
        field = torch.from_numpy(noise(0, tuple(mean.shape))[1]).to(base.device)
        made = words.batch(
            torch.zeros(batch * len(specs), dtype=torch.int64),
            mean.repeat(batch, 1, 1, 1),
            field.repeat(batch, 1, 1, 1),
            torch.full((batch,), len(base.schedule) // 2),
            sizes=sizes_of(base, [row] * batch),
        )
        return _trained(base, made, specs, variants)


def _trained(
    base: Base, batch: Batch, specs: list[LoraSpec], variants: Mapping[str, Variant]
) -> tuple[float, list[str]]:
    lora = attach(base, specs, seed=0)
    try:
        optimizer = AdamW(lora)
        losses = variant_losses(base, batch, variants=len(specs))
        losses.sum().backward()  # type: ignore[no-untyped-call]
        norms = optimizer.norms()
        optimizer.step([Rates(v.lr_unet, v.lr_text, v.weight_decay, v.clip_grad) for v in variants.values()], norms)
        values = losses.detach().tolist()
        if not all(map(math.isfinite, values)):  # ups are zero yet: the loss is the base's, whatever the variant
            raise TrainError(
                'the very first loss is not finite; set precision = "fp32", or check that the base '
                f"{base.name} is whole"
            )
        broken = [name for name, norm in zip(variants, norms.tolist(), strict=True) if not math.isfinite(norm)]
        return sum(values) / len(values), broken
    finally:
        lora.detach()


def one_sample(base: Base, text: str, *, sampling: Sampling, bf16: bool) -> None:
    """Draw a picture in two steps, at the size of the study's, and throw it away. Raises TrainError if not finite."""
    side = (sampling.size or base.size) // base.latent_factor
    schedule = base.schedule
    walk = moves(
        schedule.alphas_cumprod.double().cpu().numpy(),
        SAMPLE_STEPS,
        solver=sampling.solver,
        prediction_type=schedule.prediction_type,
    )
    latents = denoise(
        base,
        start([0], side, side),
        text=encode_text(base, [text]),
        negative=encode_text(base, [sampling.negative]),
        walk=walk,
        cfg=sampling.cfg,
        bf16=bf16,
    )
    if not bool(latents.isfinite().all()):
        raise TrainError(f"the base {base.name} draws numbers that are not finite; check that it is whole")
    decode_latents(base, latents)


def largest(dataset: Dataset) -> Row:
    """The training row of the most pixels. Raises TrainError where there is none."""
    if not dataset.train:
        raise TrainError("the dataset has no picture to train on; lower held_out, or add pictures")
    return max(dataset.train, key=lambda row: row.width * row.height)


def free_memory(device: torch.device) -> float:
    """Bytes that can still be had: of the GPU, or of the machine."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)
