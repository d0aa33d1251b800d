"""Truth test, level A: does the statistics engine tell the truth where the truth is known?

`python bench/truth_a.py` simulates studies whose right answer it has put in, asks vez.metrics, and prints a table;
`--write docs/truth.md` puts it into the page. tests/truth/test_statistics.py runs the same and holds the page to it.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats as theirs

from vez.metrics import power
from vez.metrics.claims import adjust
from vez.metrics.confirmation import confirm
from vez.metrics.equivalence import tost
from vez.metrics.looks import Look
from vez.metrics.replicates import replicate
from vez.metrics.rules import Rule
from vez.metrics.stats import benjamini_hochberg, compare, sign_flip_p, t_interval

BETWEEN, WITHIN = 0.03, 0.05
"""Sd of a difference of CLIPscores between prompts and between a prompt's seeds (evaluation notes, §1.6)."""

BEGIN, END = "<!-- level A: made by bench/truth_a.py -->", "<!-- end of level A -->"
Cells = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Row:
    """One line of the table: what was asked, what came out, and between which numbers it should lie."""

    what: str
    found: float
    low: float
    high: float
    digits: int = 3

    @property
    def right(self) -> bool:
        """Whether it lies there; printed digits decide where a published number is met."""
        return self.low <= round(self.found, 9) <= self.high


def cells(grid: np.ndarray, *, of: str = "p") -> Cells:
    """(prompts, seeds) → {(prompt, seed): value}."""
    return {(f"{of}{i}", s): float(v) for i, row in enumerate(grid) for s, v in enumerate(row)}


def arm(rng: np.random.Generator, prompts: int, seeds: int, *, shift: float = 0.0) -> np.ndarray:
    """One arm's values (prompts, seeds) apart from what all arms share; the difference of two has the sds above."""
    own = rng.normal(0, BETWEEN, (prompts, 1)) + rng.normal(0, WITHIN, (prompts, seeds))
    return shift + own / math.sqrt(2)


def two_arms(rng: np.random.Generator, prompts: int, seeds: int, *, shift: float = 0.0) -> tuple[Cells, Cells]:
    """Two arms over prompts that differ in difficulty, the first better by `shift`."""
    hard = rng.normal(0.8, 0.05, (prompts, 1))
    return cells(hard + arm(rng, prompts, seeds, shift=shift)), cells(hard + arm(rng, prompts, seeds))


def equal_arms() -> Iterator[Row]:
    """Two equal arms: how often is one called better?"""
    for prompts, seeds, runs in ((8, 4, 1500), (12, 4, 1500), (24, 2, 800)):
        rng = np.random.default_rng(prompts)
        found = [compare(*two_arms(rng, prompts, seeds)).p <= 0.05 for _ in range(runs)]
        yield Row(f"{prompts} prompts × {seeds} seeds: called different", float(np.mean(found)), 0.03, 0.07)


def families() -> Iterator[Row]:
    """Four LoRAs, none better: how often is any called different from no LoRA, or from another?"""
    rng, rules = np.random.default_rng(3), {"F": Rule(True, primary=True)}
    names = ["v1", "v2", "v3", "v4"]
    against, pairs, bare, runs = 0, 0, 0, 800
    for _ in range(runs):
        arms = {name: cells(arm(rng, 12, 2)) for name in ("base", *names)}
        p = {("F", name, "base"): compare(arms[name], arms["base"]).p for name in names}
        bare += min(p.values()) <= 0.05
        against += min(adjust(p, rules).values()) <= 0.05
        p = {("F", a, b): compare(arms[a], arms[b]).p for i, a in enumerate(names) for b in names[i + 1 :]}
        pairs += min(adjust(p, rules).values()) <= 0.05
    yield Row("4 equal LoRAs against no LoRA, Holm: any called different", against / runs, 0.03, 0.07)
    yield Row("the 6 pairs of them, Holm: any called different", pairs / runs, 0.03, 0.07)
    yield Row("for comparison, 4 against no LoRA without Holm (wrong)", bare / runs, 0.10, 0.20)
    share = []
    for _ in range(800):
        truth = np.array([True] * 4 + [False] * 16)
        z = rng.normal(np.where(truth, 3.5, 0.0), 1)
        called = np.array(benjamini_hochberg(list(2 * theirs.norm.sf(np.abs(z))))) <= 0.05
        share.append(float((called & ~truth).sum() / max(1, called.sum())))
    yield Row(
        "20 exploratory comparisons, 4 real: false among those called (Benjamini–Hochberg)", np.mean(share), 0, 0.05
    )


