"""All that the metrics look at, as arrays: what was drawn, what each encoder makes of it, what its pixels say. Pure.

`vez.metrics.gather` makes it of picture files; a metric is a function of it that gives one value per picture.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vez.config import Project
from vez.images.shifts import Grey
from vez.metrics.rules import RULES, Rule
from vez.metrics.summary import Values

Vectors = NDArray[np.float64]

PRIMARY_SETS: Final = ("B", "G")
"""The sets whose prompts with the trigger decide: recontextualisation, and what confirms it."""


@dataclass(frozen=True)
class Drawn:
    """One sampled picture; ``text`` and ``context`` have their placeholders filled, ``set`` is the suite's letter."""

    arm: str
    prompt: str
    group: str
    role: str
    text: str
    context: str
    seed: int
    file: str
    set: str = ""


@dataclass(frozen=True)
class View:
    """What one encoder sees: unit vectors of pictures.

    ``images`` (N, D) belong to the drawn pictures; ``reference`` (R, D) are the held-out pictures that no arm was
    trained on; ``training`` maps an arm to the pictures it was trained on (T, D); ``gallery`` (G, D) shows look-alikes.
    ``foreground`` (N, R) says how much of each held-out picture's subject is found somewhere on each drawn one, and
    ``foreground_real`` (R, R) the same among the held-out ones; None where these have no masks.
    """

    name: str
    images: Vectors
    reference: Vectors
    training: Mapping[str, Vectors]
    gallery: Vectors | None = None
    foreground: Vectors | None = None
    foreground_real: Vectors | None = None


@dataclass(frozen=True)
class Pixels:
    """What is read off the drawn pictures themselves, without a model.

    ``colour`` (N, 3) is the mean colour in CIELAB, ``chroma`` (N,) the mean of its pixels' chroma; ``contrast`` (N,)
    the standard deviation of brightness, in levels of 255; ``blur`` (N,) and ``lettering`` (N,) as `images.quality` and
    `images.lettering` say; ``greys`` the pictures as `images.shifts` compares them, ``training`` an arm's own.
    """

    colour: Vectors
    chroma: Vectors
    contrast: Vectors
    blur: Vectors
    lettering: Vectors
    greys: tuple[Grey, ...]
    training: Mapping[str, tuple[Grey, ...]]


@dataclass(frozen=True)
class Material:
    """All that metrics look at.

    ``texts`` maps a text without the prefix to the vector (D,) that ``clip``'s text tower gives it with it. ``dino`` is
    the second encoder and ``pixels`` what needs none; None where they were not asked for.
    """

    drawn: tuple[Drawn, ...]
    clip: View
    texts: Mapping[str, Vectors]
    project: Project
    base: str | None
    dino: View | None = None
    pixels: Pixels | None = None

    @property
    def judge(self) -> View:
        """Who judges what a picture looks like: DINOv2 where there is one, else CLIP."""
        return self.dino or self.clip


Measure = Callable[[Material], Values]


@dataclass(frozen=True)
class Metric:
    """One metric. ``needs`` says, where nothing could be measured, what was missing."""

    name: str
    family: str
    """text, likeness, drift, copying, diversity or artefacts."""
    definition: str
    needs: str
    measure: Measure = field(repr=False)

    @property
    def rule(self) -> Rule:
        """How its differences are judged."""
        return RULES[self.name]

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""
        return self.rule.higher_is_better


def scenes(m: Material) -> list[int]:
    """The pictures that the primary metrics are about: with the trigger, of set B (and of G, which confirms it).

    All prompts with the trigger where none is of set B: prompts of one's own, and older samples, name no sets.
    """
    triggered = [i for i, d in enumerate(m.drawn) if d.role == "trigger"]
    if not any(m.drawn[i].set == "B" for i in triggered):
        return triggered
    return [i for i in triggered if m.drawn[i].set in PRIMARY_SETS]


def of_set(m: Material, letter: str) -> list[int]:
    """The pictures with the trigger of one other set."""
    return [i for i, d in enumerate(m.drawn) if d.role == "trigger" and d.set == letter]


def neighbours(m: Material) -> list[int]:
    """The pictures of set E: what stands near the concept, not asking for it."""
    return [i for i, d in enumerate(m.drawn) if d.role == "none" and d.set == "E"]


def unrelated(m: Material) -> list[int]:
    """The pictures of prompts that have nothing to do with the concept."""
    return [i for i, d in enumerate(m.drawn) if d.role == "drift"]


def unasked(m: Material) -> list[int]:
    """The pictures in which the concept would be a leak: of set E, or where there are none all that do not ask."""
    return neighbours(m) or [i for i, d in enumerate(m.drawn) if d.role in ("none", "drift")]


def partners(m: Material, role: str) -> dict[tuple[str, str, int], int]:
    """(arm, group, seed) → the picture of that role in a group: the same scene and noise asked for otherwise."""
    return {(d.arm, d.group, d.seed): i for i, d in enumerate(m.drawn) if d.role == role and d.group}


def of_base(m: Material, chosen: Iterable[int]) -> dict[tuple[str, int], int]:
    """(prompt, seed) → the base's picture of it, among those chosen."""
    return {(m.drawn[i].prompt, m.drawn[i].seed): i for i in chosen if m.drawn[i].arm == m.base}


def by_prompt(m: Material, chosen: Iterable[int], *, arm: str | None) -> dict[str, list[int]]:
    """Prompt → an arm's pictures of it, among those chosen."""
    found: dict[str, list[int]] = {}
    for i in chosen:
        if m.drawn[i].arm == arm:
            found.setdefault(m.drawn[i].prompt, []).append(i)
    return found


def base_means(m: Material, values: Vectors) -> dict[str, float]:
    """Prompt → mean of the base's pictures of it."""
    found = by_prompt(m, range(len(m.drawn)), arm=m.base) if m.base is not None else {}
    return {prompt: float(values[of].mean()) for prompt, of in found.items()}


def table(m: Material, rows: Iterable[tuple[int, float]]) -> Values:
    """(index of a picture, its value) → arm → (prompt, seed) → value."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    for i, value in rows:
        d = m.drawn[i]
        # Rounded: the last bits of a vector depend on which pictures shared its batch.
        found.setdefault(d.arm, {})[d.prompt, d.seed] = round(float(value), 6)
    return found
