"""prompts × noises × arms → a samples artifact, the same noise for the same seed in every arm.

The artifact's rows (samples.jsonl) say what each picture is: {arm, prompt, set, group, role, text, context, seed,
noise_seed, file, key}. Its manifest's ``config`` has ``arms`` (name → null for the base, or the record of `sweep.Arm`),
``suite`` ({suite, sha256, kind, profile}) and ``wrong`` (the wrong trigger); ``controls.json`` has what was checked on
the way. docs/files.md says it key by key.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vez.base import Base, Conditioning
from vez.config import Precision, Project, Prompt, Sampling
from vez.draw import Brush, Drawing, draw_arm, label_of, merged, wrong_trigger
from vez.errors import ConfigError, LoraFileError, StoreError
from vez.events import Done, Event, Note, Stage
from vez.solver import noise_seed
from vez.store import artifact_id, canonical_json, file_sha256, find, making, open_artifact, write_atomic
from vez.sweep import Arm

VERSION = 4
"""Counts up when the same inputs would give other pixels or other rows."""

BASE_ARM = "base"
"""The customary name of the arm without a LoRA."""

ROWS, CONTROLS = "samples.jsonl", "controls.json"
WRITERS = 2  # threads that write PNGs while the next batch is drawn
CONTROL_STEPS = 1  # of the solver: weights that are the same draw the same however many
AT_MOST = 1  # of 255: how far strength 0 may lie from the base


def sample(
    base: Base,
    arms: Mapping[str, Arm | Path | None],
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    into: Path,
    project: Project | None = None,
    precision: Precision | None = None,
    about: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    known: Sequence[Path] = (),
) -> Iterator[Event]:
    """Draw every prompt with its noises in every arm; the last event is Done.

    The artifact at ``into`` holds ``<arm>/<prompt id>-<i>.png``, samples.jsonl and controls.json. Cut short and called
    again it goes on and gives the same bytes (on the same machine with as many threads). What is asked for and was
    drawn before, in the artifact that lies at ``into`` or for the base in ``cache``, is taken from there.

    Args:
        base: the base; a LoRA is merged into it for its arm and taken out again.
        arms: name → a LoRA file in kohya's layout, or an `Arm` that also says at which strength; None: the base alone.
        prompts: each with an id of its own; ``Prompt.seeds`` pictures of each, or ``sampling.seeds``.
        sampling: steps, guidance, solver, noises, size, batch, negative prompt.
        into: the artifact's folder.
        project: fills {trigger}, {noun}, {describes} and {wrong} in the prompts; None: they are taken as they stand.
        precision: what the U-Net computes in; None: what the base has. Half is faster where the machine has it, and
            draws other pixels than fp32.
        about: names the suite in the manifest (`vez.suite.Asked.about`).
        cache: folder for the base's pictures, which other studies of the same base share; None keeps none.
        known: other samples whose pictures are taken where they are the ones that are asked for.
    Raises:
        ConfigError: prompts without an id or with a placeholder that nothing fills, arms or sizes that cannot be.
        LoraFileError: a LoRA that cannot be read, does not fit, makes values that are not finite, or moves pictures
            even at strength 0.
        StoreError: ``into`` cannot be written.
    """
    given = {name: arm if isinstance(arm, Arm) else Arm(arm) for name, arm in arms.items()}
    wrong = _wrong(base, prompts, project)
    drawn = _check(base, given, prompts, sampling, project, wrong)
    hashes = {name: "" if arm.lora is None else _sha256(arm.lora) for name, arm in given.items()}
    brush = Brush(base, sampling, precision)
    parents, config = _recipe(brush, given, hashes, drawn)
    config |= {"suite": dict(about or {}), "wrong": wrong}
    drawings = {name: _drawings(brush, name, arm, hashes[name], drawn) for name, arm in given.items()}
    each = sum(_noises(prompt, sampling) for prompt in drawn)
    yield Stage("sample", len(given) * each, f"{_many(len(given), 'arm')} × {_many(each, 'picture')}")
    id = artifact_id("samples", parents, config, VERSION)
    if find(into, id) is None:
        there = {key: file for folder in (*known, into) for key, file in _known(folder).items()}
        with making(into, kind="samples", parents=parents, config=config, version=VERSION) as m:
            yield from _make(brush, given, hashes, drawings, into=m.path, known=there, cache=cache)
    yield Done(into, id)


def _make(
    brush: Brush,
    arms: Mapping[str, Arm],
    hashes: Mapping[str, str],
    drawings: Mapping[str, Sequence[Drawing]],
    *,
    into: Path,
    known: Mapping[str, Path],
    cache: Path | None,
) -> Iterator[Event]:
    """The artifact's files: what is known is taken, the rest drawn; then the control and the rows."""
    first = next(iter(drawings.values()))[0].prompt
    bare = _control(brush, first, arm=BASE_ARM)
    plain: dict[str, Conditioning] = {}
    with ThreadPoolExecutor(WRITERS) as pool:
        for name, arm in arms.items():
            kept = None if arm.lora is not None else cache
            _take(drawings[name], known, kept, into=into)
            yield from draw_arm(brush, name, arm, drawings[name], into=into, plain=plain, pool=pool)
            _keep(drawings[name], kept, into=into)
    levels = _at_strength_0(brush, arms, hashes, first, bare)
    if levels:
        yield Note(f"checked: at strength 0 the LoRAs draw what the base does (apart by {max(levels.values())} of 255)")
    write_atomic(into / CONTROLS, (json.dumps({"strength_0": levels}, indent=1) + "\n").encode())
    rows = (json.dumps(row, ensure_ascii=False) for row in _rows(drawings))
    write_atomic(into / ROWS, "".join(f"{row}\n" for row in rows).encode())


