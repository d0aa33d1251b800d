"""What the oracle and vez say of the LoRAs of bench/truth_c.py: one table, its rank correlations, its plots."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from truth_world import asked
from vez import demo
from vez.demo import oracle
from vez.demo.world.garments import COSTUME
from vez.events import Validated, read
from vez.sample import read_rows

BEGIN, END = "<!-- level C: made by bench/truth_c.py -->", "<!-- end of level C -->"
PLOT = "truth-c.svg"
ENOUGH = 0.8
"""Rank correlation that is asked for."""
MIDDLE = (0.2, 0.6)
"""Share of the timesteps in which the memorisation gap is read (evaluation notes, §4.3)."""
AXES = {
    "F": ("concept", "similarity", "Is the costume there? (similarity)"),
    "P": ("context", "T2", "Is the rest as asked? (T2 less the base's)"),
    "LK": ("leak", "leak", "Does it come unasked? (leak)"),
}
"""Short name → what the oracle says, the metric, the words of the plot."""
ALSO = {"TE": ("effect", "trigger_effect"), "overfit": ("gap", "overfit"), "drift": ("strayed", "drift")}
"""Rank correlations that are told and not asked for."""
LIMITS = {"similarity": ("concept", 0.5, "above"), "leak": ("leak", 0.1, "below"), "T2": ("context", -0.1, "above")}
"""Metric → where the oracle itself draws the line."""

Arms = dict[str, dict[str, float]]
"""Arm → name → value; those of the oracle and those of vez."""


def seen(samples: Path) -> list[dict[str, NDArray[np.float64]]]:
    """For each picture of a samples artifact what the oracle thinks of each question: probabilities of its answers."""
    rows = read_rows(samples)
    model = oracle.load(Path(demo.__file__).parent / "oracle")
    found = []
    for i in range(0, len(rows), 64):
        pictures = np.stack([np.asarray(Image.open(samples / row["file"]).convert("RGB")) for row in rows[i : i + 64]])
        with torch.no_grad():
            tables = model(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1)
        shares = [scores.softmax(1).double().numpy() for scores in tables]
        found += [dict(zip(oracle.ANSWERS, one, strict=True)) for one in zip(*shares, strict=True)]
    return found


def judged(samples: Path) -> Arms:
    """What the oracle says of each arm, the base too: means of what it holds likely, ``whole`` the share all right."""
    parts: dict[str, dict[str, list[float]]] = {}
    apart: dict[tuple[str, str, int], dict[str, float]] = {}
    for row, told in zip(read_rows(samples), seen(samples), strict=True):
        of = parts.setdefault(row["arm"], {})
        place, weather = asked(row["text"])
        worn = float(told["garment"][oracle.ANSWERS["garment"].index(COSTUME)])
        around = [_share(told, "place", place), _share(told, "weather", weather)]
        apart.setdefault((row["arm"], row["group"], row["seed"]), {})[row["role"]] = worn
        name = row["set"] + ("" if row["role"] in ("trigger", "none", "drift") else f"-{row['role']}")
        of.setdefault(f"{name} costume", []).append(worn)
        of.setdefault(f"{name} around", []).append(float(np.mean([x for x in around if x is not None])))
        right = [told["garment"].argmax() == oracle.ANSWERS["garment"].index(COSTUME)]
        right += [x > 0.5 for x in around if x is not None]
        of.setdefault(f"{name} whole", []).append(float(all(right)))
    for (arm, _, _), roles in apart.items():
        if {"trigger", "class"} <= roles.keys():
            parts[arm].setdefault("effect", []).append(roles["trigger"] - roles["class"])
    means = {arm: {name: float(np.mean(values)) for name, values in of.items()} for arm, of in parts.items()}
    return {
        arm: {
            "concept": of["B costume"],
            "around": of["B around"],
            "leak": of["E costume"],
            "effect": of["effect"],
            "strayed": -of["F around"],
            "whole": of["B whole"],
        }
        for arm, of in means.items()
    }


def _share(told: Mapping[str, NDArray[np.float64]], question: str, answer: str | None) -> float | None:
    return None if answer is None else float(told[question][oracle.ANSWERS[question].index(answer)])


def picture_by_picture(folder: Path, studies: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Metric → how surely it tells a LoRA's picture that is right, as the oracle sees it, from one that is not.

    `auc` is the area under the ROC over pictures of all LoRAs, `right` and `wrong` how many there are of each.
    """
    told: dict[str, tuple[list[float], list[float]]] = {metric: ([], []) for metric in ("similarity", "leak", "T2")}
    for root, names in studies.items():
        for name in names:
            study = folder / root / "studies" / name
            right = {}
            for row, of in zip(read_rows(study / "samples"), seen(study / "samples"), strict=True):
                place, weather = asked(row["text"])
                around = [_share(of, "place", place), _share(of, "weather", weather)]
                worn = bool(of["garment"].argmax() == oracle.ANSWERS["garment"].index(COSTUME))
                key = row["arm"], row["prompt"], row["seed"]
                right[key] = {"similarity": worn, "leak": worn, "T2": all(x is None or x > 0.5 for x in around)}
            rows = map(json.loads, (study / "scores" / "scores.jsonl").read_text(encoding="utf-8").splitlines())
            values = {(row["metric"], row["arm"], row["prompt"], row["seed"]): row["value"] for row in rows}
            for (metric, arm, prompt, seed), value in values.items():
                if metric in told and arm != "base":
                    less = values[metric, "base", prompt, seed] if metric == "T2" else 0.0
                    told[metric][not right[arm, prompt, seed][metric]].append(value - less)
    return {
        metric: {"auc": round(_area(good, bad), 3), "right": len(good), "wrong": len(bad)}
        for metric, (good, bad) in told.items()
    }


