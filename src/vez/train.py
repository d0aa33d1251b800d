"""Training: one pass over the tape, top to bottom, for all variants that share a dataset and a batch size.

A run's artifact holds ``lora.safetensors`` (kohya's layout), ``lora-<step>.safetensors`` where checkpoints were asked
for, and ``events.jsonl``. A run that is killed goes on from its last state and ends in the same bits.
"""

import json
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from vez import checkpoint
from vez.base import Base, cached_moments, computing_in, plain_attention
from vez.config import Variant
from vez.dataset import Dataset
from vez.denoise import FixedNoise, fixed_noise_losses, variant_losses
from vez.dropout import Dropout
from vez.errors import ConfigError, LoraFileError, RunStopped
from vez.events import Done, Event, EventLog, Note, Saved, Stage, Step, Validated, as_json, read
from vez.header import header
from vez.interop import save_kohya
from vez.learner import Learner, rates_of
from vez.lora import LoraSet, LoraSpec, attach
from vez.losses import sample_weights
from vez.samples import Samples, samples_of
from vez.soundness import base_norms, broken_tensor, finite, size
from vez.store import artifact_id, find, making, write_atomic

KIND = "run"
VERSION = 1  # raised when the same settings would give another LoRA
PLAIN_ATTENTION_PIXELS = 256  # side of the pictures up to which its matrices are small (1,024 tokens)
VALIDATED_ANYWAY = 4  # trained pictures in the validation of a dataset that holds none out
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class _Run:
    """One variant under way: its settings, the folder it writes into, its log, its file's header."""

    name: str
    variant: Variant
    folder: Path
    log: EventLog
    header: dict[str, str]

    def record(self, event: Event) -> Event:
        self.log.append(event)
        return event


@dataclass(frozen=True)
class _Pass:
    """All that one pass of several runs shares."""

    base: Base
    dataset: Dataset
    runs: Sequence[_Run]
    lora: LoraSet
    learner: Learner
    dropout: Dropout
    samples: Samples
    beside: Samples | None
    """The class pictures that each step sees besides."""
    steps: int
    validation: Mapping[Literal["held_out", "train"], Sequence[FixedNoise]]
    stopped: dict[int, str]
    """Why a run learns no more, by its place. It stays in the batch: the others' bits do not change with it."""


def train(
    base: Base,
    dataset: Dataset,
    variants: Mapping[str, Variant],
    *,
    seed: int,
    steps: int,
    into: Mapping[str, Path],
    save_every: int | None = None,
    keep: int | None = None,
    validate_every: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    trigger: str = "",
    prior: Dataset | None = None,
    cache: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Event]:
    """Teach one concept to several LoRAs at once; each ends with its own Done. A cut run goes on, a finished one stays.

    Args:
        base: the frozen base; it is as it was when the generator ends, however it ends.
        dataset: what they all learn from.
        variants: by name; all of the same batch size.
        seed: of the tape and of the LoRAs' first weights.
        steps: optimizer steps of each.
        into: each variant's run folder.
        save_every: steps between LoRA files besides the last one.
        keep: how many of those stay, the newest; None keeps all.
        validate_every: steps between losses with fixed noise, on the held-out pictures and on as many trained ones.
        precision: what U-Net and text encoder compute in; the LoRAs' own weights are fp32 always.
        trigger: the trigger word, for the file's header.
        prior: class pictures; each step sees as many of them too, as the variants' prior_weight counts them.
        cache: folder for the latents of pictures seen before; None keeps none.
        checkpoint_seconds: time between states to go on from; 0 makes one at every step.
    Raises:
        RunStopped: runs came to numbers that are not finite; the others are finished, as if nothing had been.
        TrainError: a dataset without pictures, or a state that cannot be gone on from.
        ConfigError: variants that cannot share a pass.
        StoreError: a folder that cannot be written, or that another process writes.
    """
    _refuse_unlike(variants, into, prior)
    shared: dict[str, Any] = {"seed": seed, "steps": steps, "precision": precision, "trigger": trigger}
    shared |= {"save_every": save_every, "keep": keep, "validate_every": validate_every}
    configs = {name: {"name": name, "variant": _setting(v), **shared} for name, v in variants.items()}
    parents = {"base": base.sha256, "dataset": dataset.id} | ({} if prior is None else {"prior": prior.id})
    ids = {name: artifact_id(KIND, parents, config, VERSION) for name, config in configs.items()}
    todo = [name for name in variants if find(into[name], ids[name]) is None]
    stopped: dict[str, str] = {}
    with ExitStack() as stack:
        folders = [stack.enter_context(_folder(into[name], parents, configs[name], stopped)) for name in todo]
        start = checkpoint.latest(folders) if todo else 0
        logs = [stack.enter_context(_log(folder, start)) for folder in folders]
        heads = [header(base, dataset, variants[name], configs[name], run_id=ids[name]) for name in todo]
        made = zip(todo, folders, logs, heads, strict=True)
        runs = [_Run(f"{n}-{seed}", variants[n], folder, log, head) for n, folder, log, head in made]
        if runs:
            stopped |= yield from _pass(base, dataset, prior, runs, start, shared, cache, checkpoint_seconds)
    yield from (Done(into[name], ids[name]) for name in variants if f"{name}-{seed}" not in stopped)
    if stopped:
        raise RunStopped("; ".join(f"{name} {stopped[name]}" for name in sorted(stopped)))


