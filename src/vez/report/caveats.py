"""What stands beside a recommendation: is it confirmed, how the best of several flatters, whose seeds it is about."""

from typing import TYPE_CHECKING

from vez.metrics.looks import Look, says, says_of_confirmation, would_follow
from vez.report.contest import Axes, turned_mean
from vez.report.phrases import beside, interval, name_of, plain, signed, told
from vez.report.scored import Scores

if TYPE_CHECKING:
    from vez.report.verdict import Effort

ONE_SAMPLE = (
    "One LoRA per setting is one sample: all this is about these weights, not about their settings. "
    "A claim about a setting needs at least three LoRAs trained with different seeds."
)
UNCALIBRATED = (
    "Uncalibrated: what counts as enough of the concept, or as too much harm to the rest of the prompt, has not been "
    "set against people’s judgement. “Better” means only that a difference was found."
)


def confirmed(scores: Scores, use: str, axes: Axes) -> tuple[str, ...]:
    """What the prompts say that had no say in the choice; nothing where they were not drawn."""
    if scores.confirmed is None or axes.concept not in scores.confirmed.arms.get(use, {}):
        return ()
    score = scores.confirmed.arms[use][axes.concept]
    change = scores.confirmed.against_base.get(use, {}).get(axes.concept)
    said = "" if change is None else f", {beside(change.verdict)} no LoRA ({told(change)})"
    head = (
        f"Confirmed on {score.n_prompts} prompts that had no say in the choice"
        if change is not None and change.verdict == "better"
        else f"The {score.n_prompts} prompts that had no say in the choice do not bear it out"
    )
    later = None if scores.looks is None else scores.looks.confirmation
    drawn_anew = () if later is None else says_of_confirmation(Look(later.look, later.of))
    report = " These are the numbers to report." if not drawn_anew else ""
    return (
        f"{head}: {name_of(axes.concept)} {plain(score.mean)} (95 % interval {interval(score.low, score.high)}){said}."
        f"{report}",
        *drawn_anew,
    )


def looks(scores: Scores) -> tuple[str, ...]:
    """Which look at these LoRAs it is, where more than one was planned or taken."""
    of = scores.looks
    return () if of is None else says(Look(of.look, of.of), asked=of.asked)


def spent(scores: Scores) -> str:
    """That more looks were taken than planned, beside the headline; "" where it is not so."""
    of = scores.looks
    if of is None or of.planned:
        return ""
    return f"But this is look {of.look} where {of.of} {'was' if of.of == 1 else 'were'} planned, so it is exploratory."


def next_look(scores: Scores) -> tuple[str, ...]:
    """The next planned look, as a sentence of what would change the verdict."""
    said = "" if scores.looks is None else would_follow(Look(scores.looks.look, scores.looks.of))
    return (said,) if said else ()


def selected(scores: Scores, use: str, axes: Axes, *, candidates: int) -> list[str]:
    """That the best of several looks better than it is; nothing where there was no choice, or it was confirmed."""
    if candidates < 2 or confirmed(scores, use, axes):
        return []
    of = scores.selection.get(axes.concept)
    luck = ""
    if of is not None and of.expected_bias is not None:
        luck = f" (of {of.candidates} equal ones by {plain(abs(of.expected_bias))} on average)"
    return [
        f"That these scores will repeat: {use} was picked among {candidates} on the same pictures that score it, "
        f"and the best of several looks better than it is{luck}. New prompts would tell."
    ]


def seeds(scores: Scores, effort: "Effort", axes: Axes) -> tuple[str, ...]:
    """What holds for the setting, over its training seeds; nothing where there are too few."""
    of = scores.settings.get(effort.setting or "", {}).get(axes.concept)
    if of is None or of.setting is None:
        return ()
    spread = f"; the training seed alone moves the mean by {plain(of.training_sd)}" if of.training_sd else ""
    return (
        f"Over {of.training_seeds} training seeds the setting {effort.setting} is {beside(of.verdict)} no LoRA: "
        f"{signed(of.setting.mean)}, 95 % interval {interval(of.setting.low, of.setting.high, sign=True)}{spread}.",
    )


def calibrated(scores: Scores) -> bool:
    """Whether a truth test has set every limit."""
    kept = [of for by_metric in scores.gates.values() for kinds in by_metric.values() for of in kinds.values()]
    return bool(kept) and all(of.calibrated for of in kept)


def disagreement(scores: Scores, arms: list[str]) -> str | None:
    """A sentence where the literal prompt would have named another arm than the describing words; else None."""
    best = {}
    for metric in ("T0", "T1"):
        measured = [arm for arm in arms if metric in scores.arms.get(arm, {})]
        if not measured:
            return None
        best[metric] = min(measured, key=lambda arm: (-turned_mean(scores, arm, metric), arm))
    if best["T0"] == best["T1"]:
        return None
    return (
        f"By {name_of('T0')} {best['T0']} has the highest mean, by {name_of('T1')} {best['T1']}. CLIP never learned "
        "the trigger word; where the two disagree, the literal prompt is the one to doubt."
    )
