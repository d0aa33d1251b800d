"""Does a picture show the concept? Likeness to held-out pictures on a scale from the base's own to the real ones'.

A bare cosine says little: its zero and its one depend on the encoder and on the concept. So it is scaled by what can be
measured on the spot (docs/evaluate.md). The judge is DINOv2 where the study names one, else CLIP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from vez.metrics.material import (
    Material,
    Measure,
    Metric,
    Vectors,
    View,
    base_means,
    of_set,
    partners,
    scenes,
    table,
    unasked,
)
from vez.metrics.summary import Values

SMALLEST_SPAN: Final = 0.01
"""Cosine between the base's pictures and real ones below which the likeness scale would divide noise by noise."""

FEWEST_HALVED: Final = 4
"""Held-out pictures that can be parted into two halves that judge each other."""


@dataclass(frozen=True)
class Scale:
    """Likeness (N,) of every drawn picture, and what 0 (``floor``, prompt → value) and 1 (``real``) are."""

    likeness: Vectors
    floor: dict[str, float]
    real: float
    span: float

    def of(self, m: Material, i: int) -> float:
        """A picture's scaled likeness."""
        return float((self.likeness[i] - self.floor[m.drawn[i].prompt]) / self.span)


def real_likeness(view: View) -> float | None:
    """Mean cosine of two different held-out pictures; None with fewer than two."""
    return _between(view.reference @ view.reference.T)


def scale(m: Material, view: View) -> Scale | None:
    """The likeness scale of whole pictures; None where there is none."""
    real = real_likeness(view)
    return None if real is None else _scale(m, (view.images @ view.reference.T).mean(axis=1), real)


def foreground_scale(m: Material, view: View) -> Scale | None:
    """The likeness scale of the subject alone; None where there is none."""
    if view.foreground is None or view.foreground_real is None:
        return None
    real = _between(view.foreground_real)
    return None if real is None else _scale(m, view.foreground.mean(axis=1), real)


def likeness_span(m: Material) -> float | None:
    """The cosine that one unit of the likeness scale stands for; None where there is no such scale."""
    found = scale(m, m.judge)
    return None if found is None else found.span


def as_held_out(m: Material) -> Vectors | None:
    """Scaled likeness (R,) of the held-out pictures as if they had been drawn: each half of them judged by the other.

    None where there is no scale, or there are too few. The floor is that of the scenes together.
    """
    view, found = m.judge, scale(m, m.judge)
    if found is None or len(view.reference) < FEWEST_HALVED:
        return None
    halves = np.arange(len(view.reference)) % 2
    values = np.zeros(len(view.reference))
    for half in (0, 1):
        others = view.reference[halves != half]
        real = _between(others @ others.T)
        of_scenes = scenes(m)
        floor = base_means(m, (view.images @ others.T).mean(axis=1))
        low = float(np.mean([floor[p] for p in {m.drawn[i].prompt for i in of_scenes} & floor.keys()]))
        if real is None or real - low < SMALLEST_SPAN:
            return None
        values[halves == half] = ((view.reference[halves == half] @ others.T).mean(axis=1) - low) / (real - low)
    return values


def as_drawn(m: Material, pictures: Vectors) -> Vectors | None:
    """Scaled likeness (P,) of any pictures (P, D) of the judge's as if they had been drawn; None without a scale."""
    found = scale(m, m.judge)
    if found is None:
        return None
    floor = found.real - found.span
    return np.asarray(((pictures @ m.judge.reference.T).mean(axis=1) - floor) / found.span, dtype=np.float64)


def _between(cosines: Vectors) -> float | None:
    """Mean of a square table without its diagonal."""
    n = len(cosines)
    return float((cosines.sum() - np.trace(cosines)) / (n * (n - 1))) if n > 1 else None


def _scale(m: Material, likeness: Vectors, real: float) -> Scale | None:
    floor = base_means(m, likeness)
    of_scenes = {m.drawn[i].prompt for i in scenes(m)} & floor.keys()
    if not of_scenes:
        return None
    span = real - float(np.mean([floor[prompt] for prompt in sorted(of_scenes)]))
    return Scale(likeness, floor, real, span) if span >= SMALLEST_SPAN else None


