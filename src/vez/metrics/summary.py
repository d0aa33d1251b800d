"""From one number per picture to what may be said of an arm: intervals, paired differences, verdicts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vez.metrics import stats

Values = Mapping[str, Mapping[tuple[str, int], float]]
"""arm → (prompt, seed) → value, of one metric."""

EXPLAINED = {
    "low, high": "95 % Student interval over prompts (a prompt's seeds are averaged first), not adjusted for many arms",
    "p": "two-sided sign-flip test over prompts, exact up to 16 prompts",
    "p_holm": "p adjusted by Holm over the comparisons of the same metric in the same table; the verdict goes by it",
    "mde": "the true difference that would be found 4 times in 5 at 0.05 divided by the number of comparisons; "
    "null where so few prompts can never give so small a p",
    "smallest_p": "the least p that this many prompts can give at all",
}


def summarise(values: Mapping[str, Values], *, better_high: Mapping[str, bool], base: str | None) -> dict[str, Any]:
    """The tables `arms`, `against_base` and `pairs` of summary.json.

    Args:
        values: metric → arm → (prompt, seed) → value.
        better_high: metric → whether more is better.
        base: the arm without a LoRA, or None. A metric that has no values for it is not compared with it.
    Returns:
        arms: arm → metric → {mean, low, high, n_prompts, n_images}; against_base: arm → metric → difference;
        pairs: first arm → second arm → metric → difference (first minus second).
    """
    tables: dict[str, Any] = {"arms": {}, "against_base": {}, "pairs": {}}
    for metric, of_arm in values.items():
        for arm, scores in of_arm.items():
            interval = stats.t_interval(list(stats.prompt_means(scores).values()))
            told = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            tables["arms"].setdefault(arm, {})[metric] = told | {"n_prompts": interval.n, "n_images": len(scores)}
        loras = [arm for arm in of_arm if arm != base]
        if base is not None and base in of_arm:
            against = _differences(of_arm, [(arm, base) for arm in loras], higher=better_high[metric])
            for (arm, _), difference in against.items():
                tables["against_base"].setdefault(arm, {})[metric] = difference
        couples = [(a, b) for i, a in enumerate(loras) for b in loras[i + 1 :]]
        for (a, b), difference in _differences(of_arm, couples, higher=better_high[metric]).items():
            tables["pairs"].setdefault(a, {}).setdefault(b, {})[metric] = difference
    return tables


def _differences(
    of_arm: Values, couples: Sequence[tuple[str, str]], *, higher: bool
) -> dict[tuple[str, str], dict[str, Any]]:
    """One family of comparisons, first minus second, adjusted together; couples without a common prompt fall out."""
    found = {(a, b): stats.compare(of_arm[a], of_arm[b]) for a, b in couples if of_arm[a].keys() & of_arm[b].keys()}
    adjusted = stats.holm([comparison.p for comparison in found.values()])
    told = {}
    for (couple, comparison), p in zip(found.items(), adjusted, strict=True):
        told[couple] = asdict(comparison) | {
            "p_holm": p,
            "mde": stats.smallest_detectable(comparison.sd, comparison.n_prompts, alpha=stats.ALPHA / len(found)),
            "verdict": stats.verdict(comparison.diff, p, higher_is_better=higher),
        }
    return told
