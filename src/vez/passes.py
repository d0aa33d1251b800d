"""One pass of several runs over the tape: what they share, how it is prepared, and one step of it."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from vez.base import Base, cached_moments
from vez.config import Variant
from vez.dataset import Dataset, Row
from vez.denoise import FixedNoise, variant_losses
from vez.device import carried
from vez.dropout import Dropout
from vez.events import Event, EventLog, Note, Step
from vez.interop import save_kohya
from vez.learner import Learner, rates_of
from vez.lora import LoraSet, attach
from vez.losses import sample_weights
from vez.optim import Rates
from vez.preserve import Preserved
from vez.rewording import first_wording
from vez.samples import Samples, samples_of
from vez.shape import spec_of
from vez.soundness import broken_tensor, finite

VALIDATED_ANYWAY = 4  # trained pictures in the validation of a dataset that holds none out


@dataclass(frozen=True)
class Run:
    """One variant under way: its settings, the folder it writes into, its log, its file's header."""

    name: str
    variant: Variant
    folder: Path
    log: EventLog
    header: dict[str, str]

    def record(self, event: Event) -> Event:
        """Append the event to the run's log, and hand it on."""
        self.log.append(event)
        return event


@dataclass(frozen=True)
class Pass:
    """All that one pass of several runs shares."""

    base: Base
    dataset: Dataset
    runs: Sequence[Run]
    lora: LoraSet
    learner: Learner
    dropout: Dropout
    samples: Samples
    beside: Samples | None
    """The class pictures that each step sees besides."""
    preserved: Preserved | None
    """What captions without the trigger are held to."""
    steps: int
    validation: Mapping[Literal["held_out", "train"], Sequence[FixedNoise]]
    stopped: dict[int, str]
    """Why a run learns no more, by its place. It stays in the batch: the others' bits do not change with it."""


