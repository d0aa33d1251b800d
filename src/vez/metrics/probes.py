"""What can be seen of a LoRA without drawing with it: fixed-noise losses of its checkpoints under changed texts.

Each picture is asked with the noises and timesteps that validation always gives it (`vez.denoise.FixedNoise`); only the
text and the LoRA change. A LoRA is merged for it at its strength, so one that does nothing gives the base's very bits.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vez.base import Base, Conditioning, cached_moments, encode_text, tokenize
from vez.config import Project, Sampling, Variant
from vez.dataset import Dataset, Row
from vez.denoise import FIXED_NOISES, FixedNoise, fixed_noise_losses, fixed_timesteps
from vez.draw import merged, wrong_trigger
from vez.errors import StoreError
from vez.events import Done, Event, Item, Note, Stage
from vez.metrics.bands import LIMITS, Axis, Checkpoint, Losses, held_out_changes, measure, usable, window
from vez.metrics.probed import (
    BASE_ARM,
    EXPLAINED,
    KIND,
    MOST,
    ROWS,
    SUMMARY,
    ArmProbes,
    Probes,
    Window,
)
from vez.metrics.questions import Question, Subject, base_subject, subject_of
from vez.rewording import first_wording
from vez.solver import denoise, moves, noise
from vez.store import artifact_id, canonical_json, find, making, open_artifact, write_atomic
from vez.sweep import Arm

Precision = Literal["fp32", "bf16", "fp16"]
HALF: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}

VERSION: Final = 1
"""Counts up when the same checkpoints would give other losses."""


@dataclass(frozen=True)
class Pictures:
    """Latents of what is asked about, made where they are first needed."""

    base: Base
    datasets: Sequence[Dataset]
    drawn: Sequence[Row]
    """The class pictures; their captions are what they were drawn from."""
    sampling: Sampling
    precision: Precision
    cache: Path | None
    known: dict[str, Tensor] = field(default_factory=dict)

    def moments(self, row: Row) -> Tensor:
        """Mean and deviation of a picture's latent, (8, h, w); a drawn one has no deviation."""
        if row.sha256 not in self.known:
            if row.sha256 in {one.sha256 for one in self.drawn}:
                self.known.update(self._draw())
            else:
                of = next(one for one in self.datasets if row.sha256 in {r.sha256 for r in one.rows})
                found = cached_moments(
                    self.base,
                    of.pixels(row),
                    sha256=row.sha256,
                    cache=None if self.cache is None else self.cache / "latents",
                )
                self.known[row.sha256] = found
        return self.known[row.sha256]

    def _draw(self) -> dict[str, Tensor]:
        """All class pictures' latents, in one batch."""
        ids = [row.sha256 for row in self.drawn]
        name = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        file = None if self.cache is None else self.cache / "probes" / f"{name}.safetensors"
        latents: Tensor | None = None
        if file is not None and file.is_file():
            try:
                latents = load_tensors(file.read_bytes())["latents"].to(self.base.device)
            except (SafetensorError, KeyError):
                latents = None
        if latents is None:
            latents = _drawn(self.base, [row.caption for row in self.drawn], self.sampling, precision=self.precision)
            if file is not None:
                write_atomic(file, save_tensors({"latents": latents.cpu().contiguous()}))
        return {id: torch.cat([one, torch.zeros_like(one)]) for id, one in zip(ids, latents, strict=True)}

    def losses(self, subject: Subject) -> Iterator[tuple[Question, tuple[float, ...]]]:
        """The losses of each question in order, by timestep; what the cache has is not computed again."""
        file = None if self.cache is None else self.cache / "probes" / f"{self._name(subject)}.json"
        known = {} if file is None else _read(file)
        lacking = any(question.id not in known for question in subject.questions)
        with merged(self.base, subject.arm if lacking else None):
            for _, group in groupby(subject.questions, key=lambda question: question.key[:2]):
                questions = list(group)
                if new := [question for question in questions if question.id not in known]:
                    known |= self._ask(new)
                    if file is not None:
                        write_atomic(file, json.dumps(known).encode())
                yield from ((question, tuple(known[question.id])) for question in questions)

    def _ask(self, questions: Sequence[Question]) -> dict[str, list[float]]:
        """One picture's questions."""
        row = questions[0].row
        picture, found = FixedNoise.of(self.base, row, self.moments(row)), {}
        for question in questions:
            asked = replace(picture, tokens=tokenize(self.base, [question.row.caption]))
            with torch.autocast(self.base.device.type, HALF.get(self.precision), enabled=self.precision in HALF):
                found[question.id] = fixed_noise_losses(self.base, [asked], variants=1)[0]
        return found

    def _name(self, subject: Subject) -> str:
        base = self.base
        lora = None if subject.arm.lora is None else [subject.sha256, subject.arm.strength]
        of = [VERSION, base.sha256, str(base.dtype), self.precision, base.device.type, lora]
        return hashlib.sha256(canonical_json(of).encode()).hexdigest()