def _pass(
    base: Base,
    dataset: Dataset,
    prior: Dataset | None,
    runs: Sequence[_Run],
    start: int,
    shared: Mapping[str, Any],
    cache: Path | None,
    checkpoint_seconds: float,
) -> Generator[Event, None, dict[str, str]]:
    """All steps after ``start``; returns why runs stopped, by name. Nothing is done where all had before."""
    before = checkpoint.stopped([run.folder for run in runs], step=start) if start else {}
    if len(before) == len(runs):
        return {runs[v].name: reason for v, reason in before.items()}
    seed, steps, every = shared["seed"], shared["steps"], shared["validate_every"]
    with ExitStack() as stack:
        stack.enter_context(_computing(base, shared["precision"], pixels=dataset.resolution))
        work = _prepare(base, dataset, prior, runs, seed=seed, steps=steps, validate=bool(every), cache=cache)
        stack.callback(work.lora.detach)
        work.stopped.update(before)
        names = ", ".join(run.name.rpartition("-")[0] for run in runs)
        yield Stage("train", steps, f"{names} · seed {seed} · {len(dataset.train)} pictures")
        yield from _steps(work, start, shared["save_every"], shared["keep"], every, checkpoint_seconds)
    return {runs[v].name: reason for v, reason in work.stopped.items()}


def _refuse_unlike(variants: Mapping[str, Variant], into: Mapping[str, Path], prior: Dataset | None) -> None:
    if len({(v.batch, v.accumulate) for v in variants.values()}) != 1 or variants.keys() != into.keys():
        raise ConfigError("variants trained together need one batch size and a folder each; train the others apart")
    if any((v.prior is None) != (prior is None) for v in variants.values()):
        raise ConfigError("variants trained together have one prior, whose pictures are given, or none has one")


def _setting(variant: Variant) -> dict[str, Any]:
    """A variant as the manifest keeps it: with its alpha, given or not."""
    return variant.model_dump() | {"alpha": float(variant.rank) if variant.alpha is None else variant.alpha}


@contextmanager
def _folder(
    into: Path, parents: Mapping[str, str], config: Mapping[str, Any], stopped: Mapping[str, str]
) -> Iterator[Path]:
    """The folder a run is made in; its state goes when the run is finished, and only then, which no stopped one is."""
    with suppress(RunStopped), making(into, kind=KIND, parents=parents, config=config, version=VERSION) as made:
        yield made.path
        if f"{config['name']}-{config['seed']}" in stopped:
            raise RunStopped
        checkpoint.clear([made.path])


@contextmanager
def _computing(base: Base, precision: Literal["fp32", "bf16"], *, pixels: int) -> Iterator[None]:
    plain = precision == "bf16" and base.device.type == "cpu" and pixels <= PLAIN_ATTENTION_PIXELS
    with computing_in(base, _DTYPES[precision]), plain_attention(base) if plain else nullcontext():
        yield


