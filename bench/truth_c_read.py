"""What the oracle and vez say of the LoRAs of bench/truth_c.py, picture by picture and LoRA by LoRA."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import truth_c_halves
from truth_world import asked
from vez import demo
from vez.demo import oracle
from vez.demo.world.garments import COSTUME
from vez.events import Validated, read
from vez.metrics import probed
from vez.report.build import verdict_of
from vez.report.evidence import gather
from vez.sample import read_rows

MIDDLE = (0.2, 0.6)
"""Share of the timesteps in which the memorisation gap is read (evaluation notes, §4.3)."""
AXES = {"F": ("concept", "similarity"), "P": ("context", "T2"), "LK": ("leak", "leak")}
"""Short name → what the oracle says, the metric."""
SETS = {"similarity": ("B", "trigger"), "T2": ("B", "trigger"), "leak": ("E", "none")}
"""Metric → the pictures it is about."""

Arms = dict[str, dict[str, float]]
"""Arm → name → value; those of the oracle and those of vez."""

Key = tuple[str, str, int]
"""(arm, prompt, noise) of a picture."""


@dataclass(frozen=True)
class Seen:
    """What the oracle holds likely of one picture: that the costume is in it, and that place and weather are as asked
    (``around``, NaN where none was); ``whole``: all three are."""

    set: str
    role: str
    group: str
    worn: float
    around: float
    whole: bool

    @property
    def near(self) -> bool:
        """Place and weather are as asked, each more likely than not."""
        return self.around > 0.5


def seen(samples: Path) -> dict[Key, Seen]:
    """Each picture of a samples artifact as the oracle sees it."""
    rows = read_rows(samples)
    model = oracle.load(Path(demo.__file__).parent / "oracle")
    found: dict[Key, Seen] = {}
    for i in range(0, len(rows), 64):
        block = rows[i : i + 64]
        pictures = np.stack([np.asarray(Image.open(samples / row["file"]).convert("RGB")) for row in block])
        with torch.no_grad():
            tables = model(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)
        shares = [scores.softmax(1).double().numpy() for scores in tables]
        for row, told in zip(block, zip(*shares, strict=True), strict=True):
            of = dict(zip(oracle.ANSWERS, told, strict=True))
            found[row["arm"], row["prompt"], row["seed"]] = _seen(row, of)
    return found


def _seen(row: Mapping[str, Any], told: Mapping[str, NDArray[np.float64]]) -> Seen:
    place, weather = asked(row["text"])
    worn = float(told["garment"][oracle.ANSWERS["garment"].index(COSTUME)])
    around = [
        float(told[question][oracle.ANSWERS[question].index(answer)])
        for question, answer in (("place", place), ("weather", weather))
        if answer is not None
    ]
    whole = bool(told["garment"].argmax() == oracle.ANSWERS["garment"].index(COSTUME)) and min(around, default=1) > 0.5
    mean = float(np.mean(around)) if around else float("nan")
    return Seen(row["set"], row["role"], row["group"], worn, mean, whole)


def oracle_says(pictures: Mapping[Key, Seen]) -> Arms:
    """What the oracle says of each arm: means over pictures; of context, leak and what strayed less the base's."""
    arms = dict.fromkeys(arm for arm, *_ in pictures)
    found: Arms = {}
    for arm in arms:

        def over(letter: str, what: str, arm: str = arm) -> float:
            values = [getattr(of, what) for (a, *_), of in pictures.items() if a == arm and of.set == letter]
            return float(np.nanmean(values))

        worn = {(of.role, of.group, key[2]): of.worn for key, of in pictures.items() if key[0] == arm}
        pairs = [(worn["trigger", g, n], w) for (role, g, n), w in worn.items() if role == "class"]
        found[arm] = {
            "concept": over("B", "worn"),
            "context": over("B", "around"),
            "leak": over("E", "worn"),
            "effect": float(np.mean([one - other for one, other in pairs])),
            "strayed": -over("F", "around"),
            "whole": over("B", "whole"),
        }
    less = ("context", "leak", "strayed")
    base = dict(found["base"])
    return {arm: {k: v - base[k] * (k in less) for k, v in of.items()} for arm, of in found.items() if arm != "base"}


Values = dict[str, dict[Key, float]]
"""Metric → picture → value."""


def measured(scores: Path) -> Values:
    """Every number of a scores artifact."""
    found: Values = {}
    for line in (scores / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["metric"], {})[row["arm"], row["prompt"], row["seed"]] = row["value"]
    return found


def vez_says(values: Values) -> Arms:
    """Each LoRA's mean over prompts of each metric; of T2 and unrelated less the base's."""
    found: Arms = {}
    for metric, of in values.items():
        cells: dict[str, dict[str, list[float]]] = {}
        for (arm, prompt, _), value in of.items():
            cells.setdefault(arm, {}).setdefault(prompt, []).append(value)
        means = {arm: float(np.mean([np.mean(v) for v in prompts.values()])) for arm, prompts in cells.items()}
        for arm, mean in means.items():
            if arm != "base":
                less = means.get("base", 0.0) if metric in ("T2", "unrelated") else 0.0
                found.setdefault(arm, {})[metric] = mean - less
    return found


