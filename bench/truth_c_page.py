"""The page of bench/truth_c.py: what was asked, what came out, the limits that follow, tables of LoRAs, the plots."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from scipy.stats import spearmanr

import truth_c_halves
from truth_c_read import AXES, Arms
from vez.metrics.limits import LIMITS, TINY
from vez.metrics.rules import RULES

BEGIN, END = "<!-- level C: made by bench/truth_c.py -->", "<!-- end of level C -->"
PLOT = "truth-c.svg"
ENOUGH = 0.8
"""Rank correlation that is asked for."""
SETS = {"first": "the 16", "check": "the check", "doses": "the doses", "contexts": "the contexts",
        "spread": "the spread", "crossed": "the crossed"}  # fmt: skip
"""The LoRAs that were looked at while metrics and limits were changed, and five sets that were scored once."""
TITLES = {
    "F": "Is the costume there? (similarity)",
    "P": "Is the rest as asked? (T2 less the base's)",
    "LK": "Does it come unasked? (leak)",
}
ALSO = {"TE": ("effect", "trigger_effect"), "overfit": ("gap", "overfit"), "drift": ("strayed", "drift")}
"""Rank correlations that are told and not asked for."""
JUDGED = {
    "similarity": ("concept", 0.5, "above"),
    "leak": ("leak", 0.1, "below"),
    "T2": ("context", -0.1, "above"),
    "drift": ("strayed", 0.1, "below"),
    "unrelated": ("strayed", 0.1, "below"),
}
"""Metric with a limit → what the oracle says, where the oracle itself draws the line, which side is right."""
RIGHT = {"similarity": "has the costume", "leak": "has it unasked", "T2": "has place and weather as asked"}


@dataclass(frozen=True)
class Asked:
    """One thing asked of level C: what came out, in words, and whether it is right; None: told, not asked."""

    what: str
    found: str
    asked: str
    right: bool | None


def rank(table: Arms, truth: str, metric: str) -> float:
    """Spearman's correlation over the LoRAs."""
    pairs = [(of[f"oracle {truth}"], of[f"vez {metric}"]) for of in table.values() if f"vez {metric}" in of]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def results(data: Mapping[str, Any], name: str) -> Iterator[Asked]:
    """What level C asks of one set of LoRAs, from the committed numbers."""
    part = data[name]
    table: Arms = part["arms"]
    for short, (truth, metric) in AXES.items():
        rho, most = rank(table, truth, metric), part["halves"][metric]["ceiling"]
        what = f"{short}: {metric} against the oracle, {len(table)} LoRAs"
        yield Asked(what, f"ρ = {rho:.2f}", f"≥ {ENOUGH} (expected at most about {most:.2f})", rho >= ENOUGH)
    apart = data["apart"].get(name, [])
    same = {arm: of for arm, of in table.items() if arm not in apart}
    for short, (truth, metric) in AXES.items() if apart else ():
        what = f"{short}: the same without {', '.join(apart)}, which has another trigger and so another base"
        yield Asked(what, f"ρ = {rank(same, truth, metric):.2f}", "", None)
    for short, (truth, metric) in ALSO.items():
        if any(f"vez {metric}" in of for of in table.values()):
            by = "the memorisation gap" if truth == "gap" else f"the oracle's {truth}"
            yield Asked(f"{short}: {metric} against {by}", f"ρ = {rank(table, truth, metric):.2f}", "", None)
    for metric, of in part["pictures"].items():
        what = f"picture by picture: {metric} where a picture {RIGHT[metric]} ({of['right']}) against where not"
        yield Asked(f"{what} ({of['wrong']})", f"AUC {of['auc']:.2f}", "", None)
    if name in data["copies"]:
        copies = data["copies"][name]
        shown = " < ".join(f"{gap:.2f}" for gap in copies.values())
        what = f"memorisation gap of {', '.join(copies)}, equally long"
        yield Asked(what, shown, "rising", list(copies.values()) == sorted(copies.values()))
    chosen = part["checkpoint"]
    grid, best, named = chosen["grid"], chosen["oracle chooses"], chosen["vez chooses"]
    apart_by = abs(grid.index(best) - grid.index(named)) if named in grid else None
    what = f"checkpoint of {', '.join(map(str, grid))} steps: the oracle's is {best}"
    right = apart_by is not None and apart_by <= 1
    yield Asked(what, f"vez names {named or 'none'}", "at most one step of the grid apart", right)