def _read(file: Path) -> dict[str, list[float]]:
    """A checkpoint's losses as far as they were computed; none of them where the file is damaged."""
    try:
        kept = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def probe(
    base: Base,
    arms: Mapping[str, Arm],
    datasets: Mapping[str, Dataset],
    *,
    project: Project,
    class_texts: Sequence[str],
    sampling: Sampling,
    into: Path,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> Iterator[Event]:
    """Ask every arm and the base; the last event is Done.

    The artifact at ``into`` is what `vez.metrics.probed` says. Cut and called again it goes on: losses are kept in
    ``cache`` by checkpoint, picture and text, so an unchanged checkpoint is asked only what is new.

    Args:
        base: the base; a LoRA is merged into it for its arm and taken out again.
        arms: name → a checkpoint at a strength.
        datasets: arm → what it was trained on. One that holds nothing out is asked of what the others hold out.
        project: trigger, noun and describing words.
        class_texts: what the class pictures show, which the base draws; taken in turn.
        sampling: how they are drawn.
        into: the artifact's folder.
        precision: what the networks multiply in.
        cache: the project's store; latents and losses are kept in folders of it. None keeps none.
    Raises:
        LoraFileError: a LoRA that cannot be read or does not fit.
        StoreError: ``into`` cannot be written.
    """
    wrong = wrong_trigger(base, project.trigger)
    drawn = class_rows(base, class_texts, sampling, precision=precision)
    subjects = {name: subject_of(arm, datasets[name], datasets, drawn, project, wrong) for name, arm in arms.items()}
    parents, config = _recipe(base, subjects, project, wrong, precision)
    id = artifact_id(KIND, parents, config, VERSION)
    if find(into, id) is None:
        subjects = {BASE_ARM: base_subject(subjects.values())} | subjects
        total = sum(len(subject.questions) for subject in subjects.values())
        yield Stage("probe", total, f"{len(arms)} checkpoints and the base, each picture beside its texts")
        pictures = Pictures(base, list(datasets.values()), drawn, sampling, precision, cache)
        with making(into, kind=KIND, parents=parents, config=config, version=VERSION) as made:
            found: dict[str, dict[str, tuple[float, ...]]] = {}
            done = 0
            for name, subject in subjects.items():
                found[name] = {}
                for question, losses in pictures.losses(subject):
                    done += 1
                    found[name][question.id] = losses
                    yield Item(name, done, total)
            summary = _summary(base, subjects, found, wrong=wrong, class_texts=class_texts)
            _write(made.path, subjects, found, summary)
        yield from (Note(_told(one)) for one in summary.windows)
    yield Done(into, id)


def worded(dataset: Dataset, variant: Variant) -> Dataset:
    """The dataset with captions as the variant is validated with: of wordings that are drawn, the first ones."""
    if not variant.wildcards:
        return dataset
    rows = (replace(row, caption=first_wording(row.caption)) for row in dataset.rows)
    return replace(dataset, rows=tuple(rows))


def class_rows(base: Base, texts: Sequence[str], sampling: Sampling, *, precision: Precision) -> tuple[Row, ...]:
    """The class pictures that the base will draw, as rows of a dataset: their id is the hash of how they are drawn."""
    side = sampling.size or base.size
    how = sampling.model_dump(include={"steps", "cfg", "solver", "negative"}) | {"size": side, "precision": precision}
    rows = []
    for i in range(MOST if texts else 0):
        text = texts[i % len(texts)]
        of = [VERSION, base.sha256, str(base.dtype), base.device.type, how, text, i, MOST]
        id = hashlib.sha256(canonical_json(of).encode()).hexdigest()
        rows.append(Row("", id, "", "", None, text, False, "held_out", width=side, height=side))
    return tuple(rows)


def _drawn(base: Base, texts: Sequence[str], sampling: Sampling, *, precision: Precision) -> Tensor:
    """Latents (N, 4, h, w) of the texts, the i-th with the i-th noise."""
    side = (sampling.size or base.size) // base.latent_factor
    alphas = base.schedule.alphas_cumprod.double().cpu().numpy()
    latents = denoise(
        base,
        noise(range(len(texts)), side, side),
        text=Conditioning.joined([encode_text(base, [text]) for text in texts]),
        negative=encode_text(base, [sampling.negative]).each(len(texts)),
        walk=moves(alphas, sampling.steps, solver=sampling.solver, prediction_type=base.schedule.prediction_type),
        cfg=sampling.cfg,
        precision=precision,
    )
    return latents.clone()  # an ordinary tensor: what inference made cannot be used elsewhere


def _recipe(
    base: Base, subjects: Mapping[str, Subject], project: Project, wrong: str, precision: Precision
) -> tuple[dict[str, str], dict[str, Any]]:
    """What the artifact is made of."""
    parents = {"base": base.sha256}
    for name, subject in subjects.items():
        parents[f"run:{name}"] = subject.sha256
        if subject.arm.lora is not None:
            with suppress(StoreError):  # a file from elsewhere is its own parent
                parents[f"run:{name}"] = open_artifact(subject.arm.lora.parent).id
    asked = {name: [[*question.key, question.id] for question in of.questions] for name, of in subjects.items()}
    config = {
        "arms": {name: subject.arm.record(subject.sha256) for name, subject in subjects.items()},
        "questions": hashlib.sha256(canonical_json(asked).encode()).hexdigest(),
        "project": project.model_dump(include={"trigger", "noun", "describes"}),
        "wrong": wrong,
        "dtype": precision,
    }
    return parents, config


def _summary(
    base: Base,
    subjects: Mapping[str, Subject],
    found: Mapping[str, Mapping[str, tuple[float, ...]]],
    *,
    wrong: str,
    class_texts: Sequence[str],
) -> Probes:
    axis = Axis(tuple(fixed_timesteps(base.schedule)), len(base.schedule))
    arms: dict[str, ArmProbes] = {}
    seen: dict[tuple[Any, ...], list[Checkpoint]] = {}
    missing: dict[str, str] = {}
    for name, subject in subjects.items():
        own, bare = (_table(subject, found[arm]) for arm in (name, BASE_ARM))
        if not (usable(own) and usable(bare)):
            missing[name] = "its losses are not finite: its weights are broken; train it again at a lower rate"
            continue
        arm = subject.arm
        about = {key: getattr(arm, key) for key in ("run", "variant", "seed", "strength")}
        arms[name] = one = measure(own, bare, axis, **about, step=arm.step)
        if arm.lora is not None:
            gap = None if one.gap is None else one.gap.middle.mean
            point = Checkpoint(name, arm.step or 0, held_out_changes(own, bare), gap)
            seen.setdefault(tuple(about.items()), []).append(point)
    asked = {question.key[::2] for subject in subjects.values() for question in subject.questions}
    for what, (need, why) in _NEEDS.items():
        if need not in asked:
            missing[what] = why
    return Probes(
        timesteps=axis.timesteps,
        bands=tuple(tuple(axis.timesteps[i] for i in band) for band in axis.bands),
        noises=FIXED_NOISES,
        wrong=wrong,
        class_texts=tuple(class_texts),
        limits=LIMITS,
        arms=arms,
        windows=tuple(window(points, **dict(about)) for about, points in seen.items()),
        not_measured=missing,
        explained=EXPLAINED,
    )


_NEEDS: Final = {
    "held_out": (("held_out", "caption"), "no picture is held out: set held_out in the dataset"),
    "binding, specificity": (("held_out", "class"), "no caption of a held-out picture has the trigger"),
    "prior": (("class", "caption"), "no text says what the class looks like"),
}
"""What is measured → what must have been asked for it, and the reason where it was not."""


def _table(subject: Subject, found: Mapping[str, tuple[float, ...]]) -> Losses:
    return {question.key: found[question.id] for question in subject.questions}


def _write(
    folder: Path, subjects: Mapping[str, Subject], found: Mapping[str, Mapping[str, tuple[float, ...]]], summary: Probes
) -> None:
    lines = []
    for name, subject in subjects.items():
        of = asdict(subject.arm)
        arm = {"arm": name} | {key: of[key] for key in ("run", "variant", "seed", "step", "strength")}
        for question in subject.questions:
            split, picture, text = question.key
            row = arm | {"picture": picture, "split": split, "text": text}
            for timestep, loss in zip(summary.timesteps, found[name][question.id], strict=True):
                told = loss if name not in summary.not_measured else str(loss)
                lines.append(json.dumps(row | {"timestep": timestep, "loss": told}) + "\n")
    write_atomic(folder / ROWS, "".join(lines).encode())
    write_atomic(folder / SUMMARY, (summary.model_dump_json(indent=1) + "\n").encode())


def _told(one: Window) -> str:
    """A window in a sentence."""
    of = f"{one.run}{'' if one.strength == 1 else f' at strength {one.strength:g}'}"
    if not one.arms:
        return f"{of}: no checkpoint stands out for sampling: {one.why}"
    return f"{of}: worth sampling: {', '.join(one.arms)} ({one.why})"