def side_by_side(pictures: Mapping[Key, Seen], values: Values, metric: str) -> dict[Key, tuple[float, float, bool]]:
    """Picture of a LoRA → what the oracle says, what the metric says, and whether it is right (of a leak: that it is
    one). T2 and the oracle's context are less the base's of the same noise."""
    letter, role = SETS[metric]
    found = {}
    for key, of in pictures.items():
        if (of.set, of.role) != (letter, role) or key[0] == "base" or key not in values[metric]:
            continue
        of_base = "base", *key[1:]
        if metric == "T2":
            told = of.around - pictures[of_base].around
            found[key] = told, values[metric][key] - values[metric][of_base], of.near
        else:
            found[key] = of.worn, values[metric][key], of.worn > 0.5
    return found


def gaps(run: Path) -> dict[int, float]:
    """Step → memorisation gap in the middle timesteps: ln of held-out losses over the first, less that of trained."""
    losses: dict[tuple[str, int], NDArray[np.float64]] = {}
    for event in read(run / "events.jsonl"):
        if isinstance(event, Validated):
            losses[event.split, event.step] = np.log(event.bands)
    count = len(next(iter(losses.values())))
    middle = [i for i in range(count) if MIDDLE[0] <= (i + 0.5) / count < MIDDLE[1]]
    grown = {key: float((of - losses[key[0], 0])[middle].mean()) for key, of in losses.items()}
    return {step: grown[split, step] - grown["train", step] for split, step in grown if split == "held_out"}


def probes_say(study: Path) -> Arms:
    """What the probes say of each LoRA, without a picture drawn; nothing where there are none."""
    found = probed.results(study)
    told: Arms = {}
    for arm, of in {} if found is None else found.arms.items():
        each: dict[str, float | None] = {
            "binding": None if of.binding is None else of.binding.gained.mean,
            "leak": of.leak,
            "gap": None if of.gap is None else of.gap.middle.mean,
            "fell": of.gains["class"].mean if "class" in of.gains else None,
        }
        told[arm] = {name: value for name, value in each.items() if value is not None}
    return told


def read_set(studies: Sequence[Path]) -> dict[str, Any]:
    """All that is told of the LoRAs of some studies: arms, gates, halves, pictures."""
    table: Arms = {}
    gates: dict[str, dict[str, str]] = {}
    both: dict[str, dict[str, dict[tuple[str, int], tuple[float, float]]]] = {metric: {} for metric in SETS}
    right: dict[str, tuple[list[float], list[float]]] = {metric: ([], []) for metric in SETS}
    for study in studies:
        pictures, values = seen(study / "samples"), measured(study / "scores")
        told, scored, probes = oracle_says(pictures), vez_says(values), probes_say(study)
        summary = json.loads((study / "scores" / "summary.json").read_bytes())
        for arm, of in told.items():
            variant, _, step = arm.partition("@")
            of_step = gaps(study / "runs" / f"{variant}-0")
            own = of | {"gap": of_step[int(step) if step else max(of_step)]}
            row = {f"oracle {k}": v for k, v in own.items()} | {f"vez {k}": v for k, v in scored[arm].items()}
            table[arm] = row | {f"probe {k}": v for k, v in probes.get(arm, {}).items()}
            gates[arm] = {metric: next(iter(by.values()))["word"] for metric, by in summary["gates"][arm].items()}
        for metric in SETS:
            for (arm, prompt, noise), (true, value, ok) in side_by_side(pictures, values, metric).items():
                both[metric].setdefault(arm, {})[prompt, noise] = true, value
                right[metric][not ok].append(value)
    return {
        "arms": {arm: {name: round(value, 4) for name, value in of.items()} for arm, of in table.items()},
        "gates": gates,
        "halves": {metric: truth_c_halves.reliability(of) for metric, of in both.items()},
        "pictures": {
            metric: {"auc": round(truth_c_halves.area(*of), 3), "right": len(of[0]), "wrong": len(of[1])}
            for metric, of in right.items()
        },
    }


def checkpoint(study: Path, grid: Mapping[int, str], table: Arms) -> dict[str, Any]:
    """Which step of a run the oracle would take, and which vez: where all three are right most often."""
    found = verdict_of(gather(study))
    return {
        "grid": list(grid),
        "oracle": {str(step): table[arm]["oracle whole"] for step, arm in grid.items()},
        "oracle chooses": max(grid, key=lambda step: (table[grid[step]]["oracle whole"], -step)),
        "vez chooses": next((step for step, arm in grid.items() if arm == found.use), None),
        "vez says": found.sentence,
    }