def prepare(
    base: Base,
    dataset: Dataset,
    prior: Dataset | None,
    runs: Sequence[Run],
    *,
    seed: int,
    steps: int,
    validate: bool,
    cache: Path | None,
    trigger: str = "",
    noun: str = "",
) -> Pass:
    """Encode pictures and captions, write the tape, attach the LoRAs.

    The trigger and the class noun are needed where a variant preserves.
    """
    variants = [run.variant for run in runs]
    specs = [spec_of(v) for v in variants]
    samples = samples_of(base, dataset, variants, seed=seed, steps=steps, cache=cache)
    known = dict(zip((view.sha256 for view in samples.views), samples.moments, strict=True))
    known |= {
        row.sha256: cached_moments(base, dataset.pixels(row), sha256=row.sha256, cache=cache)
        for row in dataset.held_out
    }
    beside = None
    if prior is not None:
        beside = samples_of(base, prior, variants, seed=seed, steps=steps, cache=cache, beside=True)
    preserved = None
    if any(variant.preserve for variant in variants):
        preserved = Preserved.of(base, dataset.train, variants, trigger=trigger, noun=noun)
    held_out = dataset.held_out if validate else ()
    # As many trained pictures as held-out ones, spread over the dataset: the gap between their losses is what was
    # learned by heart.
    count = min(len(dataset.train), len(held_out) or VALIDATED_ANYWAY) if validate else 0
    seen = [dataset.train[i * len(dataset.train) // count] for i in range(count)]
    lora = attach(base, specs, seed=seed)
    with ExitStack() as undo:  # an optimizer that cannot be made leaves the base as it was
        undo.callback(lora.detach)
        learner = Learner(lora, variants)
        undo.pop_all()
    return Pass(
        base,
        dataset,
        runs,
        lora,
        learner,
        Dropout(lora, variants),
        samples,
        beside,
        preserved,
        steps,
        {
            "held_out": [_fixed(base, row, known, variants) for row in held_out],
            "train": [_fixed(base, row, known, variants) for row in seen],
        },
        {},
    )


def _fixed(base: Base, row: Row, known: Mapping[str, Tensor], variants: Sequence[Variant]) -> FixedNoise:
    """A picture as it is validated: where a variant draws its words, with the first ones for all."""
    moments = known[row.sha256]
    if any(variant.wildcards for variant in variants):
        row = replace(row, caption=first_wording(row.caption))
    return FixedNoise.of(base, row, moments)


def step_of(work: Pass, step: int) -> Iterator[Event]:
    """One optimizer step of every variant (1-based), from the tape's row to its events."""
    began = perf_counter()
    variants = [run.variant for run in work.runs]
    rates = [rates_of(variant, step - 1, steps=work.steps) for variant in variants]
    found, broken = _queue(work, step, rates)
    losses, norms, drifts = found.tolist()  # the one time that a step waits for its device
    missing = work.learner.settle(losses, norms, stopped=work.stopped)
    yield from _stop_broken(work, losses, norms, step=step, missing=missing)
    work.learner.clear()
    for v, where in broken.items():
        yield from stop(work, v, f"an update of {variants[v].optimizer}", step=step, where=where)
    seconds = perf_counter() - began
    rows = zip(work.runs, losses, rates, norms, drifts, strict=True)
    for v, (run, loss, rate, norm, drift) in enumerate(rows):
        if v not in work.stopped:
            held = drift if run.variant.preserve else None
            yield run.record(Step(run.name, step, work.steps, loss, rate.unet, rate.text, norm, seconds, held))


def _queue(work: Pass, step: int, rates: Sequence[Rates]) -> tuple[Tensor, dict[int, str]]:
    """Have the device make a whole step, its update too, and draw the next one's samples meanwhile.

    Returns losses, norms and drifts, (3, V), on the device, and what `Learner.step` returns.
    """
    losses, drifts = gradients(work, step)
    norms = work.learner.norms()
    broken = work.learner.step(rates, norms, losses=losses, stopped=work.stopped)
    for samples in (work.samples, work.beside):
        if samples is not None and step < work.steps:
            samples.draw(step + 1)
    return torch.stack([losses, norms, drifts]), broken


def gradients(work: Pass, step: int) -> tuple[Tensor, Tensor]:
    """Add up the gradients of a step (1-based); returns each variant's loss, (V,), and its drift, (V,)."""
    variants = [run.variant for run in work.runs]
    losses = torch.zeros(len(variants), device=work.base.device)
    drifts = torch.zeros_like(losses)
    priors = carried(torch.tensor([variant.prior_weight for variant in variants]), losses.device)
    holds = carried(torch.tensor([variant.preserve for variant in variants]), losses.device)
    parts = [(torch.ones_like(priors), work.samples), *([(priors, work.beside)] if work.beside else [])]
    each = ((counts, one, found) for counts, one in parts for found in one.batches(step))
    for counts, one, (seeds, batch, share) in each:
        weights = sample_weights(work.base.schedule, batch.timesteps, variants)
        with work.dropout.of(seeds):
            losses_of = variant_losses(work.base, batch, variants=len(variants), weights=weights, settings=variants)
            part = share * losses_of * counts  # (V,)
            _backward(work, part)
            losses += part.detach()
            if work.preserved is not None and one is work.samples:
                away = share * work.preserved.distances(work.lora, batch, seeds)  # (V, B)
                held = (away if weights is None else away * weights).mean(dim=1)
                _backward(work, holds * held)
                drifts += away.detach().mean(dim=1)
    if work.learner.scaling is not None:
        work.learner.scaling.undo(work.lora.grads)
    return losses, drifts


def _backward(work: Pass, losses: Tensor) -> None:
    """Add the gradients of the variants' losses (V,); in fp16 scaled, so that small ones stay numbers."""
    scaling = work.learner.scaling
    (losses if scaling is None else scaling.apply(losses)).sum().backward()  # type: ignore[no-untyped-call]


def _stop_broken(
    work: Pass, losses: Sequence[float], norms: Sequence[float], *, step: int, missing: Collection[int] = ()
) -> Iterator[Event]:
    """Stop the runs of a broken step: they had no update, their weights are still the last good ones, and are kept.

    Those in ``missing`` only overflowed fp16, and go on with the next step.
    """
    for v in missing:
        text = f"{work.runs[v].name}: the gradient overflowed fp16; this update is left out, and its loss scale halved"
        yield work.runs[v].record(Note(text, step))
    for v in range(len(work.runs)):
        if v not in {*work.stopped, *missing} and not math.isfinite(losses[v] + norms[v]):
            what = "the loss" if not math.isfinite(losses[v]) else "the norm of the gradient"
            yield from stop(work, v, what, step=step, where=broken_tensor(work.lora, v))


def stop(work: Pass, v: int, what: str, *, step: int, where: str) -> Iterator[Event]:
    """One run learns no more: its weights after the step before are written as fp32, and the reason is in its log."""
    run, path = work.runs[v], work.runs[v].folder / f"lora-{step - 1:06d}.safetensors"
    reason = f"stopped at step {step}: {what} is not finite ({where})"
    if finite(work.lora, v):
        metadata = run.header | {"ss_steps": str(step - 1)}
        save_kohya(path, work.lora.state(v), metadata=metadata, dtype=torch.float32)  # fp16 may not hold them
        reason += f"; the weights after step {step - 1} are kept in {run.folder.name}/{path.name}"
    work.stopped[v] = f"{reason}; lower its learning rate"
    yield run.record(Note(f"{run.name} {work.stopped[v]}", step))
