"""Did the LoRA learn the concept, or its pictures? How near what it draws lies to what it was trained on."""

from typing import Any, Final

import numpy as np

from vez.images import shifts
from vez.images.shifts import Grey
from vez.metrics.material import Material, Metric, Vectors, scenes, table
from vez.metrics.summary import Values

SHORTLIST: Final = 4
"""Nearest training pictures of a drawn one that are laid over it."""

SAME: Final = 0.9
"""Correlation from which a drawn picture shows a training picture's photograph: a copy that was drawn anew keeps
brightness and detail less exactly than a resized file (0.97)."""

NEVER: Final = -2.0
"""Below every cosine: a pair that is not to be laid over each other."""

WORST: Final = 12
"""Rows of the nearest-neighbour sheet."""


def alike(seen: Vectors) -> float | None:
    """How near pictures (T, D) lie to each other: 95th percentile of the cosine to the nearest other; None for one."""
    if len(seen) < 2:
        return None
    return float(np.quantile((seen @ seen.T - 2 * np.eye(len(seen))).max(axis=1), 0.95))


def nearest(m: Material) -> dict[int, tuple[int, float]]:
    """Drawn picture with the trigger → (its nearest training picture, their cosine)."""
    found = {}
    for i, d in enumerate(m.drawn):
        seen = m.judge.training.get(d.arm, ())
        if d.role == "trigger" and len(seen):
            cosines = seen @ m.judge.images[i]
            found[i] = int(cosines.argmax()), float(cosines.max())
    return found


def overlays(pictures: list[Grey], trained: tuple[Grey, ...], cosines: Vectors) -> list[float]:
    """For each picture the best correlation with any of its likeliest training pictures over shifts, sizes, mirroring.

    ``cosines`` (P, T) says which are likely, `NEVER` which are out. 0 where not even a coarse look promises anything.
    """
    greys = [*pictures, *trained]
    partners = np.argsort(-cosines, axis=1, kind="stable")[:, :SHORTLIST]
    pairs = [(i, len(pictures) + int(j)) for i, row in enumerate(partners) for j in row if cosines[i, j] > NEVER]
    best = [0.0] * len(pictures)
    for match in shifts.matches(greys, np.array(pairs, dtype=np.intp).reshape(-1, 2), least=0.0):
        best[match.earlier] = max(best[match.earlier], match.score)
    return best


def correlations(m: Material) -> dict[int, float]:
    """Drawn picture with the trigger → how well some training picture of its arm lies over it, 0 to 1."""
    found: dict[int, float] = {}
    if m.pixels is None:
        return found
    for arm, trained in m.pixels.training.items():
        of = [i for i, d in enumerate(m.drawn) if d.role == "trigger" and d.arm == arm]
        if of and trained:
            cosines = m.judge.images[of] @ m.judge.training[arm].T
            found |= dict(zip(of, overlays([m.pixels.greys[i] for i in of], trained, cosines), strict=True))
    return found


def worst(m: Material) -> dict[str, list[dict[str, Any]]]:
    """Arm → the pictures that lie nearest to a training picture, the nearest first: {file, training, cosine}.

    ``training`` is a place in the dataset's training rows.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for i, (j, cosine) in sorted(nearest(m).items(), key=lambda item: -item[1][1]):
        rows = found.setdefault(m.drawn[i].arm, [])
        if len(rows) < WORST:
            rows.append({"file": m.drawn[i].file, "training": j, "cosine": round(cosine, 6)})
    return found


def _nearest_training(m: Material) -> Values:
    return table(m, [(i, cosine) for i, (_, cosine) in nearest(m).items()])


def _copying(m: Material) -> Values:
    """1 for a picture nearer to a training picture than nearly all of these are to each other, else 0."""
    limits = {arm: limit for arm, seen in m.judge.training.items() if (limit := alike(seen)) is not None}
    near = [(i, cosine, limits.get(m.drawn[i].arm)) for i, (_, cosine) in nearest(m).items()]
    return table(m, [(i, float(cosine > limit)) for i, cosine, limit in near if limit is not None])


def _copies(m: Material) -> Values:
    return table(m, [(i, float(score >= SAME)) for i, score in correlations(m).items()])


def _repeats(m: Material) -> Values:
    """1 for a picture that one of the same arm's for another prompt or noise can be laid over, else 0."""
    rows = []
    for arm in dict.fromkeys(d.arm for d in m.drawn) if m.pixels is not None else ():
        of = [i for i in scenes(m) if m.drawn[i].arm == arm]
        if m.pixels is not None and len(of) > 1:
            greys, seen = [m.pixels.greys[i] for i in of], m.judge.images[of]
            apart = seen @ seen.T + NEVER * 2 * np.eye(len(of))
            scores = overlays(greys, tuple(greys), apart)
            rows += [(i, float(score >= SAME)) for i, score in zip(of, scores, strict=True)]
    return table(m, rows)


_NEEDS = "needs prompts of the role trigger, and the datasets that the LoRAs were trained on"

COPYING: Final[tuple[Metric, ...]] = (
    Metric(
        "nearest_training",
        "copying",
        "Cosine to the nearest picture of the LoRA's own training set, as the judge of likeness sees it, over prompts "
        "with the trigger: near 1 is a sign of copying. Look at the pair before believing it.",
        _NEEDS,
        _nearest_training,
    ),
    Metric(
        "copying",
        "copying",
        "Share of pictures, over prompts with the trigger, whose nearest training picture is nearer than 95 % of the "
        "training pictures are to their own nearest: about 0 for what has learned the concept, towards 1 for what has "
        "learned its pictures.",
        _NEEDS,
        _copying,
    ),
    Metric(
        "copies",
        "copying",
        "Share of pictures, over prompts with the trigger, that a training picture can be laid over, moved, resized or "
        f"mirrored, so that brightness and detail agree (correlation of {SAME:g} or more): the same photograph.",
        _NEEDS,
        _copies,
    ),
    Metric(
        "repeats",
        "copying",
        "Share of pictures, over the scenes with the trigger (set B), that another of the same LoRA's, for another "
        f"prompt or noise, can be laid over (correlation of {SAME:g} or more): one picture again and again.",
        "needs two pictures or more of prompts of the role trigger",
        _repeats,
    ),
)
