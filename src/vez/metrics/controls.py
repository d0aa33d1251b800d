"""Checks on the evaluator itself, made with every score: fakes whose answer is known, and arms against themselves.

Where one of them fails, the numbers beside it are not to be believed, however good they look.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from vez.metrics import stats
from vez.metrics.copying import SAME, alike, overlays
from vez.metrics.layout import Cells
from vez.metrics.likeness import as_drawn, as_held_out
from vez.metrics.material import Material, Vectors
from vez.metrics.rules import Rule
from vez.metrics.summary import Values

NEAR_1: Final = (0.5, 1.5)
"""Where the scaled likeness of real pictures has to lie, in the mean."""

ALARM: Final = 0.5
"""Share of training pictures that, given as if they were drawn, have to raise the alarm for copies."""

LAID_OVER: Final = 8
"""Training pictures that are laid over themselves, as copies would be: each takes a while."""

INNOCENT: Final = 0.25
"""Share of held-out pictures that may raise it: of few pictures one is much."""


def controls(
    m: Material, values: Mapping[str, Values], rules: Mapping[str, Rule], *, strength_0: Mapping[str, int] | None
) -> dict[str, Any]:
    """What summary.json holds under ``controls``; None where a control could not be made.

    strength_0: arm → levels of 255 that its LoRA moves pictures by at strength 0, as sampling found; held_out and
    training_copies: real pictures scored as if a generator had drawn them; halves: arm → primary metric → its even
    noises against its odd ones; wrong_trigger: arm → mean and interval of specificity.
    """
    return {
        "strength_0": None if strength_0 is None else {"levels": dict(strength_0), "ok": _at_most_1(strength_0)},
        "held_out": held_out(m),
        "training_copies": training_copies(m),
        "halves": halves(values, rules),
        "wrong_trigger": _wrong_trigger(values, m.base),
    }


def failed(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each control that did not come out as it must."""
    said = []
    if found["strength_0"] is not None and not found["strength_0"]["ok"]:
        said.append("a LoRA at strength 0 does not draw what the base draws: sample again")
    if found["held_out"] is not None and not found["held_out"]["ok"]:
        said.append(
            "held-out pictures scored as if they were drawn do not come out as real, uncopied ones: likeness and "
            "copying are not to be relied on here (too few held-out pictures, or near-copies of training pictures)"
        )
    for arm, of in (found["training_copies"] or {}).items():
        if not of["ok"]:
            said.append(f"training pictures of {arm} scored as if they were drawn raise no alarm for copies")
    for arm, by_metric in found["halves"].items():
        for metric, half in by_metric.items():
            if not half["ok"]:
                said.append(f"{arm}'s even and odd noises differ in {metric}: one noise weighs too much")
    return said


def held_out(m: Material) -> dict[str, Any] | None:
    """Held-out pictures as a generator: likeness about 1, and no more alarm for copies than by chance.

    Each half of them is judged by the other. None where there are too few, or there is no scale.
    """
    likeness = as_held_out(m)
    if likeness is None:
        return None
    told = _mean(likeness)
    rates = [float(found["copying"]) for arm in m.judge.training if (found := _alarms(m, arm, m.judge.reference))]
    copying = max(rates) if rates else None
    ok = NEAR_1[0] <= told["mean"] <= NEAR_1[1] and (copying is None or copying <= INNOCENT)
    return {"similarity": told, "copying": copying, "ok": ok}


def training_copies(m: Material) -> dict[str, Any] | None:
    """Arm → its training pictures as a generator: likeness about 1 **and** the alarm for copies.

    Arms that learned from the same pictures are asked once.
    """
    found: dict[str, Any] = {}
    known: dict[bytes, dict[str, Any] | None] = {}
    for arm, seen in m.judge.training.items():
        if seen.tobytes() not in known:
            known[seen.tobytes()] = _copied(m, arm)
        told = known[seen.tobytes()]
        if told is not None:
            found[arm] = told
    return found or None


def _copied(m: Material, arm: str) -> dict[str, Any] | None:
    seen = m.judge.training[arm]
    alarms = _alarms(m, arm, seen)
    if alarms is None:
        return None
    likeness, copies = as_drawn(m, seen), None
    greys = () if m.pixels is None else m.pixels.training.get(arm, ())[:LAID_OVER]
    if greys:
        itself = np.ones((1, 1))
        copies = float(np.mean([overlays([grey], (grey,), itself)[0] >= SAME for grey in greys]))
    return {
        "similarity": None if likeness is None else _mean(likeness),
        "copying": alarms["copying"],
        "copies": copies,
        "ok": alarms["copying"] >= ALARM and (copies is None or copies >= ALARM),
    }


def halves(values: Mapping[str, Values], rules: Mapping[str, Rule]) -> dict[str, dict[str, Any]]:
    """Arm → primary metric → its even noises minus its odd ones, paired by prompt: there is no difference to find.

    Adjusted by Holm over all of them. Arms with one noise, or prompts without both, are left out.
    """
    found: dict[tuple[str, str], stats.Comparison] = {}
    for metric in [name for name, rule in rules.items() if rule.primary]:
        for arm, cells in values[metric].items():
            even, odd = (_half(cells, part) for part in (0, 1))
            if even.keys() & odd.keys():
                compared = stats.compare(even, odd)
                # scaled likeness of the base is 0 in each prompt by definition: nothing is left to compare
                if compared.sd > 0:
                    found[arm, metric] = compared
    adjusted = dict(zip(found, stats.holm([of.p for of in found.values()]), strict=True))
    told: dict[str, dict[str, Any]] = {}
    for (arm, metric), of in found.items():
        row = {key: value for key, value in asdict(of).items() if key in ("diff", "low", "high", "p", "n_prompts")}
        p = adjusted[arm, metric]
        told.setdefault(arm, {})[metric] = row | {"p_holm": p, "ok": p > stats.ALPHA}
    return told


def _half(cells: Cells, part: int) -> dict[tuple[str, int], float]:
    """Every other noise of each prompt, numbered anew from 0."""
    seeds: dict[str, list[int]] = {}
    for prompt, seed in sorted(cells):
        seeds.setdefault(prompt, []).append(seed)
    return {
        (prompt, k): cells[prompt, seed] for prompt, of in seeds.items() for k, seed in enumerate(sorted(of)[part::2])
    }


def _alarms(m: Material, arm: str, pictures: Vectors) -> dict[str, float] | None:
    """Share of pictures (P, D) nearer to a training picture than these are to each other."""
    seen = m.judge.training[arm]
    limit = alike(seen)
    if limit is None or not len(pictures):
        return None
    return {"copying": float(((pictures @ seen.T).max(axis=1) > limit).mean())}


def _wrong_trigger(values: Mapping[str, Values], base: str | None) -> dict[str, Any]:
    found = {}
    for arm, cells in values.get("specificity", {}).items():
        if arm != base:
            found[arm] = _mean(np.array(list(stats.prompt_means(cells).values())))
    return found


def _mean(values: Vectors) -> dict[str, Any]:
    interval = stats.t_interval(values)
    low, high = (None if v is None else round(v, 6) for v in (interval.low, interval.high))
    return {"mean": round(interval.mean, 6), "low": low, "high": high, "n": interval.n}


def _at_most_1(levels: Mapping[str, int]) -> bool:
    return all(level <= 1 for level in levels.values())