def coverage() -> Iterator[Row]:
    """How often a 95 % interval holds the truth, by the way it is made (evaluation notes, §1.6)."""
    published = {(4, 16): (0.62, 0.80), (8, 8): (0.76, 0.89), (12, 4): (0.86, 0.91), (24, 4): (0.85, 0.92)}
    for (prompts, seeds), (pooled_then, bootstrap_then) in published.items():
        rng, runs = np.random.default_rng(prompts * seeds), 2000
        d = rng.normal(0, BETWEEN, (runs, prompts, 1)) + rng.normal(0, WITHIN, (runs, prompts, seeds))
        means = d.mean(axis=2)
        flat = d.reshape(runs, -1)
        half = theirs.t.ppf(0.975, flat.shape[1] - 1) * flat.std(axis=1, ddof=1) / math.sqrt(flat.shape[1])
        picks = rng.integers(0, prompts, (400, prompts))
        low, high = np.quantile(means[:, picks].mean(axis=2), [0.025, 0.975], axis=1)
        intervals = [t_interval(row) for row in means]
        covered = np.mean([i.low is not None and i.high is not None and i.low <= 0 <= i.high for i in intervals])
        name = f"{prompts} × {seeds}"
        pooled, bootstrap = np.mean(np.abs(flat.mean(axis=1)) <= half), np.mean((low <= 0) & (high >= 0))
        yield Row(
            f"{name}: t over pooled pictures (wrong; published {pooled_then})", pooled, *_near(pooled_then, 0.035)
        )
        yield Row(
            f"{name}: bootstrap of prompts (wrong; published {bootstrap_then})",
            bootstrap,
            *_near(bootstrap_then, 0.035),
        )
        yield Row(f"{name}: t over prompts (vez's interval)", float(covered), 0.93, 0.97)
        kept = float(np.mean([sign_flip_p(row) > 0.05 for row in means]))
        if prompts > 4:
            yield Row(f"{name}: sign flips of prompts (vez's test)", kept, 0.93, 0.97)
        else:
            yield Row(f"{name}: sign flips of prompts (can never reject)", kept, 1, 1)


def _near(value: float, by: float) -> tuple[float, float]:
    return value - by, value + by


def detectable() -> Iterator[Row]:
    """A difference as large as the smallest detectable one: how often is it found?"""
    for prompts, seeds, of, runs in ((8, 4, 1, 800), (8, 4, 4, 800), (12, 4, 1, 800), (12, 4, 4, 800), (24, 4, 1, 500)):
        rng, alpha = np.random.default_rng(prompts + of), 0.05 / of
        delta = power.detectable_by_design(prompts, seeds, between=BETWEEN, within=WITHIN, alpha=alpha)
        found = [compare(*two_arms(rng, prompts, seeds, shift=delta or 0)).p <= alpha for _ in range(runs)]
        among = "" if of == 1 else f", first of {of} comparisons"
        yield Row(
            f"{prompts} × {seeds}{among}: found at the smallest detectable difference", np.mean(found), 0.75, 0.85
        )


def equivalence() -> Iterator[Row]:
    """Showing that there is no harm: wrong claims at the margin, and right ones for equal arms."""
    sd, n, rng = math.sqrt(BETWEEN**2 + WITHIN**2 / 4), 12, np.random.default_rng(8)

    def asked(truth: float, margin: float, runs: int = 2000) -> list[tuple[bool, bool]]:
        found = []
        for d in rng.normal(truth, sd, (runs, n)):
            same = tost(float(d.mean()), float(d.std(ddof=1)), n, margin=margin, higher_is_better=True)
            found.append((same is not None and same.equivalent, same is not None and same.not_worse))
        return found

    share = np.mean(asked(0.0375, 0.0375), axis=0)
    yield Row("truly different by the margin: called equivalent", share[0], 0.03, 0.07)
    share = np.mean(asked(-0.0375, 0.0375), axis=0)
    yield Row("truly worse by the margin: called not worse", share[1], 0.03, 0.07)
    share = np.mean(asked(0.0, 0.0375), axis=0)
    yield Row("equal, margin 0.015 of cosine, 12 × 4: shown not worse (published about 0.94)", share[1], 0.90, 0.96)
    share = np.mean(asked(0.0, 0.025), axis=0)
    yield Row("equal, margin 0.010 of cosine, 12 × 4: shown not worse (published 2 in 3)", share[1], 0.63, 0.70)