def _log(folder: Path, start: int) -> EventLog:
    """The run's events.jsonl, cut back to the step that the run goes on after."""
    path = folder / "events.jsonl"
    kept = [event for event in read(path) if getattr(event, "step", 0) <= start] if start and path.exists() else []
    lines = [json.dumps(as_json(event), ensure_ascii=False) + "\n" for event in kept]
    write_atomic(path, "".join(lines).encode())
    return EventLog(path)


def _prepare(
    base: Base,
    dataset: Dataset,
    prior: Dataset | None,
    runs: Sequence[_Run],
    *,
    seed: int,
    steps: int,
    validate: bool,
    cache: Path | None,
) -> _Pass:
    """Encode pictures and captions, write the tape, attach the LoRAs."""
    variants = [run.variant for run in runs]
    specs = [LoraSpec(v.rank, v.scale_alpha, unet=v.lr_unet > 0, text=v.lr_text > 0) for v in variants]
    samples = samples_of(base, dataset, variants, seed=seed, steps=steps, cache=cache)
    known = dict(zip((row.sha256 for row in dataset.train), samples.moments, strict=True))
    known |= {
        row.sha256: cached_moments(base, dataset.pixels(row), sha256=row.sha256, cache=cache)
        for row in dataset.held_out
    }
    beside = None
    if prior is not None:
        beside = samples_of(base, prior, variants, seed=seed, steps=steps, cache=cache, beside=True)
    held_out = dataset.held_out if validate else ()
    # As many trained pictures as held-out ones, spread over the dataset: the gap between their losses is what was
    # learned by heart.
    count = min(len(dataset.train), len(held_out) or VALIDATED_ANYWAY) if validate else 0
    seen = [dataset.train[i * len(dataset.train) // count] for i in range(count)]
    return _Pass(
        base,
        dataset,
        runs,
        lora := attach(base, specs, seed=seed),
        Learner(lora, variants),
        Dropout(lora, variants),
        samples,
        beside,
        steps,
        {
            "held_out": [FixedNoise.of(base, row, known[row.sha256]) for row in held_out],
            "train": [FixedNoise.of(base, row, known[row.sha256]) for row in seen],
        },
        {},
    )


def _steps(
    work: _Pass,
    start: int,
    save_every: int | None,
    keep: int | None,
    validate_every: int | None,
    checkpoint_seconds: float,
) -> Iterator[Event]:
    """The loop. A state is written after everything else of its step, so a resumed log has no gap and nothing twice."""
    folders = [run.folder for run in work.runs]
    if start:
        checkpoint.restore(work.learner, folders, step=start)
        yield Note(f"goes on after step {start}")
    elif validate_every:
        yield from _validate(work, step=0)
    saved_at = monotonic()
    for step in range(start + 1, work.steps + 1):
        yield from _step(work, step)
        if len(work.stopped) == len(work.runs):
            checkpoint.save(work.learner, folders, work.stopped)
            return
        if validate_every and (step % validate_every == 0 or step == work.steps):
            with work.learner.as_saved():
                yield from _validate(work, step=step)
        last = step == work.steps
        if last or (save_every and step % save_every == 0):
            with work.learner.as_saved():
                yield from _save(work, name="lora" if last else f"lora-{step:06d}", step=step)
            _forget(work, keep, step=step)
        # One at the very end too: a kill between two runs' finishing then costs the second nothing.
        if step == work.steps or monotonic() - saved_at >= checkpoint_seconds:
            checkpoint.save(work.learner, folders, work.stopped)
            saved_at = monotonic()


def _step(work: _Pass, step: int) -> Iterator[Event]:
    """One optimizer step of every variant (1-based), from the tape's row to its events."""
    began = perf_counter()
    variants = [run.variant for run in work.runs]
    losses = torch.zeros(len(variants), device=work.base.device)
    priors = torch.tensor([variant.prior_weight for variant in variants], device=losses.device)
    parts = [(torch.ones_like(priors), work.samples), *([(priors, work.beside)] if work.beside else [])]
    for counts, (seeds, batch, share) in ((counts, one) for counts, part in parts for one in part.batches(step)):
        weights = sample_weights(work.base.schedule, batch.timesteps, variants)
        with work.dropout.of(seeds):
            losses_of = variant_losses(work.base, batch, variants=len(variants), weights=weights, settings=variants)
            part = share * losses_of * counts  # (V,)
            part.sum().backward()  # type: ignore[no-untyped-call]
        losses += part.detach()
    norms = work.learner.norms()
    yield from _stop_broken(work, losses.cpu(), norms, step=step)
    rates = [rates_of(variant, step - 1, steps=work.steps) for variant in variants]
    for v, where in work.learner.step(rates, norms, stopped=work.stopped).items():
        yield from _stop(work, v, f"an update of {variants[v].optimizer}", step=step, where=where)
    seconds = perf_counter() - began
    for v, (run, loss, rate, norm) in enumerate(zip(work.runs, losses.tolist(), rates, norms.tolist(), strict=True)):
        if v not in work.stopped:
            yield run.record(Step(run.name, step, work.steps, loss, rate.unet, rate.text, norm, seconds))


def _stop_broken(work: _Pass, losses: Tensor, norms: Tensor, *, step: int) -> Iterator[Event]:
    """Stop the runs of a broken step before its update: their weights are still the last good ones, and are kept."""
    for v in range(len(work.runs)):
        if v not in work.stopped and not math.isfinite(losses[v] + norms[v]):
            what = "the loss" if not math.isfinite(losses[v]) else "the norm of the gradient"
            yield from _stop(work, v, what, step=step, where=broken_tensor(work.lora, v))


def _stop(work: _Pass, v: int, what: str, *, step: int, where: str) -> Iterator[Event]:
    """One run learns no more: its weights after the step before are written as fp32, and the reason is in its log."""
    run, path = work.runs[v], work.runs[v].folder / f"lora-{step - 1:06d}.safetensors"
    reason = f"stopped at step {step}: {what} is not finite ({where})"
    if finite(work.lora, v):
        metadata = run.header | {"ss_steps": str(step - 1)}
        save_kohya(path, work.lora.state(v), metadata=metadata, dtype=torch.float32)  # fp16 may not hold them
        reason += f"; the weights after step {step - 1} are kept in {run.folder.name}/{path.name}"
    work.stopped[v] = f"{reason}; lower its learning rate"
    yield run.record(Note(f"{run.name} {work.stopped[v]}", step))


def _validate(work: _Pass, *, step: int) -> Iterator[Event]:
    """Each variant's fixed-noise losses, on the held-out pictures and on trained ones."""
    for split, pictures in work.validation.items():
        if pictures:
            bands = fixed_noise_losses(work.base, pictures, variants=len(work.runs))  # (V, bands)
            for v, (run, losses) in enumerate(zip(work.runs, bands, strict=True)):
                if v not in work.stopped:
                    yield run.record(Validated(run.name, step, sum(losses) / len(losses), tuple(losses), split))


def _forget(work: _Pass, keep: int | None, *, step: int) -> None:
    """Delete the runs' files of steps but the ``keep`` newest; what a cut run made later is made again."""
    for run in work.runs:
        files = sorted(f for f in run.folder.glob("lora-*.safetensors") if f.stem <= f"lora-{step:06d}")
        for file in files[: -keep if keep else 0]:
            file.unlink()


def _save(work: _Pass, *, name: str, step: int) -> Iterator[Event]:
    """Write every run's LoRA, and say how large it is; one whose weights fit no file's fp16 stops here."""
    sizes = base_norms(work.lora)
    for v, run in enumerate(work.runs):
        if v in work.stopped:
            continue
        path = run.folder / f"{name}.safetensors"
        try:
            save_kohya(path, work.lora.state(v), metadata=run.header | {"ss_steps": str(step)})
        except LoraFileError as error:
            yield from _stop(work, v, "a weight as fp16", step=step + 1, where=str(error))
            continue
        found = size(work.lora, v, base=sizes)
        yield run.record(Saved(run.name, step, Path(path.name), found.norm, found.change))
        if step == work.steps and found.does_nothing:
            change = f"the largest change of a module is {found.change:.1e} of its weight"
            yield run.record(Note(f"{run.name} does nothing: {change}; raise its learning rate, or its alpha", step))