def read_rows(samples: Path) -> list[dict[str, Any]]:
    """The rows of a finished samples artifact. Raises StoreError where there is none or a line is not a row."""
    artifact = open_artifact(samples)
    try:
        return [json.loads(line) for line in (artifact.path / ROWS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StoreError(f"{samples / ROWS} cannot be read ({error}); delete {samples} and sample again") from error


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _noises(prompt: Prompt, sampling: Sampling) -> int:
    return prompt.seeds or sampling.seeds


def _wrong(base: Base, prompts: Sequence[Prompt], project: Project | None) -> str | None:
    """The wrong trigger, where a prompt asks for one."""
    asked = project is not None and any("{wrong}" in prompt.text for prompt in prompts)
    return wrong_trigger(base, project.trigger) if project is not None and asked else None


def _check(
    base: Base,
    arms: Mapping[str, Arm],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    project: Project | None,
    wrong: str | None,
) -> list[Prompt]:
    """The prompts with their placeholders filled; ConfigError for what cannot be drawn."""
    if not arms or not prompts:
        raise ConfigError("nothing to sample: give at least one arm and one prompt")
    for arm in arms:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]*", arm):
            raise ConfigError(f"the arm {arm!r} cannot be a folder's name; use letters, digits, dot, dash, underscore")
    ids = [prompt.id for prompt in prompts]
    if "" in ids or len(set(ids)) != len(ids):
        raise ConfigError(f"every prompt needs an id of its own, not {ids}")
    size = sampling.size or base.size
    if size % base.latent_factor:
        raise ConfigError(f"sampling.size is {size}; this base draws sizes that divide by {base.latent_factor}")
    drawn = []
    for prompt in prompts:
        text = project.expand(prompt.text) if project else prompt.text
        text = text.replace("{wrong}", wrong) if wrong else text
        context = project.expand(prompt.context) if project else prompt.context
        if re.search(r"\{(trigger|noun|describes|wrong)\}", text + context):
            raise ConfigError(f"the prompt {prompt.text!r} has a placeholder and nothing fills it; give the project")
        drawn.append(prompt.model_copy(update={"text": text, "context": context}))
    return drawn


def _recipe(
    brush: Brush, arms: Mapping[str, Arm], hashes: Mapping[str, str], prompts: Sequence[Prompt]
) -> tuple[dict[str, str], dict[str, Any]]:
    """What the images are made of: the artifact's parents and configuration."""
    base, sampling = brush.base, brush.sampling
    parents = {"base": base.sha256}
    for name, arm in arms.items():
        if arm.lora is not None:
            parents[f"run:{name}"] = _run_id(arm.lora) or hashes[name]
    # Which part of a suite, which checkpoints and strengths: the prompts and arms below are what came of it.
    how = sampling.model_dump(exclude={"profile", "checkpoints", "strengths"})
    config = {
        "sampling": how | {"size": sampling.size or base.size},
        "arms": {name: None if arm.lora is None else arm.record(hashes[name]) for name, arm in arms.items()},
        "prompts": [prompt.model_dump() for prompt in prompts],
        "dtype": brush.dtype_name,
        "trained_on": base.name,
    }
    return parents, config


def _run_id(lora: Path) -> str | None:
    """The id of the run that a LoRA file lies in; None for a file from elsewhere."""
    try:
        return open_artifact(lora.parent).id
    except StoreError:
        return None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise LoraFileError(
            f"cannot read the LoRA {path}: {error.strerror}; train it first, or name another"
        ) from error


def _drawings(brush: Brush, name: str, arm: Arm, sha256: str, prompts: Sequence[Prompt]) -> list[Drawing]:
    """Every picture of an arm, each with the hash of all that decides its bytes but the company it is drawn in."""
    sampling, base = brush.sampling, brush.base
    shared = {
        "version": VERSION,
        "base": base.sha256,
        "lora": [sha256, arm.strength, label_of(name, arm)] if arm.lora is not None else None,
        "sampling": sampling.model_dump(include={"steps", "cfg", "solver", "negative"}) | {"size": brush.size},
        "dtype": [str(base.dtype), str(brush.dtype)],
        "device": base.device.type,
        "name": Path(base.name).name,
    }
    first = sampling.first_seed
    found = []
    for prompt in prompts:
        for seed in range(first, first + _noises(prompt, sampling)):
            key = hashlib.sha256(canonical_json(shared | {"text": prompt.text, "seed": seed}).encode()).hexdigest()
            found.append(Drawing(prompt, seed, f"{name}/{prompt.id}-{seed}.png", key))
    return found


def _known(folder: Path) -> dict[str, Path]:
    """Key → picture of the artifact that lies in ``folder``, whose arms or prompts may be others by now."""
    try:
        rows = read_rows(folder)
    except StoreError:
        return {}
    return {row["key"]: folder / row["file"] for row in rows if "key" in row}


def _take(drawings: Sequence[Drawing], known: Mapping[str, Path], cache: Path | None, *, into: Path) -> None:
    """Put into the artifact what was drawn before."""
    for one in drawings:
        cached = None if cache is None else _cached(cache, one)
        source = known.get(one.key, cached)
        if source is None or not source.is_file() or (into / one.file).is_file():
            continue
        data = source.read_bytes()
        if data.endswith(b"IEND\xaeB`\x82"):  # whole: a PNG's last bytes
            write_atomic(into / one.file, data)


def _keep(drawings: Sequence[Drawing], cache: Path | None, *, into: Path) -> None:
    if cache is not None:
        for one in drawings:
            if not _cached(cache, one).is_file():
                write_atomic(_cached(cache, one), (into / one.file).read_bytes())


def _cached(cache: Path, drawing: Drawing) -> Path:
    return cache / drawing.key[:2] / f"{drawing.key}.png"


def _control(brush: Brush, prompt: Prompt, *, arm: str) -> NDArray[np.int16]:
    """One picture in next to no steps, by the base as it is now."""
    steps = min(CONTROL_STEPS, brush.sampling.steps)
    asked = [(prompt, brush.sampling.first_seed)]
    picture: NDArray[np.uint8] = brush.draw(asked, brush.encode([prompt]), arm=arm, steps=steps)[0]
    return picture.astype(np.int16)


def _at_strength_0(
    brush: Brush, arms: Mapping[str, Arm], hashes: Mapping[str, str], prompt: Prompt, bare: NDArray[np.int16]
) -> dict[str, int]:
    """How far each LoRA at strength 0 draws from the base, in levels of 255: what loads it may leave no trace.

    ``bare`` was drawn before any LoRA was merged, and this is done after all arms: a base that was not put back as it
    was shows as well. Raises LoraFileError where it is more than 1.
    """
    levels: dict[str, int] = {}
    of_file: dict[str, int] = {}
    for name, arm in arms.items():
        if arm.lora is None:
            continue
        if hashes[name] not in of_file:
            with merged(brush.base, arm, strength=0.0):
                of_file[hashes[name]] = int(np.abs(_control(brush, prompt, arm=name) - bare).max())
        levels[name] = of_file[hashes[name]]
        if levels[name] > AT_MOST:
            raise LoraFileError(
                f"at strength 0 {arm.lora} still moves pictures by {levels[name]} of 255: the base's weights are not "
                "put back as they were; report this with the file"
            )
    return levels


def _rows(drawings: Mapping[str, Sequence[Drawing]]) -> Iterator[dict[str, Any]]:
    for arm, of in drawings.items():
        for one in of:
            yield {
                "arm": arm,
                "prompt": one.prompt.id,
                "set": one.prompt.set or "user",
                "group": one.prompt.group,
                "role": one.prompt.role,
                "text": one.prompt.text,
                "context": one.prompt.context,
                "seed": one.seed,
                "noise_seed": noise_seed(one.seed),
                "file": one.file,
                "key": one.key,
            }
