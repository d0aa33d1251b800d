"""Training: one pass over the tape, top to bottom, for all variants that share a dataset and a batch size.

A run's artifact holds ``lora.safetensors`` (kohya's layout), ``lora-<step>.safetensors`` where checkpoints were asked
for, and ``events.jsonl``. A run that is killed goes on from its last state and ends in the same bits.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from vez import checkpoint
from vez.base import Base, computing
from vez.config import Checkpointing, Precision, Variant
from vez.dataset import Dataset
from vez.denoise import fixed_noise_losses
from vez.errors import ConfigError, LoraFileError, RunStopped
from vez.events import Done, Event, EventLog, Note, Saved, Stage, Validated, as_json, read
from vez.header import header
from vez.interop import save_kohya
from vez.nets.kernels.regions import uncompiled
from vez.passes import Pass, Run, prepare, step_of, stop
from vez.preview import Preview, previews
from vez.soundness import base_norms, size
from vez.store import artifact_id, find, making, write_atomic

KIND = "run"
VERSION = 1  # raised when the same settings would give another LoRA
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    preview: Preview | None = None,
    precision: Precision = "fp32",
    checkpointing: Checkpointing = "none",
    compile: bool = False,
    trigger: str = "",
    noun: str = "",
    prior: Dataset | None = None,
    cache: Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Event]:
    """Teach one concept to several LoRAs at once; each ends with its own Done. A cut run goes on, a finished one stays.

    Args:
        base: the frozen base; it is as it was when the generator ends, however it ends.
        dataset, variants: what they all learn from; by name, all of the same batch size.
        seed, steps: of the tape and of the LoRAs' first weights; optimizer steps of each.
        into: each variant's run folder.
        save_every, keep: steps between LoRA files besides the last one; how many of those stay (None: all).
        validate_every: steps between losses with fixed noise, on the held-out pictures and on as many trained ones.
        preview: pictures to draw meanwhile; they are no part of what makes a run.
        precision: what U-Net and text encoder compute in; the LoRAs' own weights are fp32 always.
        checkpointing, compile: which blocks are computed twice; whether norms and gates are compiled. Numbers stay.
        trigger, noun: the words, for the file's header, and for what a variant preserves.
        prior: class pictures; each step sees as many of them too, as the variants' prior_weight counts them.
        cache: folder for the latents of pictures seen before; None keeps none.
        checkpoint_seconds: time between states to go on from; 0 makes one at every step.
    Raises:
        RunStopped: runs came to numbers that are not finite; the others are finished.
        TrainError: a dataset without pictures, or a state that cannot be gone on from.
        ConfigError, StoreError: variants that cannot share a pass; a folder that another writes, or nobody can.
    """
    _refuse_unlike(variants, into, prior, named=bool(trigger and noun))
    shared: dict[str, Any] = {"seed": seed, "steps": steps, "precision": precision, "trigger": trigger, "keep": keep}
    shared |= {"save_every": save_every, "validate_every": validate_every} | _how(base, compile)
    configs = _configs(variants, shared, noun)
    parents = {"base": base.sha256, "dataset": dataset.id} | ({} if prior is None else {"prior": prior.id})
    ids = {name: artifact_id(KIND, parents, config, VERSION) for name, config in configs.items()}
    todo, stopped = [name for name in variants if find(into[name], ids[name]) is None], dict[str, str]()
    with ExitStack() as stack:
        made = {name: stack.enter_context(_folder(into[name], parents, configs[name], stopped)) for name in todo}
        start = checkpoint.latest([*made.values()]) if todo else 0
        logs = {name: stack.enter_context(_log(folder, start)) for name, folder in made.items()}
        heads = {name: header(base, dataset, variants[name], configs[name], run_id=ids[name]) for name in todo}
        runs = [Run(f"{name}-{seed}", variants[name], made[name], logs[name], heads[name]) for name in todo]
        how = {**shared, "noun": noun, "checkpointing": checkpointing, "preview": preview}
        stopped |= yield from _pass(base, dataset, prior, runs, start, how, cache, checkpoint_seconds)
    yield from (Done(into[name], ids[name]) for name in variants if f"{name}-{seed}" not in stopped)
    if stopped:
        raise RunStopped("; ".join(f"{name} {stopped[name]}" for name in sorted(stopped)))


def _pass(
    base: Base,
    dataset: Dataset,
    prior: Dataset | None,
    runs: Sequence[Run],
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
        how = {"checkpointing": shared["checkpointing"], "compile": shared.get("compile", False)}
        stack.enter_context(computing(base, _DTYPES[shared["precision"]], pixels=dataset.resolution, **how))
        words = {"trigger": shared["trigger"], "noun": shared["noun"]}
        work = prepare(base, dataset, prior, runs, seed=seed, steps=steps, validate=bool(every), cache=cache, **words)
        stack.callback(work.lora.detach)
        work.stopped.update(before)
        names = ", ".join(run.name.rpartition("-")[0] for run in runs)
        yield Stage("train", steps, f"{names} · seed {seed} · {len(dataset.train)} pictures")
        yield from _steps(work, start, shared, checkpoint_seconds)
    return {runs[v].name: reason for v, reason in work.stopped.items()}


def _refuse_unlike(
    variants: Mapping[str, Variant], into: Mapping[str, Path], prior: Dataset | None, *, named: bool
) -> None:
    if len({(v.batch, v.accumulate) for v in variants.values()}) != 1 or variants.keys() != into.keys():
        raise ConfigError("variants trained together need one batch size and a folder each; train the others apart")
    if any((v.prior is None) != (prior is None) for v in variants.values()):
        raise ConfigError("variants trained together have one prior, whose pictures are given, or none has one")
    if not named and any(variant.preserve for variant in variants.values()):
        raise ConfigError("preserve needs the trigger word and the class noun that stands in its place")


def _configs(variants: Mapping[str, Variant], shared: Mapping[str, Any], noun: str) -> dict[str, dict[str, Any]]:
    """Each variant's run as its manifest names it."""
    words = {name: {"noun": noun} if variant.preserve else {} for name, variant in variants.items()}
    return {name: {"name": name, "variant": _setting(v), **shared, **words[name]} for name, v in variants.items()}