Scaled = Callable[[Material], Scale | None]


def _judged(m: Material) -> Scale | None:
    return scale(m, m.judge)


def _second(m: Material) -> Scale | None:
    """CLIP's scale where another encoder is the judge."""
    return None if m.dino is None else scale(m, m.clip)


def _subject(m: Material) -> Scale | None:
    return foreground_scale(m, m.judge)


def _similarity(scaled: Scaled, chosen: Callable[[Material], list[int]]) -> Measure:
    """Scaled likeness: 0 the base's pictures of the same prompt, 1 another real picture."""

    def measure(m: Material) -> Values:
        found = scaled(m)
        if found is None:
            return {}
        return table(m, [(i, found.of(m, i)) for i in chosen(m) if m.drawn[i].prompt in found.floor])

    return measure


def _apart(role: str, from_role: str) -> Measure:
    """Likeness of one role's pictures minus another role's of the same scene and noise, in units of the scale."""

    def measure(m: Material) -> Values:
        found, others = _judged(m), partners(m, from_role)
        if found is None:
            return {}
        rows = []
        for i, d in enumerate(m.drawn):
            other = others.get((d.arm, d.group, d.seed)) if d.role == role else None
            if other is not None:
                rows.append((i, (found.likeness[i] - found.likeness[other]) / found.span))
        return table(m, rows)

    return measure


def _overfit(m: Material) -> Values:
    """How much nearer the nearest training picture is than the nearest held-out one, over the same of the base's.

    What there are more of lies nearer by chance: the base's pictures have seen neither, and are subtracted.
    """
    found = _judged(m)
    if found is None:
        return {}
    view, rows = m.judge, []
    held_out = (view.images @ view.reference.T).max(axis=1)
    for arm, seen in view.training.items():
        if not len(seen):
            continue
        excess = (view.images @ seen.T).max(axis=1) - held_out
        floor = base_means(m, excess)
        for i in scenes(m):
            if m.drawn[i].arm == arm and m.drawn[i].prompt in floor:
                rows.append((i, (excess[i] - floor[m.drawn[i].prompt]) / found.span))
    return table(m, rows)


def _ranked(m: Material) -> list[tuple[int, np.ndarray]]:
    """(picture, of all real pictures by falling likeness which are the concept) where there are look-alikes."""
    view = m.judge
    if view.gallery is None or not len(view.gallery) or not len(view.reference):
        return []
    real = np.concatenate([view.reference, view.gallery])
    concept = np.arange(len(real)) < len(view.reference)
    return [(i, concept[np.argsort(-(real @ view.images[i]), kind="stable")]) for i in scenes(m)]


def average_precision(relevant: np.ndarray) -> float:
    """Mean, over the relevant places of a ranking (K,) of truth values, of the share of relevant ones up to there."""
    at = np.flatnonzero(relevant)
    return float(np.mean(np.arange(1, len(at) + 1) / (at + 1)))


def _gallery(m: Material) -> Values:
    return table(m, [(i, average_precision(relevant)) for i, relevant in _ranked(m)])


def _gallery_first(m: Material) -> Values:
    return table(m, [(i, float(relevant[0])) for i, relevant in _ranked(m)])


_SCALE = (
    "0 is the mean of the base's own pictures of the same prompt, 1 is how alike two held-out pictures are; "
    "above 1 is suspicious"
)
_NEEDS_SCALE = (
    "needs at least two held-out pictures that no LoRA was trained on (held_out in vez.toml), the base as an arm, "
    "prompts with the trigger, and held-out pictures that are more like each other than like what the base draws"
)
_NEEDS_GALLERY = "needs a folder of pictures of look-alikes (gallery in [project] of vez.toml), and held-out pictures"