def limits(data: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Metric, what the oracle asks, where the 16 would put the limit, the program's, and whom it misjudges."""
    for metric, (truth, at, keep) in JUDGED.items():
        both = [sides(data[name]["arms"], metric, truth, at, keep) for name in SETS]
        best = truth_c_halves.line(*both[0], keep="above" if RULES[metric].higher_is_better else "below")
        told = (misjudged(*of, limit_of(metric), higher=RULES[metric].higher_is_better) for of in both)
        yield [metric, f"{truth} {keep} {at:g}", "" if best is None else f"{best:.2f}", f"{limit_of(metric):g}", *told]


def limit_of(metric: str) -> float:
    """What the program asks by tiny's CLIP: the limit of an arm's mean, or minus the margin of its loss."""
    rule, told = RULES[metric], LIMITS[TINY].get(metric)
    if rule.gate is not None:
        return rule.gate.limit if told is None else told
    return -(told if told is not None else rule.margin or 0.0)


def sides(table: Arms, metric: str, truth: str, at: float, keep: str) -> tuple[list[float], list[float]]:
    """The metric's values of the LoRAs that the oracle lets pass, and of the others."""
    sign = 1 if keep == "above" else -1
    found: tuple[list[float], list[float]] = [], []
    for of in table.values():
        if f"vez {metric}" in of:
            found[sign * (of[f"oracle {truth}"] - at) < 0].append(of[f"vez {metric}"])
    return found


def misjudged(good: Sequence[float], bad: Sequence[float], limit: float, *, higher: bool) -> str:
    """Of those that the oracle lets pass how many the limit stops, and of the others how many it lets pass."""
    if not good and not bad:
        return "not measured"
    sign = 1 if higher else -1
    stopped = sum(sign * (value - limit) < 0 for value in good)
    passed = sum(sign * (value - limit) > 0 for value in bad)
    both = (good, bad) if higher else (bad, good)
    area = f", AUC {truth_c_halves.area(*both):.2f}" if good and bad else ""
    return f"{stopped} of {len(good)} stopped, {passed} of {len(bad)} let pass{area}"


def probes(data: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Whether what needs no picture says what the pictures do: set, pair, rank correlation, signs."""
    pairs = (("binding", "vez trigger_effect"), ("binding", "oracle effect"),
             ("leak", "vez leak"), ("leak", "oracle leak"), ("fell", "oracle leak"))  # fmt: skip
    for name, title in SETS.items():
        for probe, other in pairs:
            both = [(of[f"probe {probe}"], of[other]) for of in data[name]["arms"].values() if f"probe {probe}" in of]
            if len(both) > 2:
                rho = float(spearmanr(*zip(*both, strict=True)).statistic)
                signs = "" if probe != "binding" else f"{sum(a * b > 0 for a, b in both)} of {len(both)}"
                yield [title, WORDS[probe], other, f"{rho:.2f} over {len(both)}", signs]


WORDS = {
    "binding": "binding, gained over the base's",
    "leak": "leak (share of the fall that plain words have)",
    "fell": "fall of the loss with plain words",
}

SHOWN = ("oracle concept", "vez similarity", "oracle context", "vez T2", "oracle leak", "vez leak", "oracle effect",
         "vez trigger_effect", "oracle gap", "vez overfit", "oracle strayed", "vez drift", "vez unrelated",
         "vez diversity", "vez repeats", "vez copying", "oracle whole")  # fmt: skip


def page(data: Mapping[str, Any], what: Mapping[str, Mapping[str, str]]) -> str:
    """The section of the page; ``what`` says of each set what is wrong with each LoRA."""
    words = {True: "yes", False: "**no**", None: "told"}
    parts = [BEGIN]
    for name, title in SETS.items():
        parts += ["", f"**{title[0].upper()}{title[1:]}**", "", "| | found | asked | |", "|---|---|---|---|"]
        parts += [f"| {row.what} | {row.found} | {row.asked} | {words[row.right]} |" for row in results(data, name)]
    parts += ["", f"![Each LoRA as the oracle and as vez sees it, for concept, context and leak]({PLOT})", ""]
    parts += ["**Limits for tiny's CLIP**", ""]
    parts += _table(
        ("metric", "the oracle asks", "the 16 alone would say", "the program's", *SETS.values()), limits(data)
    )
    if told := list(probes(data)):
        parts += ["", "**Probes, which draw nothing, against what was drawn**", ""]
        parts += _table(("LoRAs", "probe", "against", "ρ", "same sign"), told)
    for name, title in SETS.items():
        table = data[name]["arms"]
        shown = [column for column in SHOWN if any(column in of for of in table.values())]
        parts += ["", f"**LoRA by LoRA: {title}**", ""]
        rows = (
            [arm, what[name][arm], *(f"{of[c]:.2f}" if c in of else "" for c in shown)] for arm, of in table.items()
        )
        parts += _table(("LoRA", "what is wrong", *shown), rows)
    return "\n".join([*parts, "", END])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


WIDTH, ROW, SIDE = 1020, 370, 270
HEIGHT = 20 + ROW * len(SETS)
INK, MUTED, DOT = "#222222", "#777777", "#1f6feb"


def plot(data: Mapping[str, Any]) -> str:
    """Three scatter plots side by side for each set of LoRAs, as an SVG."""
    label = "; ".join(
        f"{title}, {name}: rank correlation {rank(data[part]['arms'], t, m):.2f}"
        for part, title in SETS.items()
        for name, (t, m) in AXES.items()
    )
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
             f'height="{HEIGHT}" font-family="system-ui, sans-serif" role="img" aria-label="{escape(label)}">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']  # fmt: skip
    for row, (part, title) in enumerate(SETS.items()):
        for i, (name, (truth, metric)) in enumerate(AXES.items()):
            words = f"{title}: {TITLES[name]}"
            parts += _scatter(data[part]["arms"], truth, metric, words, left=50 + i * 335, top=40 + row * ROW)
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
