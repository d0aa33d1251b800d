"""What to do about a LoRA that fails: a sentence of what is wrong, and what has helped, by the metric that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Remedy:
    """``fault`` goes on from the LoRA's name ("v2 leaks"); ``attempt`` says what to try, the likeliest first."""

    fault: str
    attempt: str


NOTHING: Final = Remedy(
    "has not learned the concept",
    "see that the trigger word is in every caption and that the held-out loss fell; then lr_unet × 3, or more steps",
)
PAINTS_OVER: Final = Remedy(
    "paints over the rest of the prompt",
    "a lower strength or an earlier checkpoint (strengths, checkpoints); then fewer steps, a smaller rank, captions "
    "that name what is around the concept",
)
COPIES: Final = Remedy(
    "copies its training pictures",
    "fewer steps or an earlier checkpoint; more pictures and no repeated ones; a smaller rank, dropout",
)
LEAKS: Final = Remedy(
    "brings the concept where nobody asked for it",
    "class pictures beside the concept’s (prior = a dataset of role class), or preserve = 1; captions that name the "
    "class in plain words; fewer steps",
)
MOVES: Final = Remedy(
    "moves pictures that have nothing to do with the concept",
    "a lower strength; preserve = 1 or class pictures (prior); a lower lr_text, or lr_text = 0; fewer steps",
)
TRIGGER: Final = Remedy(
    "owes little to its trigger word",
    "the trigger word in every caption and no describing words beside it; lr_text above 0; class pictures (prior)",
)
UNIFORM: Final = Remedy(
    "draws one picture again and again", "fewer steps or a lower strength; pictures that differ more in pose and place"
)
BROKEN: Final = Remedy(
    "draws flat or black pictures", "a lower learning rate; look at the pictures, and at the run's last steps"
)
WEAK: Final = Remedy(
    "has learned little of the concept", "more steps or a higher lr_unet; a strength above 1; a larger rank"
)

BY_METRIC: Final[Mapping[str, Remedy]] = {
    "similarity": WEAK,
    "T1": WEAK,
    "T2": PAINTS_OVER,
    "leak": LEAKS,
    "unrelated": MOVES,
    "drift": MOVES,
    "drift_near": MOVES,
    "colour_drift": MOVES,
    "trigger_effect": TRIGGER,
    "specificity": Remedy("answers to a wrong trigger word too", TRIGGER.attempt),
    "nearest_training": COPIES,
    "copying": COPIES,
    "copies": COPIES,
    "overfit": COPIES,
    "diversity": UNIFORM,
    "repeats": UNIFORM,
    "flat": BROKEN,
}


def remedy(metric: str, kind: str) -> Remedy:
    """What a failed gate means and what to try. ``kind`` is that of `contest.Broken`."""
    if kind == "learned":
        return NOTHING
    return BY_METRIC.get(metric, Remedy("fails a limit", "look at its table below, and at its pictures"))
