"""Fail in seconds: one picture encoded, one step made, one sample drawn, before the long run.

Nothing is kept and nothing is drawn from a shared source of randomness: the LoRAs it trains are thrown away, so a run
after it is, bit for bit, the run without it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import psutil
import torch

from vez.base import Base, computing, decode_latents, encode_text
from vez.config import Checkpointing, Precision, Sampling, Variant
from vez.dataset import Dataset, Row
from vez.errors import TrainError
from vez.events import Event, EventLog, Note
from vez.images.wording import visible
from vez.learner import rates_of
from vez.nets.kernels.regions import so_far
from vez.passes import Pass, Run, gradients, prepare
from vez.rewording import may_lose, may_move, reworded, rewords
from vez.solver import denoise, moves
from vez.solver import noise as start
from vez.tape import record

SHOWN = 3  # captions told to the person
SAMPLE_STEPS = 2  # of the solver
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def preflight(
    base: Base,
    dataset: Dataset,
    variants: Mapping[str, Variant],
    *,
    precision: Precision,
    checkpointing: Checkpointing = "none",
    compile: bool = False,
    sampling: Sampling,
    seed: int = 0,
    prior: Dataset | None = None,
    trigger: str = "",
    noun: str = "",
) -> Iterator[Event]:
    """Try what a pass of these variants will do, once, with its own batch and the largest pictures.

    Yields what captions are trained on, and how it went. Raises TrainError for a base whose values are not finite and
    for too little memory on a GPU, ConfigError where there is no compiler to ``compile`` with; otherwise what the run
    itself would raise, in seconds.
    """
    began = perf_counter()
    yield from captions(base, dataset, variants, seed=seed)
    yield from lost_triggers(dataset, variants, trigger)
    try:
        words: dict[str, Any] = {"trigger": trigger, "noun": noun}
        how: dict[str, Any] = {"precision": precision, "checkpointing": checkpointing, "compile": compile}
        before = so_far()
        loss, broken = one_step(base, dataset, variants, prior=prior, **how, **words)
        one_sample(base, dataset.train[0].caption, sampling=sampling, precision=precision)
    except torch.OutOfMemoryError as error:
        raise TrainError(
            f"one step of {', '.join(variants)} does not fit into the memory of {base.device}; set a smaller batch, "
            f'side_by_side = {max(1, len(variants) // 2)}, precision = "bf16" or quantize = "int8"'
        ) from error
    if compile:
        made, seconds = (now - then for now, then in zip(so_far(), before, strict=True))
        yield Note(f"compiled {made:.0f} norms and gates in {seconds:.0f} s; they are kept for the next run")
    for name in broken:
        yield Note(f"the gradient of {name} is not finite at the very first step: it will stop; lower its alpha")
    well = "" if broken else ": all is well"
    took = perf_counter() - began
    yield Note(f"tried one picture, one step (loss {loss:.4f}) and one sample{well}, in {took:.0f} s")


def lost_triggers(dataset: Dataset, variants: Mapping[str, Variant], trigger: str) -> Iterator[Note]:
    """A word on each variant whose samples may be trained without the trigger of their caption, or with it moved."""
    told = [row.caption for row in dataset.train] if trigger else []
    for name, variant in variants.items():
        for happens, what in ((may_lose, "leave out"), (may_move, "move")):
            count = sum(happens(caption, variant, trigger) for caption in told)
            if count:
                yield Note(
                    f"{name} may {what} the trigger {visible(trigger)!r} in {count} of {len(told)} captions: its "
                    f"keep_tokens is {variant.keep_tokens}; 1 keeps what stands before the first comma"
                )


def captions(base: Base, dataset: Dataset, variants: Mapping[str, Variant], *, seed: int) -> Iterator[Note]:
    """Three captions as they are trained on: the first, the middle and the last row's.

    A variant that words them anew is shown with its own wording, that of the row's first time in a run of this
    ``seed``; and of what is too long for the base, what it reads.
    """
    rows = dataset.train
    picked = dict.fromkeys(i * (len(rows) - 1) // (SHOWN - 1) for i in range(SHOWN)) if rows else {}
    plain = [name for name, variant in variants.items() if not rewords(variant)]
    seeds = record(len(rows), seed=seed, steps=len(rows), batch=1) if rows else None
    for i in picked:
        file, caption = visible(rows[i].file), rows[i].caption
        if plain:
            yield Note(f"{file} is trained with: {_as_read(base, caption)}")
        for name, variant in variants.items():
            if name not in plain and seeds is not None:
                first = int((seeds.image[:, 0] == i).argmax())
                worded = reworded(caption, variant, seed=int(seeds.noise_seed[first, 0]))
                yield Note(f"{file} is trained by {name}, the first time, with: {_as_read(base, worded)}")


def _as_read(base: Base, caption: str) -> str:
    """The caption, or what the base reads of it where that is less."""
    longest = 75 * base.chunks
    ids = base.tokenizer.bare(caption)
    if len(ids) <= longest:
        return visible(caption) or "no words"
    told = visible(base.tokenizer.decode(ids[:longest]))
    return f"{told} … and is cut there: {len(ids)} tokens, and the base reads {longest} (project.tokens)"


def one_step(
    base: Base,
    dataset: Dataset,
    variants: Mapping[str, Variant],
    *,
    precision: Precision,
    checkpointing: Checkpointing = "none",
    compile: bool = False,
    prior: Dataset | None = None,
    trigger: str = "",
    noun: str = "",
) -> tuple[float, list[str]]:
    """Encode a picture and make one step of a pass, by the run's own code, on LoRAs that are thrown away.

    Returns the variants' mean loss, and those whose gradient or update is not finite: such a variant will stop, the
    others go on. Raises TrainError for latents or a loss that are not finite.
    """
    one = replace(dataset, rows=largest(dataset).views[:1])
    beside = None if prior is None else replace(prior, rows=largest(prior).views[:1])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="vez-")))
        log = stack.enter_context(EventLog(folder / "events.jsonl"))
        # its gradients are added up over several batches: one is enough to try
        alone = {name: variant.model_copy(update={"accumulate": 1}) for name, variant in variants.items()}
        runs = [Run(name, variant, folder, log, {}) for name, variant in alone.items()]
        as_run: dict[str, Any] = {"checkpointing": checkpointing, "compile": compile}
        stack.enter_context(computing(base, DTYPES[precision], pixels=dataset.resolution, **as_run))
        words = {"trigger": trigger, "noun": noun}
        work = prepare(base, one, beside, runs, seed=0, steps=1, validate=False, cache=None, **words)
        stack.callback(work.lora.detach)
        for samples in (work.samples, work.beside):
            if samples is not None and not all(bool(moments.isfinite().all()) for moments in samples.moments):
                file = samples.rows[0].file
                raise TrainError(
                    f"the VAE of {base.name} makes numbers of {file} that are not finite; take another VAE"
                )
        return _tried(work)


def _tried(work: Pass) -> tuple[float, list[str]]:
    """The mean loss of a pass's first step, and the runs whose gradient or update is not finite."""
    values = gradients(work, 1)[0].tolist()
    while work.learner.overflowed(work.learner.norms().tolist(), of=range(len(values))):  # as its first steps will do
        work.lora.grads.zero_()
        gradients(work, 1)
    if not all(map(math.isfinite, values)):  # ups are zero yet: the loss is the base's, whatever the variant
        raise TrainError(
            'the very first loss is not finite; set precision = "fp32", or check that the base '
            f"{work.base.name} is whole"
        )
    norms = work.learner.norms()
    broken = {v for v, norm in enumerate(norms.tolist()) if not math.isfinite(norm)}
    full = [run.variant.model_copy(update={"warmup": 0, "schedule": "constant"}) for run in work.runs]
    broken |= work.learner.step([rates_of(v, 0, steps=1) for v in full], norms, stopped=broken).keys()
    return sum(values) / len(values), [work.runs[v].name for v in sorted(broken)]


def one_sample(base: Base, text: str, *, sampling: Sampling, precision: Precision) -> None:
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
        precision=precision,
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
