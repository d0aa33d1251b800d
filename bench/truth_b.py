"""Truth test, level B: do the metrics see what fake generators get wrong, and nothing else?

No diffusion here: the drawn world itself plays the base and 22 "LoRAs", each right but for one planted fault
(bench/truth_world.py), and tiny's CLIP looks. `python bench/truth_b.py` draws the suite's standard profile for each
(about three minutes of one core) and prints the tables; `--write docs/truth.md` puts them into the page.
tests/truth/test_fakes.py does it in small.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from truth_world import DOSES, scored
from vez.metrics.equivalence import tost
from vez.metrics.layout import Cells
from vez.metrics.limits import TINY
from vez.metrics.rules import RULES, declared, gated, guarded
from vez.metrics.stats import compare, prompt_means, t_interval
from vez.metrics.summary import Values

BEGIN, END = "<!-- level B: made by bench/truth_b.py -->", "<!-- end of level B -->"


@dataclass(frozen=True)
class Row:
    """One thing that was asked of a metric."""

    fake: str
    metric: str
    asked: str
    found: str
    right: bool


def mean(values: Mapping[str, Values], metric: str, fake: str) -> float:
    """An arm's mean over prompts."""
    return float(np.mean(list(prompt_means(values[metric][fake]).values())))


def told(values: Mapping[str, Values]) -> Iterator[Row]:
    """Every sign of the table, tested at 0.05 with prompts as units."""
    for fake, metric, sign, other in SIGNS:
        if {fake, other} <= values.get(metric, {}).keys():
            found = compare(values[metric][fake], values[metric][other])
            ok = sign * found.diff > 0 and found.p < 0.05
            asked = f"{'above' if sign > 0 else 'below'} “{other}”"
            yield Row(fake, metric, asked, f"{found.diff:+.3f}, p = {found.p:.4f}", ok)
    for fake, metric, low, high in SPANS:
        if fake in values.get(metric, {}):
            found = mean(values, metric, fake)
            yield Row(fake, metric, f"{low:g} to {high:g}", f"{found:.3f}", low <= found <= high)
    for fake, metric, other, (one, two), share in SAME:
        if {fake, other, one, two} <= values.get(metric, {}).keys():
            found = compare(values[metric][fake], values[metric][other])
            margin = share * abs(mean(values, metric, one) - mean(values, metric, two))
            same = tost(found.diff, found.sd, found.n_prompts, margin=margin, higher_is_better=True)
            both = metric in ("foreground", "similarity")
            asked = f"as “{other}”" if both else f"not below “{other}”"
            told = f"{found.diff:+.3f}, margin {margin:.2f}"
            yield Row(fake, metric, asked, told, same is not None and (same.equivalent if both else same.not_worse))


SIGNS = [
    ("right", "similarity", 1, "base"),
    ("right", "foreground", 1, "base"),
    ("right", "gallery", 1, "look-alike 100 %"),
    ("right", "trigger_effect", 1, "base"),
    ("training copies", "similarity_seen", 1, "base"),
    ("training copies", "overfit", 1, "right"),
    ("training copies", "nearest_training", 1, "right"),
    ("training copies", "T2", -1, "right"),
    ("one place", "T2", -1, "right"),
    ("one place", "diversity", -1, "right"),
    ("one picture", "similarity", 1, "base"),
    ("one picture", "T2", -1, "right"),
    ("one picture", "diversity", -1, "right"),
    ("look-alike 100 %", "similarity", -1, "right"),
    ("look-alike 100 %", "foreground", -1, "right"),
    ("look-alike 100 %", "gallery", -1, "right"),
    ("unasked 100 %", "leak", 1, "right"),
    ("unasked 100 %", "trigger_effect", -1, "right"),
    ("colour cast 100 %", "colour_drift", 1, "right"),
    ("colour cast 100 %", "drift", 1, "right"),
    ("noise", "T2", -1, "base"),
    ("grey", "T2", -1, "base"),
    ("other prompts", "T2", -1, "right"),
]
"""(fake, metric, +1 above or -1 below, than which)."""

SPANS = [
    ("right", "similarity", 0.8, 1.3),
    ("right", "copies", 0, 0),
    ("training copies", "copies", 1, 1),
    ("training copies", "copying", 0.95, 1),
    ("class only", "similarity", -0.15, 0.15),
    ("class only", "trigger_effect", -0.15, 0.15),
    ("class only", "copies", 0, 0),
    ("right", "repeats", 0, 0.15),
    ("training copies", "repeats", 0.5, 1),
    ("one picture", "repeats", 0.95, 1),
    ("class only", "repeats", 0, 0.15),
    ("one place", "copies", 0, 0),
    ("look-alike 100 %", "copies", 0, 0),
    ("unasked 0 %", "leak", -0.02, 0.02),
    ("unasked 100 %", "trigger_effect", -0.1, 0.1),
    ("noise", "similarity", -9, 0),
    ("noise", "copies", 0, 0),
    ("grey", "similarity", -9, 0),
    ("grey", "copies", 0, 0),
    ("grey", "flat", 1, 1),
]
"""(fake, metric, least, most) of the mean."""

SAME = [
    ("right", "T2", "base", ("base", "noise"), 0.1),
    ("class only", "T2", "base", ("base", "noise"), 0.1),
    ("look-alike 100 %", "T2", "right", ("base", "noise"), 0.1),
    ("one place", "foreground", "right", ("right", "look-alike 100 %"), 0.5),
    ("class only", "diversity", "base", ("base", "grey"), 0.4),
    ("other prompts", "similarity", "right", ("right", "look-alike 100 %"), 0.5),
]
"""(fake, metric, as which, two that lie apart, share of their distance that is the margin): shown not to be less, and
for likeness, which an overfit LoRA must not gain by either, not to be more."""

