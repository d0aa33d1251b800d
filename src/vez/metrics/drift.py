"""What did the LoRA change that it should not have? Pictures of the same noise with and without it, side by side.

Every distance is told in units of the base's own between two noises of one prompt: 1 is as far as another noise goes.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from vez.metrics.material import Material, Measure, Metric, Vectors, by_prompt, neighbours, of_base, table, unrelated
from vez.metrics.summary import Values

Distance = Callable[[Vectors, Vectors], Vectors]
Seen = Callable[[Material], Vectors | None]

SMALLEST_SPREAD: Final = 1e-6


def _apart(a: Vectors, b: Vectors) -> Vectors:
    """Cosine distance of unit vectors (…, D)."""
    return np.asarray(1 - (a * b).sum(axis=-1), dtype=np.float64)


def _far(a: Vectors, b: Vectors) -> Vectors:
    """Euclidean distance (…, K); of mean colours in CIELAB it is CIE76's ΔE."""
    return np.asarray(np.linalg.norm(a - b, axis=-1), dtype=np.float64)


def between_noises(m: Material, seen: Vectors, chosen: list[int], distance: Distance, *, arm: str | None) -> Vectors:
    """Mean distance of two noises, for each prompt among those chosen that has two in an arm: (P,)."""
    spreads = []
    for of in by_prompt(m, chosen, arm=arm).values():
        if len(of) > 1:
            one, other = np.triu_indices(len(of), 1)
            vectors = seen[of]
            spreads.append(float(distance(vectors[one], vectors[other]).mean()))
    return np.array(spreads)


def _drift(see: Seen, distance: Distance, pictures: Callable[[Material], list[int]]) -> Measure:
    """Distance to the base's picture of the same prompt and noise."""

    def measure(m: Material) -> Values:
        seen, chosen = see(m), pictures(m)
        if seen is None or m.base is None:
            return {}
        spreads = between_noises(m, seen, chosen, distance, arm=m.base)
        spread = float(spreads.mean()) if len(spreads) else 0.0
        if spread < SMALLEST_SPREAD:
            return {}
        own = of_base(m, chosen)
        rows = []
        for i in chosen:
            j = own.get((m.drawn[i].prompt, m.drawn[i].seed))
            if j is not None and j != i:
                rows.append((i, float(distance(seen[i], seen[j])) / spread))
        return table(m, rows)

    return measure


def colour_shift(m: Material) -> dict[str, dict[str, Any]]:
    """Arm → how its unrelated pictures' mean colour moved from the base's of the same noise, with signs, in CIELAB."""
    own, found = of_base(m, _not_asked(m)), dict[str, dict[str, Any]]()
    if m.pixels is None:
        return {}
    moved: dict[str, list[Vectors]] = {}
    for i in _not_asked(m):
        j = own.get((m.drawn[i].prompt, m.drawn[i].seed))
        if j is not None and j != i:
            chroma = m.pixels.chroma[i] - m.pixels.chroma[j]
            moved.setdefault(m.drawn[i].arm, []).append(np.append(m.pixels.colour[i] - m.pixels.colour[j], chroma))
    for arm, shifts in moved.items():
        lightness, red, yellow, chroma = (round(float(v), 3) for v in np.mean(shifts, axis=0))
        found[arm] = {"lightness": lightness, "a": red, "b": yellow, "chroma": chroma, "n_images": len(shifts)}
    return found


def _not_asked(m: Material) -> list[int]:
    return [*neighbours(m), *unrelated(m)]


def _vectors(m: Material) -> Vectors:
    return m.judge.images


def _colour(m: Material) -> Vectors | None:
    return None if m.pixels is None else m.pixels.colour


def _chroma(m: Material) -> Vectors | None:
    return None if m.pixels is None else m.pixels.chroma[:, None]


_UNIT = "in units of the base's own distance between two noises. 0: not at all, 1: as far as another noise would."
_NEEDS = "the base as an arm, and two seeds or more"

DRIFT: Final[tuple[Metric, ...]] = (
    Metric(
        "drift",
        "drift",
        "How far pictures of unrelated prompts (role drift) move from the base's of the same noise: distance as the "
        f"judge of likeness sees it, {_UNIT}",
        f"needs prompts of the role drift, {_NEEDS}",
        _drift(_vectors, _apart, unrelated),
    ),
    Metric(
        "drift_near",
        "drift",
        "The same for prompts near the concept that do not ask for it (set E).",
        f"needs prompts of the set E, {_NEEDS}",
        _drift(_vectors, _apart, neighbours),
    ),
    Metric(
        "colour_drift",
        "drift",
        "How far the mean colour of pictures that do not ask for the concept (set E, role drift) moves from the "
        f"base's of the same noise: ΔE of CIELAB, {_UNIT}",
        f"needs prompts of the set E or of the role drift, {_NEEDS}",
        _drift(_colour, _far, _not_asked),
    ),
    Metric(
        "saturation_drift",
        "drift",
        f"The same for how saturated they are: mean chroma in CIELAB, {_UNIT} Which way is under `colour`.",
        f"needs prompts of the set E or of the role drift, {_NEEDS}",
        _drift(_chroma, _far, _not_asked),
    ),
)
