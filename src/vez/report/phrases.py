"""Numbers and differences as a sentence holds them: true signs, intervals, the p that a word goes by, and what n is."""

from collections.abc import Mapping, Sequence

from vez.report.scored import Difference, Score

NAMES: Mapping[str, str] = {
    "similarity": "similarity to held-out pictures",
    "similarity_clip": "similarity as CLIP sees it",
    "similarity_seen": "similarity to the pictures trained on",
    "similarity_composition": "similarity in other compositions",
    "similarity_own": "similarity on your own prompts",
    "foreground": "similarity of the foreground",
    "gallery": "nearer to the concept than to look-alikes",
    "T0": "the literal prompt (T0)",
    "T1": "the describing words (T1)",
    "T2": "the rest of the prompt (T2)",
    "T3": "the words for look-alikes (T3)",
    "trigger_effect": "what the trigger word does",
    "specificity": "what a wrong trigger word does",
    "leak": "the concept where nobody asked for it",
    "unrelated": "unrelated prompts",
    "drift": "how far unrelated pictures moved",
    "nearest_training": "nearest training picture",
    "copying": "share nearer to training pictures than they are to each other",
    "copies": "share of copied pictures",
    "repeats": "share of pictures drawn more than once",
    "diversity": "variety of a prompt’s pictures",
    "flat": "share of flat or black pictures",
}
"""What a metric is called in a sentence; any other by its id."""


def name_of(metric: str) -> str:
    """A metric's name in a sentence."""
    return NAMES.get(metric, metric.replace("_", " "))


def capital(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]


def listed(arms: Sequence[str]) -> str:
    """a, b and c."""
    return arms[0] if len(arms) == 1 else f"{', '.join(arms[:-1])} and {arms[-1]}"


def signed(value: float) -> str:
    """A difference with its sign: +0.012, −0.004, 0.000."""
    text = f"{value:+.3f}"
    return "0.000" if text[1:] == "0.000" else text.replace("-", "−")


def plain(value: float) -> str:
    """A score: three decimals and a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """An interval in words; says so where there is none."""
    if low is None or high is None:
        return "no interval: one prompt has no spread"
    write = signed if sign else plain
    return f"{write(low)} to {write(high)}"


def adjusted_p(difference: Difference) -> float | None:
    """The p that the word goes by."""
    return next((p for p in (difference.p_holm, difference.p_bh, difference.p) if p is not None), None)


def told(difference: Difference) -> str:
    """A difference, its 95 % interval and its p in one phrase."""
    p = adjusted_p(difference)
    adjusted = " after Holm" if difference.p_holm is not None else ""
    if difference.p_holm is None and difference.p_bh is not None:
        adjusted = " after Benjamini–Hochberg, exploratory"
    tail = "" if p is None else f", p {probability(p)}{adjusted}"
    return f"{signed(difference.diff)}, 95 % interval {interval(difference.low, difference.high, sign=True)}{tail}"


def counted(score: Score) -> str:
    """n: prompts × pictures of each, or both counts where the seeds are uneven."""
    if score.n_prompts and score.n_images % score.n_prompts == 0:
        return f"{score.n_prompts} prompts × {score.n_images // score.n_prompts} seeds"
    return f"{score.n_prompts} prompts, {score.n_images} pictures"


def probability(p: float) -> str:
    """= 0.021, or < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def unseen(difference: Difference) -> str:
    """What a "not distinguishable" could have overlooked, and how many prompts it lacked; "" for other words."""
    if difference.verdict != "not distinguishable":
        return ""
    if difference.mde is None:
        return "; with so few prompts no difference, however large, could have been found"
    asked = ""
    if difference.needs_prompts is not None:
        asked = f", one like this would need n = {difference.needs_prompts} prompts"
    return f"; a true difference under {plain(difference.mde)} would often be missed{asked}"


def beside(word: str) -> str:
    """The word with its preposition."""
    joined = {"not distinguishable": "not distinguishable from", "equivalent": "equivalent to"}
    return joined.get(word, f"{word} than")