def several_looks() -> Iterator[Row]:
    """Pictures are added between looks at the same LoRAs: how often is anything called that is not there, ever?

    The same prompts with more seeds, and twice or three times the prompts: both hold what was read before.
    """
    rules = {"F": Rule(True, primary=True)}
    for of, designs in ((2, ((12, 2), (12, 4))), (2, ((12, 4), (24, 4))), (3, ((12, 2), (12, 4), (24, 4)))):
        rng, runs, looks = (
            np.random.default_rng(100 * of + designs[0][1]),
            1500,
            [Look(k, of) for k in range(1, of + 1)],
        )
        bare, spending = 0, 0
        for _ in range(runs):
            arms = [arm(rng, *designs[-1]) for _ in range(3)]
            nested = [[cells(whole[:p, :s]) for whole in arms] for p, s in designs]
            seen = [{("F", f"v{i}", "base"): compare(one, base).p for i, one in enumerate(v)} for base, *v in nested]
            bare += any(min(adjust(p, rules).values()) <= 0.05 for p in seen)
            called = [min(adjust(p, rules, alpha=look.alpha).values()) for p, look in zip(seen, looks, strict=True)]
            spending += min(called) <= 0.05
        name = f"2 equal LoRAs against no LoRA, {' then '.join(f'{p} × {s}' for p, s in designs)}"
        yield Row(f"{name}: any called different at any of {of} planned looks", spending / runs, 0.02, 0.06)
        yield Row(f"{name}: the same with every look at 5 % (wrong)", bare / runs, 0.065, 0.13)
    sd, rng = math.sqrt(BETWEEN**2 + WITHIN**2 / 4), np.random.default_rng(12)
    harmed = 0
    for d in rng.normal(-0.0375, sd, (2000, 24)):
        found = [tost(float(x.mean()), float(x.std(ddof=1)), x.size, margin=0.0375, higher_is_better=True)
                 for x in (d[:12], d)]  # fmt: skip
        harmed += any(same is not None and same.not_worse for same in found)
    yield Row("truly worse by the margin: called not worse at either of 2 looks (a guard, not adjusted)", harmed / 2000,
              0.06, 0.10)  # fmt: skip


def winners() -> Iterator[Row]:
    """Five equal LoRAs, the best is picked: how far off is its score, in standard errors?"""
    rng, runs = np.random.default_rng(9), 400
    error = math.sqrt((BETWEEN**2 + WITHIN**2 / 4) / 2 / 12)
    selected, confirmed, told = [], [], []
    for _ in range(runs):
        choosing = {f"v{i}": cells(arm(rng, 12, 4)) for i in range(5)}
        later = {f"v{i}": cells(arm(rng, 12, 4), of="g") for i in range(5)}
        found = confirm(choosing, later, higher_is_better=True)
        selected.append(found.selection.selected.mean / error)
        confirmed.append(found.confirmed.mean / error)
        told.append((found.selection.expected_bias or 0) / error)
    yield Row("on the pictures that chose it (biased; published +1.2)", np.mean(selected), 1.05, 1.30)
    yield Row("the bias that vez prints beside it", np.mean(told), 1.05, 1.30)
    yield Row("on other prompts, the number that vez reports", np.mean(confirmed), -0.2, 0.2)
    for k, published in ((20, 1.9), (100, 2.5)):
        yield Row(f"expected for the best of {k} (published +{published})", power.best_of(k), *_near(published, 0.05))


def replicates() -> Iterator[Row]:
    """LoRAs of several training seeds: how often do intervals hold the truth of their *setting*?"""
    rng, runs, prompts = np.random.default_rng(10), 600, 12
    for seeds in (3, 5):
        for training in (0.0, 0.02, 0.05):
            weights, setting = 0, 0
            for _ in range(runs):
                table = rng.normal(0, training, (seeds, 1)) + rng.normal(0, 0.03, (1, prompts))
                table = table + rng.normal(0, 0.03, (seeds, prompts))
                found = replicate([(of := cells(row[:, None]), dict.fromkeys(of, 0.0)) for row in table])
                weights += _holds(found.weights.low, found.weights.high)
                setting += found.setting is not None and _holds(found.setting.low, found.setting.high)
            name = f"{seeds} training seeds, luck of training sd {training}"
            yield Row(f"{name}: interval for the setting", setting / runs, 0.93, 0.97)
            if training:
                yield Row(f"{name}: interval for these weights (wrong for the setting)", weights / runs, 0.30, 0.925)