DOSED = {
    "look-alike": {"similarity": -1, "foreground": -1, "gallery": -1},
    "unasked": {"leak": 1, "trigger_effect": -1},
    "colour cast": {"colour_drift": 1, "drift": 1},
}
"""Family → metric → which way it goes with the dose."""


def dosed(values: Mapping[str, Values]) -> Iterator[Row]:
    """Dose and response: rank correlation over the doses, and how surely a set tells the largest from none."""
    for family, of in DOSED.items():
        for metric, sign in of.items():
            arms = [f"{family} {dose} %" for dose in DOSES]
            if all(arm in values.get(metric, {}) for arm in arms):
                means = [mean(values, metric, arm) for arm in arms]
                rho = sign * float(spearmanr(DOSES, means).statistic)
                area = detection(values[metric][arms[-1]], values[metric][arms[0]], sign)
                shown = " · ".join(f"{value:.2f}" for value in means)
                yield Row(family, metric, "ρ ≥ .9, AUC ≥ .95", f"{shown}; ρ = {rho:.2f}, AUC = {area:.3f}",
                          rho >= 0.9 and area >= 0.95)  # fmt: skip


def detection(faulty: Cells, sound: Cells, sign: int) -> float:
    """Chance that a set drawn with the fault lies on the wrong side of one drawn without: the area under the ROC.

    A set is all prompts with one noise each.
    """
    a, b = _sets(faulty), _sets(sound)
    return float((np.sign(sign * (a[:, None] - b[None, :])) + 1).mean() / 2)


def _sets(cells: Cells) -> NDArray[np.float64]:
    """Means of the sets that an arm's pictures are, one for each noise."""
    of_noise: dict[int, list[float]] = {}
    for (_, seed), value in cells.items():
        of_noise.setdefault(seed, []).append(value)
    return np.array([np.mean(of) for of in of_noise.values()])


BY_TINY = declared(RULES, clip=TINY, judge=TINY)
"""The rules with the limits that hold for tiny's CLIP, which looks here."""
GATED = [name for name, rule in BY_TINY.items() if rule.gate is not None or rule.guard]
MAY_FAIL: dict[str, set[str]] = {
    "training copies": {"copies", "copying", "repeats", "T2", "diversity"},
    "class only": {"similarity", "trigger_effect"},
    "one place": {"T2", "diversity"},
    "look-alike": {"similarity"},
    "one picture": {"T2", "diversity", "copying", "copies", "repeats"},
    "unasked": {"leak", "trigger_effect"},
    "colour cast": {"drift", "T2", "unrelated"},
    "noise": {"similarity", "trigger_effect", "T2", "unrelated", "drift", "diversity"},
    "grey": {"similarity", "trigger_effect", "T2", "unrelated", "drift", "diversity", "flat"},
    "other prompts": {"T2"},
}
"""Which gates a fault may break; one that any other breaks is a false alarm."""


def gates(values: Mapping[str, Values], fake: str) -> dict[str, str]:
    """Metric → passed, failed or not shown, as vez's verdict would have it for that arm."""
    found = {}
    for metric in (name for name in GATED if fake in values.get(name, {})):
        rule, words = BY_TINY[metric], []
        if rule.gate is not None:
            words.append(gated(rule.gate, t_interval(list(prompt_means(values[metric][fake]).values()))))
        if rule.guard and rule.margin is not None:
            by = compare(values[metric][fake], values[metric]["base"])
            same = tost(by.diff, by.sd, by.n_prompts, margin=rule.margin, higher_is_better=rule.higher_is_better)
            words.append(guarded(same, higher_is_better=rule.higher_is_better))
        found[metric] = next((word for word in ("failed", "not shown") if word in words), "passed")
    return found


def alarms(values: Mapping[str, Values]) -> Iterator[tuple[str, dict[str, str], set[str]]]:
    """(fake, its gates, the false alarms among them)."""
    for fake in values["T2"]:
        if fake != "base":
            found = gates(values, fake)
            may = next((of for name, of in MAY_FAIL.items() if fake.startswith(name)), set())
            may = set() if fake.endswith(" 0 %") else may
            yield fake, found, {metric for metric, word in found.items() if word == "failed"} - may


SIGN = {"passed": "", "failed": " ✗", "not shown": " ?"}


def page(values: Mapping[str, Values]) -> str:
    """The section of the page."""
    parts = [BEGIN, "", "**Signs**", "", *_table(told(values)), "", "**Dose and response**", "", *_table(dosed(values))]
    parts += ["", "**Gates: which of them each fault breaks**", "", "| | " + " | ".join(GATED) + " | false alarms |",
              "|---|" + "---|" * (len(GATED) + 1)]  # fmt: skip
    for fake, found, false in alarms(values):
        cells = [f"{mean(values, m, fake):.2f}{SIGN[found[m]]}" if m in found else "" for m in GATED]
        parts.append(f"| {fake} | " + " | ".join(cells) + f" | {', '.join(sorted(false)) or 'none'} |")
    return "\n".join([*parts, "", END])


def _table(rows: Iterable[Row]) -> list[str]:
    body = [f"| {r.fake} | {r.metric} | {r.asked} | {r.found} | {'yes' if r.right else '**no**'} |" for r in rows]
    return ["| fake | metric | asked | found | |", "|---|---|---|---|---|", *body]


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        text = page(scored(Path(folder)))
    if write is None:
        print(text)
        return
    old = write.read_text(encoding="utf-8")
    write.write_text(old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :], encoding="utf-8")


if __name__ == "__main__":
    main()
