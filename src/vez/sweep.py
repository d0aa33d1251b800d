"""What an arm is: a LoRA of a run, of its end or an earlier step, at a strength; how arms are called and recorded.

A name says what was drawn: `v1`, `v1@400` (its LoRA of step 400), `v1@x0.6` (at strength 0.6), `v1@400x0.6`; what
stands before the `@` is the variant, of several training seeds the run. Names are for people: programs read `Arm` from
the samples' manifest by `arms_of`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vez.errors import ConfigError, StoreError
from vez.store import Artifact, open_artifact

LAST = "lora.safetensors"
BASE = "base"
"""The arm without a LoRA."""
_SAVED = re.compile(r"lora-(\d+)\.safetensors")


@dataclass(frozen=True)
class Arm:
    """One LoRA at one strength. ``lora`` is the file that is merged, None for the base alone.

    ``variant``, ``run`` and ``seed`` (of the training) are None for a file from elsewhere, ``step`` where no run says
    how long it was trained; ``last`` is whether that is the run's end.
    """

    lora: Path | None
    strength: float = 1.0
    variant: str | None = None
    run: str | None = None
    seed: int | None = None
    step: int | None = None
    last: bool = True

    def record(self, sha256: str) -> dict[str, Any]:
        """What the manifest keeps: everything but where the file lies, and the file's hash under ``lora``."""
        return asdict(self) | {"lora": sha256}


def arms_of(samples: Artifact) -> dict[str, Arm | None]:
    """The arms of a samples artifact by name, in the order they were drawn; None is the base alone.

    ``Arm.lora`` is not known from a manifest and is None. Raises StoreError for a manifest without arms.
    """
    try:
        records: Mapping[str, Any] = samples.config["arms"]
        return {name: None if of is None else Arm(**(of | {"lora": None})) for name, of in records.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{samples.path} does not say what was drawn; delete it and sample again") from error


def explored(records: Mapping[str, Any]) -> frozenset[str]:
    """The arms of a sweep whose comparisons nobody declared: all but each run's end at the strength nearest to 1.

    ``records`` are a samples manifest's ``arms``. Of two that are as near, the lower counts; a run whose end was not
    drawn is represented by its latest step; what does not say what it is (a file from elsewhere) is declared.
    """
    best: dict[str, tuple[tuple[bool, int, float, float], str]] = {}
    swept = {name: of for name, of in records.items() if isinstance(of, Mapping) and of.get("run") is not None}
    for name, of in swept.items():
        strength = float(of.get("strength", 1.0))
        rank = (not of.get("last", True), -int(of.get("step") or 0), abs(strength - 1), strength)
        best[of["run"]] = min(best.get(of["run"], (rank, name)), (rank, name))
    return frozenset(swept) - {name for _, name in best.values()}


def named(stem: str, *, step: int | None, strength: float) -> str:
    """An arm's name; ``step`` is None for a run's end."""
    what = ("" if step is None else str(step)) + ("" if strength == 1 else f"x{strength:g}")
    return f"{stem}@{what}" if what else stem


def swept(
    stem: str,
    folder: Path,
    *,
    variant: str,
    seed: int,
    checkpoints: Literal["last", "all"] | tuple[int, ...],
    strengths: tuple[float, ...],
) -> Iterator[tuple[str, Arm]]:
    """The arms of one finished run, by name: its checkpoints, earliest first, each at all strengths.

    Raises ConfigError where a step was not saved, StoreError where ``folder`` is no finished run.
    """
    steps = open_artifact(folder).config.get("steps")
    last = steps if isinstance(steps, int) else None
    saved = {int(found[1]): file for file in folder.glob("lora-*") if (found := _SAVED.fullmatch(file.name))}
    wanted: list[int | None] = [None]
    if checkpoints == "all":
        wanted = [*sorted(saved), None]
    elif checkpoints != "last":
        missing = sorted(set(checkpoints) - saved.keys() - {last})
        if missing:
            known = ", ".join(map(str, [*sorted(saved), *([] if last is None else [last])]))
            raise ConfigError(
                f"{folder.name} has no LoRA of step {missing[0]}; it has those of {known} (save_every says which)"
            )
        wanted = [None if step == last else step for step in sorted(checkpoints)]
    for step in wanted:
        file = folder / LAST if step is None else saved[step]
        for strength in strengths:
            reached = last if step is None else step
            yield (
                named(stem, step=step, strength=strength),
                Arm(file, strength, variant, folder.name, seed, reached, step is None),
            )


def counted(
    steps: int, *, save_every: int | None, keep: int | None, checkpoints: Literal["last", "all"] | tuple[int, ...]
) -> int:
    """How many checkpoints of a run of so many steps will be drawn; for the plan, before there is any."""
    if checkpoints == "last":
        return 1
    if checkpoints != "all":
        return len(checkpoints)
    saved = 0 if save_every is None else (steps - 1) // save_every
    return 1 + (saved if keep is None else min(saved, keep))
