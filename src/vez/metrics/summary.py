"""From one number per picture to what may be said of an arm and of a setting: the tables of summary.json. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from vez.metrics import stats
from vez.metrics.claims import Claim, Key, adjust, claims, is_primary
from vez.metrics.confirmation import apart, confirm, select
from vez.metrics.layout import Cells
from vez.metrics.replicates import Replicates, replicate
from vez.metrics.rules import Rule, excused, gated, guarded

Values = Mapping[str, Cells]
"""arm → (prompt, seed) → value, of one metric."""

Settings = Mapping[str, tuple[str, int]]
"""arm → the setting it was trained with, and its training seed."""

EXPLAINED = {
    "low, high": "95 % Student interval over prompts (a prompt's seeds are averaged first), not adjusted for many arms",
    "p": "two-sided sign-flip test over prompts, exact up to 16 prompts",
    "smallest_p": "the least p that this many prompts can give at all",
    "family": "primary: declared before anything was drawn (of a sweep, each run's end at the strength nearest 1), "
    "while looks are left that were planned; exploratory: all else, to be seen again to be believed",
    "p_holm": "p adjusted by Holm over the comparisons of the same primary metric in the same table, times 0.05 over "
    "the error that is left for this look; the verdict goes by it",
    "p_bh": "p adjusted by Benjamini and Hochberg over all exploratory comparisons of the table; the verdict goes by "
    "it",
    "mde": "the true difference that would be found 4 times in 5, for a primary metric at the error of this look "
    "divided by the number of comparisons, else at 0.05; null where so few prompts can never give so small a p",
    "mde_more_seeds": "what mde would come down to with the same prompts and any number of seeds; null where no "
    "prompt has two",
    "sd": "of the prompts' differences; sd_prompts of that which stays with any number of seeds, sd_seeds of one seed",
    "needs_prompts": "prompts that would find, 4 times in 5, a true difference as large as the one seen, seeds as they "
    "are; null where something was found, nothing was seen, or it would be more than 10,000",
    "noise_correlation": "how alike the same noise makes the two arms: Pearson's r within prompts; what pairing brings",
    "correlation": "how alike prompts rank in the two arms: Pearson's r of their prompt means",
    "missing, lost": "pictures that one arm lacks and prompts without any pair: left out of the comparison",
    "equivalence": "two one-sided t tests at 0.05 against the metric's margin; equivalent: shown to differ by less; "
    "not_worse: shown to lose less",
    "verdict": "better, worse, equivalent (not found different, and shown to differ by less than the margin), "
    "not distinguishable",
    "gates": "passed: the whole interval keeps the limit; failed: none of it does; not shown: it lies on both sides, "
    "or no LoRA breaks a guess of a limit by as much (trigger_effect, specificity)",
    "settings": "weights: 95 % interval over prompts, for the LoRAs that were trained; setting: over training seeds "
    "too, for LoRAs trained the same way; training_sd: how far the training seed alone moves the mean",
    "selection": "selected is the mean of the best arm on the pictures that chose it: biased. expected_bias: by how "
    "much the best of so many equals beats its truth; spread_of_equals: best minus worst of them, both on average",
    "looks": "how often the primary comparisons of these LoRAs were read, as pictures were added, and of how many "
    "planned times; alpha: what of 0.05 is left for this look; asked: what vez.toml says, where that is not the plan "
    "of the first look; confirmation: the same of the prompts that confirm",
    "confirmation": "the tables again, for prompts that had no say in the choice: these numbers are the ones to report",
}


def summarise(
    values: Mapping[str, Values],
    *,
    rules: Mapping[str, Rule],
    base: str | None,
    settings: Settings | None = None,
    confirming: Collection[str] = (),
    explored: Collection[str] = (),
    alpha: float = stats.ALPHA,
    alpha_confirming: float = stats.ALPHA,
) -> dict[str, Any]:
    """The tables of summary.json that compare arms.

    Args:
        values: metric → arm → (prompt, seed) → value.
        rules: metric → how it is judged.
        base: the arm without a LoRA, or None. A metric that has no values for it is not compared with it.
        settings: which arms are the same setting trained with other seeds; None where nobody knows.
        confirming: prompts kept for confirmation. All tables but the one called so are made without them.
        explored: arms that nobody declared (a sweep's earlier checkpoints, its other strengths): their comparisons are
            exploratory, but for those of the confirmation; two of which one is explored, by primary metrics alone.
        alpha: what of 0.05 this look at the primary comparisons may spend (`vez.metrics.looks`): 0 makes them
            exploratory.
        alpha_confirming: the same of the confirmation.
    Returns:
        arms: arm → metric → {mean, low, high, n_prompts, n_images}; against_base: arm → metric → difference;
        pairs: first arm → second arm → metric → difference (first minus second); gates: arm → metric → gate → word;
        settings: setting → metric → replicates against the base; setting_pairs: setting → setting → metric → the same;
        selection: metric → the best arm and its bias; confirmation: arms, against_base and pairs on the prompts kept
        for it, chosen: metric → the arm that the other prompts chose, with both its means, and prompts; empty without
        such;
        explored: the arms given as such.
    Raises:
        ValueError: a value is infinite.
    """
    parts = {
        metric: {arm: apart(cells, confirming) for arm, cells in of_arm.items()} for metric, of_arm in values.items()
    }
    choosing = {m: {arm: cells for arm, (cells, _) in of.items() if cells} for m, of in parts.items()}
    kept = {m: {arm: cells for arm, (_, cells) in of.items() if cells} for m, of in parts.items()}
    against, pairs = _compared(choosing, rules, base, explored, alpha)
    confirmed = {}
    if any(kept.values()):
        confirmed = _tables(kept, *_compared(kept, rules, base, (), alpha_confirming))
        confirmed |= {"chosen": _chosen(choosing, kept, rules, base), "prompts": sorted(confirming)}
    return {
        **_tables(choosing, against, pairs),
        "gates": _gates(choosing, against, rules, base),
        **_settings(choosing, rules, base, settings or {}, explored, alpha),
        "selection": _selection(choosing, rules, base),
        "confirmation": confirmed,
        "explored": sorted(explored),
    }


def _tables(values: Mapping[str, Values], against: Mapping[Key, Claim], pairs: Mapping[Key, Claim]) -> dict[str, Any]:
    means = {(arm, metric): _mean(cells) for metric, of_arm in values.items() for arm, cells in of_arm.items()}
    return {
        "arms": _by_arm(means),
        "against_base": _by_arm({(arm, metric): claim.record() for (metric, arm, _), claim in against.items()}),
        "pairs": _by_pair({key: claim.record() for key, claim in pairs.items()}),
    }


def _mean(cells: Cells) -> dict[str, Any]:
    interval = stats.t_interval(list(stats.prompt_means(cells).values()))
    told = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return told | {"n_prompts": interval.n, "n_images": len(cells)}


def _loras(of_arm: Values, base: str | None) -> list[str]:
    return [arm for arm in of_arm if arm != base]


def _compared(
    values: Mapping[str, Values],
    rules: Mapping[str, Rule],
    base: str | None,
    explored: Collection[str],
    alpha: float,
) -> tuple[dict[Key, Claim], dict[Key, Claim]]:
    """Every LoRA against the base, and every two LoRAs; what shares no prompt falls out."""
    against: dict[Key, tuple[Cells, Cells]] = {}
    pairs: dict[Key, tuple[Cells, Cells]] = {}
    for metric, of_arm in values.items():
        loras = _loras(of_arm, base)
        if base is not None and base in of_arm:
            against |= {(metric, arm, base): (of_arm[arm], of_arm[base]) for arm in loras}
        for i, one in enumerate(loras):
            for other in loras[i + 1 :]:
                if rules[metric].primary or not (one in explored or other in explored):
                    pairs[metric, one, other] = (of_arm[one], of_arm[other])
    return _claims(against, rules, explored, alpha), _claims(pairs, rules, explored, alpha)


def _claims(
    pairs: Mapping[Key, tuple[Cells, Cells]], rules: Mapping[str, Rule], explored: Collection[str], alpha: float
) -> dict[Key, Claim]:
    found = {key: stats.compare(a, b) for key, (a, b) in pairs.items() if a.keys() & b.keys()}
    return claims(found, rules, explored=explored, alpha=alpha)


def _gates(
    values: Mapping[str, Values], against: Mapping[Key, Claim], rules: Mapping[str, Rule], base: str | None
) -> dict[str, dict[str, Any]]:
    """For each LoRA and metric with a limit, whether the limit is shown to be kept."""
    found: dict[tuple[str, str], Any] = {}
    for metric, of_arm in values.items():
        rule = rules[metric]
        for arm in _loras(of_arm, base):
            claim = None if base is None else against.get((metric, arm, base))
            if rule.gate is not None:
                interval = stats.t_interval(list(stats.prompt_means(of_arm[arm]).values()))
                word = gated(rule.gate, interval)
                than_base = None if claim is None else claim.comparison
                if word == "failed" and excused(metric, rule.gate, than_base):
                    word = "not shown"
                found.setdefault((arm, metric), {})["limit"] = asdict(rule.gate) | {"word": word}
            if rule.guard and rule.margin is not None and claim is not None:
                word = guarded(claim.equivalence, higher_is_better=rule.higher_is_better)
                told = {"margin": rule.margin, "calibrated": rule.calibrated, "word": word}
                found.setdefault((arm, metric), {})["not_worse"] = told
    return _by_arm(found)


def _settings(
    values: Mapping[str, Values],
    rules: Mapping[str, Rule],
    base: str | None,
    settings: Settings,
    explored: Collection[str],
    alpha: float,
) -> dict[str, Any]:
    """What may be said of settings, over their training seeds."""
    against: dict[Key, Replicates] = {}
    between: dict[Key, Replicates] = {}
    for metric, of_arm in values.items():
        trained: dict[str, dict[int, Cells]] = {}
        for arm in _loras(of_arm, base):
            if arm in settings:
                setting, seed = settings[arm]
                trained.setdefault(setting, {})[seed] = of_arm[arm]
        names = list(trained)
        for i, one in enumerate(names):
            if base is not None and base in of_arm:
                _replicated(against, (metric, one, base), [(cells, of_arm[base]) for cells in trained[one].values()])
            for other in names[i + 1 :]:
                shared = [(cells, trained[other][s]) for s, cells in trained[one].items() if s in trained[other]]
                _replicated(between, (metric, one, other), shared)
    aside = {settings[arm][0] for arm in explored if arm in settings}
    return {
        "settings": _by_arm(
            {(one, metric): told for (metric, one, _), told in _told(against, rules, aside, alpha).items()}
        ),
        "setting_pairs": _by_pair(_told(between, rules, aside, alpha)),
    }


def _replicated(into: dict[Key, Replicates], key: Key, pairs: list[tuple[Cells, Cells]]) -> None:
    if pairs and set.intersection(*({cell for cell in a if cell in b} for a, b in pairs)):
        into[key] = replicate(pairs)


def _told(
    found: Mapping[Key, Replicates], rules: Mapping[str, Rule], explored: Collection[str], alpha: float
) -> dict[Key, dict[str, Any]]:
    p_values = {key: of.p for key, of in found.items() if of.p is not None}
    adjusted = adjust(p_values, rules, explored=explored, alpha=alpha)
    told = {}
    for key, of in found.items():
        rule = rules[key[0]]
        word = "not measured"
        if of.setting is not None:
            word = stats.verdict(of.setting.mean, adjusted[key], higher_is_better=rule.higher_is_better)
        by_holm = is_primary(key, rules, explored=explored, alpha=alpha)
        adjustment = {"p_holm" if by_holm else "p_bh": adjusted.get(key)}
        told[key] = asdict(of) | adjustment | {"verdict": word}
    return told


def _selection(values: Mapping[str, Values], rules: Mapping[str, Rule], base: str | None) -> dict[str, Any]:
    """The best LoRA by each primary metric; nothing where there is no choice."""
    found = {}
    for metric, of_arm in values.items():
        loras = {arm: of_arm[arm] for arm in _loras(of_arm, base)}
        if rules[metric].primary and len(loras) > 1:
            found[metric] = asdict(select(loras, higher_is_better=rules[metric].higher_is_better))
    return found


def _chosen(
    values: Mapping[str, Values], kept: Mapping[str, Values], rules: Mapping[str, Rule], base: str | None
) -> dict[str, Any]:
    """The LoRA that each primary metric chose, and what it scores on the prompts that did not choose it."""
    found = {}
    for metric, confirming in kept.items():
        higher = rules[metric].higher_is_better
        loras = {arm: values[metric][arm] for arm in _loras(values[metric], base)}
        if rules[metric].primary and loras and select(loras, higher_is_better=higher).chosen in confirming:
            found[metric] = asdict(confirm(loras, confirming, higher_is_better=higher))
    return found


def _by_arm(rows: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for (arm, metric), row in rows.items():
        table.setdefault(arm, {})[metric] = row
    return table


def _by_pair(rows: Mapping[Key, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for (metric, one, other), row in rows.items():
        table.setdefault(one, {}).setdefault(other, {})[metric] = row
    return table