def _how(base: Base, compile: bool) -> dict[str, Any]:
    """How it computes, where that is not the usual way: ids made before there were others stay as they are."""
    compiled: dict[str, Any] = {"compile": True} if compile else {}
    return compiled if base.quantize == "none" else compiled | {"quantize": base.quantize}


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


def _log(folder: Path, start: int) -> EventLog:
    """The run's events.jsonl, cut back to the step that the run goes on after."""
    path = folder / "events.jsonl"
    kept = [event for event in read(path) if getattr(event, "step", 0) <= start] if start and path.exists() else []
    lines = [json.dumps(as_json(event), ensure_ascii=False) + "\n" for event in kept]
    write_atomic(path, "".join(lines).encode())
    return EventLog(path)


def _steps(work: Pass, start: int, how: Mapping[str, Any], checkpoint_seconds: float) -> Iterator[Event]:
    """The loop. A state is written after everything else of its step, so a resumed log has no gap and nothing twice."""
    folders, save_every = [run.folder for run in work.runs], how["save_every"]
    if start:
        checkpoint.restore(work.learner, folders, step=start)
        yield Note(f"goes on after step {start}")
    else:
        yield from _looks(work, how, step=0)
    saved_at = monotonic()
    for step in range(start + 1, work.steps + 1):
        yield from step_of(work, step)
        if len(work.stopped) == len(work.runs):
            checkpoint.save(work.learner, folders, work.stopped)
            return
        yield from _looks(work, how, step=step)
        last = step == work.steps
        if last or (save_every and step % save_every == 0):
            with work.learner.as_saved():
                yield from _save(work, name="lora" if last else f"lora-{step:06d}", step=step)
            _forget(work, how["keep"], step=step)
        # One at the very end too: a kill between two runs' finishing then costs the second nothing.
        if step == work.steps or monotonic() - saved_at >= checkpoint_seconds:
            checkpoint.save(work.learner, folders, work.stopped)
            saved_at = monotonic()


def _looks(work: Pass, how: Mapping[str, Any], *, step: int) -> Iterator[Event]:
    """What is measured and drawn of a step, if anything is: of the weights that would be saved."""
    every, preview = how["validate_every"], how["preview"]
    if every and (step % every == 0 or step == work.steps):
        with work.learner.as_saved(), uncompiled():
            yield from _validate(work, step=step)
    if preview is not None and preview.is_due(step, of=work.steps):
        with work.learner.as_saved(), uncompiled():
            yield from previews(work, preview, step=step)


def _validate(work: Pass, *, step: int) -> Iterator[Event]:
    """Each variant's fixed-noise losses, on the held-out pictures and on trained ones."""
    for split, pictures in work.validation.items():
        if pictures:
            bands = fixed_noise_losses(work.base, pictures, variants=len(work.runs))  # (V, bands)
            for v, (run, losses) in enumerate(zip(work.runs, bands, strict=True)):
                if v not in work.stopped:
                    yield run.record(Validated(run.name, step, sum(losses) / len(losses), tuple(losses), split))


def _forget(work: Pass, keep: int | None, *, step: int) -> None:
    """Delete the runs' files of steps but the ``keep`` newest; what a cut run made later is made again."""
    for run in work.runs:
        files = sorted(f for f in run.folder.glob("lora-*.safetensors") if f.stem <= f"lora-{step:06d}")
        for file in files[: -keep if keep else 0]:
            file.unlink()


def _save(work: Pass, *, name: str, step: int) -> Iterator[Event]:
    """Write every run's LoRA, and say how large it is; one whose weights fit no file's fp16 stops here."""
    sizes = base_norms(work.lora)
    for v, run in enumerate(work.runs):
        if v in work.stopped:
            continue
        path = run.folder / f"{name}.safetensors"
        try:
            save_kohya(path, work.lora.state(v), metadata=run.header | {"ss_steps": str(step)})
        except LoraFileError as error:
            yield from stop(work, v, "a weight as fp16", step=step + 1, where=str(error))
            continue
        found = size(work.lora, v, base=sizes)
        yield run.record(Saved(run.name, step, Path(path.name), found.norm, found.change))
        if step == work.steps and found.does_nothing:
            change = f"the largest change of a module is {found.change:.1e} of its weight"
            yield run.record(Note(f"{run.name} does nothing: {change}; raise its learning rate, or its alpha", step))