def _holds(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= 0 <= high


def tables() -> Iterator[Row]:
    """Published numbers that must come out again, to the digit."""
    picture, residual = 0.08, 0.0615  # sd of a CLIPscore over prompts and seeds, and within a prompt (TIFA)
    designs = {
        "unpaired, mixed prompts": (picture * math.sqrt(2), (1005, 365, 235, 112, 26)),
        "unpaired, one prompt set": (residual * math.sqrt(2), (594, 216, 139, 66, 16)),
        "paired by prompt only": (0.085, (568, 206, 133, 64, 15)),
        "paired by seed, r = 0.5": (residual, (297, 108, 70, 33, 8)),
        "paired by seed, r = 0.8": (residual * math.sqrt(0.4), (119, 44, 28, 14, 4)),
    }
    for name, (sd, published) in designs.items():
        for diff, n in zip((0.01, 0.0166, 0.0207, 0.03, 0.0622), published, strict=True):
            # paired by prompt only: the notes' sd .085 is itself rounded
            yield Row(f"n for a difference of {diff}, {name}", power.pictures_needed(diff, sd), *_near(n, 0.5), 0)
    mixed = picture * math.sqrt(2)
    yield Row(
        "n for 0.0166 of 10 pairs (Bonferroni), unpaired",
        power.pictures_needed(0.0166, mixed, alpha=0.005),
        619,
        619,
        0,
    )
    for prompts, seeds, mde in ((8, 4, 0.045), (12, 4, 0.035), (24, 4, 0.023), (24, 8, 0.021), (40, 4, 0.018)):
        found = power.detectable_by_design(prompts, seeds, between=BETWEEN, within=WITHIN)
        yield Row(f"smallest detectable difference at {prompts} × {seeds}", found or 0, *_near(mde, 0.0015), 4)
    endless = power.detectable_by_design(12, math.inf, between=BETWEEN, within=WITHIN)
    yield Row("the same at 12 prompts and endless seeds", endless or 0, *_near(0.027, 0.0015), 4)
    yield Row("votes for a win rate of 0.65", power.votes_needed(0.65), 85, 85, 0)
    yield Row("wins of 60 votes that count", power.wins_needed(60) or 0, 39, 39, 0)
    yield Row("best minus worst of 5 equal variants, in standard errors", power.spread_of_equals(5), 2.315, 2.335)
    yield Row("what that exceeds once in 20 times", power.spread_limit(5), 3.855, 3.865)
    at_four = power.spread_of_equals(5) * residual / 2
    yield Row("best minus worst CLIPscore of 5 equal variants, 4 pictures each", at_four, 0.065, 0.075)


GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "Two equal arms": equal_arms,
    "Many comparisons at once": families,
    "Intervals: how often 95 % holds the truth": coverage,
    "The smallest detectable difference": detectable,
    "No harm": equivalence,
    "Several looks as pictures are added": several_looks,
    "The best of five equals: its score minus the truth, in standard errors": winners,
    "Training seeds": replicates,
    "Published numbers": tables,
}


def line(row: Row) -> str:
    """One row in Markdown."""
    digits = row.digits
    span = f"{row.low:.{digits}f} to {row.high:.{digits}f}" if digits else f"{(row.low + row.high) / 2:.0f}"
    return f"| {row.what} | {row.found:.{digits}f} | {span} | {'yes' if row.right else '**no**'} |"


def page(rows: dict[str, list[Row]]) -> str:
    """The section of the page."""
    parts = [BEGIN]
    for title, of in rows.items():
        parts += ["", f"**{title}**", "", "| | found | asked | |", "|---|---|---|---|", *map(line, of)]
    return "\n".join([*parts, "", END])


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    write = parser.parse_args().write
    text = page({title: list(of()) for title, of in GROUPS.items()})
    if write is None:
        print(text)
        return
    old = write.read_text(encoding="utf-8")
    write.write_text(old[: old.index(BEGIN)] + text + old[old.index(END) + len(END) :], encoding="utf-8")


if __name__ == "__main__":
    main()