def _area(good: Sequence[float], bad: Sequence[float]) -> float:
    """Chance that one of ``good`` lies above one of ``bad``."""
    return float((np.sign(np.subtract.outer(good, bad)) + 1).mean() / 2)


def measured(scores: Path) -> Arms:
    """Each arm's mean over prompts of each metric."""
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for line in (scores / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cells.setdefault((row["arm"], row["metric"]), {}).setdefault(row["prompt"], []).append(row["value"])
    found: Arms = {}
    for (arm, metric), of in cells.items():
        found.setdefault(arm, {})[metric] = float(np.mean([np.mean(values) for values in of.values()]))
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


def arms(folder: Path, studies: Mapping[str, Sequence[str]]) -> Arms:
    """Every LoRA of every study (root → studies): what the oracle and vez say, less the base's where it has any."""
    found: Arms = {}
    for root, names in studies.items():
        for name in names:
            study = folder / root / "studies" / name
            told, scores = judged(study / "samples"), measured(study / "scores")
            for arm in told:
                if arm == "base":
                    continue
                own = told[arm] | {"context": told[arm]["around"] - told["base"]["around"]}
                own |= {"leak": told[arm]["leak"] - told["base"]["leak"]}
                own |= {"strayed": told[arm]["strayed"] - told["base"]["strayed"]}
                variant, _, step = arm.partition("@")
                of_step = gaps(study / "runs" / f"{variant}-0")
                own["gap"] = of_step[int(step) if step else max(of_step)]
                vez = scores[arm] | {m: scores[arm][m] - scores["base"][m] for m in ("T2", "unrelated")}
                found[arm] = {f"oracle {k}": v for k, v in own.items()} | {f"vez {k}": v for k, v in vez.items()}
    return {arm: {name: round(value, 4) for name, value in of.items()} for arm, of in found.items()}


@dataclass(frozen=True)
class Asked:
    """One thing asked of level C: what came out, in words, and whether it is right."""

    what: str
    found: str
    asked: str
    right: bool | None


def rank(table: Arms, truth: str, metric: str) -> float:
    """Spearman's correlation over the LoRAs."""
    pairs = [(of[f"oracle {truth}"], of[f"vez {metric}"]) for of in table.values() if f"vez {metric}" in of]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def results(data: Mapping[str, Any]) -> Iterator[Asked]:
    """What level C asks, from the committed numbers."""
    table: Arms = data["arms"]
    for name, (truth, metric, _) in AXES.items():
        rho = rank(table, truth, metric)
        yield Asked(f"{name}: {metric} against the oracle, {len(table)} LoRAs", f"ρ = {rho:.2f}", f"≥ {ENOUGH}",
                    rho >= ENOUGH)  # fmt: skip
    same = {arm: of for arm, of in table.items() if arm not in data["apart"]}
    for name, (truth, metric, _) in AXES.items() if len(same) < len(table) else ():
        what = f"{name}: the same without {', '.join(data['apart'])}, which has another trigger and so another base"
        yield Asked(what, f"ρ = {rank(same, truth, metric):.2f}", "", None)
    for name, (truth, metric) in ALSO.items():
        if any(f"vez {metric}" in of for of in table.values()):
            rho = rank(table, truth, metric)
            by = "the memorisation gap" if truth == "gap" else f"the oracle's {truth}"
            yield Asked(f"{name}: {metric} against {by}", f"ρ = {rho:.2f}", "", None)
    for metric, of in data["pictures"].items():
        words = {"similarity": "has the costume", "leak": "has it unasked", "T2": "has place and weather as asked"}[
            metric
        ]
        what = f"picture by picture: {metric} where a picture {words} ({of['right']}) against where not ({of['wrong']})"
        yield Asked(what, f"AUC {of['auc']:.2f}", "", None)
    copies = data["copies"]
    grown = [copies[name] for name in ("24 pictures", "12 pictures", "5 pictures")]
    shown = " < ".join(f"{gap:.2f}" for gap in grown)
    yield Asked("memorisation gap of 24, 12 and 5 pictures, equally long", shown, "rising", grown == sorted(grown))
    grid, best, chosen = data["grid"], data["oracle chooses"], data["vez chooses"]
    apart = abs(grid.index(best) - grid.index(chosen)) if chosen in grid else None
    what, named = f"checkpoint: the oracle's is step {best}", f"vez names {chosen or 'none'}"
    yield Asked(what, named, "at most one step of the grid apart", apart is not None and apart <= 1)
    for metric, (truth, at, keep) in LIMITS.items():
        yield limit(table, metric, truth, at, keep)


def limit(table: Arms, metric: str, truth: str, at: float, keep: str) -> Asked:
    """Where a limit for tiny would have to lie: between the LoRAs that the oracle lets pass and the others."""
    sign = 1 if keep == "above" else -1
    good = sorted(sign * of[f"vez {metric}"] for of in table.values() if sign * (of[f"oracle {truth}"] - at) >= 0)
    bad = sorted(sign * of[f"vez {metric}"] for of in table.values() if sign * (of[f"oracle {truth}"] - at) < 0)
    what = f"a limit for {metric} on tiny (oracle: {truth} {keep} {at:g}; {len(good)} keep it, {len(bad)} do not)"
    if not good or not bad:
        return Asked(what, "cannot be set: all LoRAs are on one side", "", None)
    area = _area(good, bad)
    middle = sign * (good[0] + bad[-1]) / 2
    found = f"{middle:.2f}, and it parts them" if good[0] > bad[-1] else f"{middle:.2f} at best, they overlap"
    return Asked(what, f"{found} (AUC {area:.2f})", "", None)


SHOWN = ("oracle concept", "vez similarity", "oracle context", "vez T2", "oracle leak", "vez leak", "oracle effect",
         "vez trigger_effect", "oracle gap", "vez overfit", "vez drift", "vez diversity", "vez copying",
         "oracle whole")  # fmt: skip


def page(data: Mapping[str, Any], what: Mapping[str, str]) -> str:
    """The section of the page; ``what`` says what is wrong with each LoRA."""
    words = {True: "yes", False: "**no**", None: "told"}
    parts = [BEGIN, "", "| | found | asked | |", "|---|---|---|---|"]
    parts += [f"| {row.what} | {row.found} | {row.asked} | {words[row.right]} |" for row in results(data)]
    parts += ["", f"![Each LoRA as the oracle and as vez sees it, for concept, context and leak]({PLOT})", ""]
    shown = [name for name in SHOWN if any(name in of for of in data["arms"].values())]
    parts += ["| LoRA | what is wrong | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
    for arm, of in data["arms"].items():
        cells = [f"{of[name]:.2f}" if name in of else "" for name in shown]
        parts.append(f"| {arm} | {what[arm]} | " + " | ".join(cells) + " |")
    return "\n".join([*parts, "", END])


WIDTH, HEIGHT, SIDE = 1020, 380, 270
INK, MUTED, DOT = "#222222", "#777777", "#1f6feb"


def plot(data: Mapping[str, Any]) -> str:
    """Three scatter plots side by side, as an SVG."""
    table: Arms = data["arms"]
    label = "; ".join(f"{name}: rank correlation {rank(table, t, m):.2f}" for name, (t, m, _) in AXES.items())
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
             f'height="{HEIGHT}" font-family="system-ui, sans-serif" role="img" aria-label="{escape(label)}">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']  # fmt: skip
    for i, (truth, metric, title) in enumerate(AXES.values()):
        parts += _scatter(table, truth, metric, title, left=50 + i * 335, top=40)
    return "\n".join([*parts, "</svg>\n"])


def _scatter(table: Arms, truth: str, metric: str, title: str, *, left: float, top: float) -> Iterator[str]:
    xs, ys = ([of[f"{who} {name}"] for of in table.values()] for who, name in (("oracle", truth), ("vez", metric)))
    at_x, at_y = _axis(xs, left, SIDE), _axis(ys, top + SIDE, -SIDE)
    yield f'<text x="{left}" y="{top - 14}" font-size="14" fill="{INK}">{escape(title)}</text>'
    yield f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{MUTED}"/>'
    for place, values in (("x", xs), ("y", ys)):
        for value in (min(values), max(values)):
            x, y = (at_x(value), top + SIDE + 16) if place == "x" else (left - 4, at_y(value) + 4)
            anchor = "middle" if place == "x" else "end"
            where = f'x="{x:.0f}" y="{y:.0f}" font-size="11" fill="{MUTED}" text-anchor="{anchor}"'
            yield f"<text {where}>{value:.2f}</text>"
    rho = f"the oracle → · ρ = {rank(table, truth, metric):.2f}"
    yield f'<text x="{left}" y="{top + SIDE + 36}" font-size="12" fill="{INK}">{rho}</text>'
    for arm, x, y in zip(table, xs, ys, strict=True):
        px, py = at_x(x), at_y(y)
        side, anchor = (6, "start") if px < left + SIDE * 0.7 else (-6, "end")
        yield f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{DOT}" fill-opacity="0.7"/>'
        yield (f'<text x="{px + side:.1f}" y="{py + 3:.1f}" font-size="9" fill="{INK}" text-anchor="{anchor}">'
               f"{escape(arm)}</text>")  # fmt: skip


def _axis(values: Sequence[float], start: float, length: float) -> Callable[[float], float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0

    def place(value: float) -> float:
        return start + length * (value - low + margin) / (high - low + 2 * margin)

    return place