LIKENESS: Final[tuple[Metric, ...]] = (
    Metric(
        "similarity",
        "likeness",
        f"Mean cosine to the held-out pictures, scaled: {_SCALE}. Over the scenes with the trigger (set B), by DINOv2 "
        "where the study names one, else by CLIP.",
        _NEEDS_SCALE,
        _similarity(_judged, scenes),
    ),
    Metric(
        "similarity_clip",
        "likeness",
        "The same by CLIP, where DINOv2 is the judge: two encoders of different schooling that disagree are a warning.",
        "needs a second encoder besides CLIP (dino in the study); without one CLIP is the judge of similarity itself",
        _similarity(_second, scenes),
    ),
    Metric(
        "foreground",
        "likeness",
        "How much of the held-out pictures' subject is found on a picture: for each patch of the subject the nearest "
        f"patch of the picture, wherever it lies, the mean cosine scaled: {_SCALE}. What is copied from a background "
        "does not count.",
        f"{_NEEDS_SCALE}; and a mask for each of the held-out pictures (masks in the dataset)",
        _similarity(_subject, scenes),
    ),
    Metric(
        "similarity_seen",
        "likeness",
        "Similarity over prompts that ask for the concept as it was photographed (set A): about the most there can be.",
        f"{_NEEDS_SCALE}; and prompts of the set A",
        _similarity(_judged, lambda m: of_set(m, "A")),
    ),
    Metric(
        "similarity_composition",
        "likeness",
        "Similarity over the compositions (set C: other people, other materials, from behind).",
        f"{_NEEDS_SCALE}; and prompts of the set C",
        _similarity(_judged, lambda m: of_set(m, "C")),
    ),
    Metric(
        "similarity_own",
        "likeness",
        "Similarity over your own prompts beside the suite's (set user).",
        f"{_NEEDS_SCALE}; and prompts of your own with the trigger, beside the suite's",
        _similarity(_judged, lambda m: of_set(m, "user")),
    ),
    Metric(
        "gallery",
        "likeness",
        "Real pictures of the concept and of its look-alikes, ranked by likeness to a picture: mean over the concept's "
        "of the share of concept up to there (average precision). 1: all of the concept before any look-alike.",
        _NEEDS_GALLERY,
        _gallery,
    ),
    Metric(
        "gallery_first",
        "likeness",
        "Share of pictures whose most similar real picture shows the concept and not a look-alike.",
        _NEEDS_GALLERY,
        _gallery_first,
    ),
    Metric(
        "overfit",
        "likeness",
        "How much more a picture's likeness to its nearest training picture has risen over the base's than that to its "
        "nearest held-out one (after Meehan et al. 2020, arXiv 2004.05675), on the scale of similarity: about 0 for "
        "what has learned the concept, above 0 for what has learned its pictures.",
        f"{_NEEDS_SCALE}; and the datasets that the LoRAs were trained on",
        _overfit,
    ),
    Metric(
        "trigger_effect",
        "likeness",
        "Likeness with the trigger word minus likeness with the describing words, same scene, same noise, same LoRA, "
        "on the scale of similarity: what the trigger word itself does. Near 0: nothing that plain words do not.",
        f"{_NEEDS_SCALE}; and in a group both a prompt of the role trigger and one of the role class",
        _apart("trigger", "class"),
    ),
    Metric(
        "specificity",
        "likeness",
        "Likeness with a wrong trigger word minus likeness with the describing words, same scene, same noise, same "
        "LoRA, on the scale of similarity: above 0 any made-up word calls the concept.",
        f"{_NEEDS_SCALE}; and in a group both a prompt of the role wrong and one of the role class",
        _apart("wrong", "class"),
    ),
    Metric(
        "leak",
        "likeness",
        "Likeness to the held-out pictures on the scale of similarity, over prompts near the concept that do not ask "
        "for it (set E; where there are none, of the roles none and drift): 0 is none more than the base, above 0 the "
        "concept comes unasked.",
        f"{_NEEDS_SCALE}; and prompts of the roles none or drift",
        _similarity(_judged, unasked),
    ),
)
