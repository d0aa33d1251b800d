"""What the probes artifact holds, as it is written and as it is read again: no model, no arithmetic.

``studies/<study>/probes`` has probes.jsonl, a row {arm, run, variant, seed, step, strength, picture, split, text,
timestep, loss} a line, and summary.json, which is a `Probes`.
"""

from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from vez.errors import StoreError
from vez.store import open_artifact

KIND: Final = "probes"
FOLDER: Final = "probes"
ROWS, SUMMARY = "probes.jsonl", "summary.json"
PASSES: Final = 16
"""Of a picture beside a text: 8 timesteps, 2 noises each."""

BASE_ARM: Final = "base"

MOST: Final = 8
"""Held-out pictures asked, at most, and as many trained ones; and as many class pictures are drawn."""

Split = Literal["held_out", "train", "class"]
"""Pictures of the concept kept from training, as many that were trained on, and the base's own of the class."""

Asked = Literal["caption", "class", "trigger", "wrong", "empty"]
"""The text beside a picture: its caption, that with plain words for the trigger, the trigger alone, the caption with a
wrong trigger, none."""

EXPLAINED: Final = {
    "loss": "mean squared error of the noise, at 8 fixed timesteps with 2 fixed noises each; the same for all arms",
    "change": "natural logarithm of a loss over the base's, each picture and timestep against itself: -0.02 is 2 % "
    "less than the base, 0 the same",
    "bands": "the same in five equal parts of the timesteps, from little noise (texture) to much (composition)",
    "low, high": "95 % Student interval over pictures; null where there is one picture alone",
    "gap": "G: change of the held-out pictures minus change of trained ones. It grows where pictures are learned by "
    "heart; middle is t 200-600 of 1000, where it shows first",
    "binding": "B: logarithm of the loss with plain words over that with the trigger, same picture and noise. Above 0 "
    "the trigger says more than the words do; gained is B minus the base's own B",
    "specificity": "the same with a wrong trigger of as many tokens instead of plain words",
    "alone": "the same with no text at all over the trigger without the rest of its caption",
    "gains": "by how much the held-out loss fell under each text (minus its change)",
    "leak": "what the loss fell by with plain words, as a share of what it fell by with the trigger: 0 hangs on the "
    "trigger alone, 1 on the class as much; null where the fall with the trigger is not certain",
    "prior": "change on pictures that the base drew of the class: above 0 the LoRA takes from what the base knew",
    "window": "checkpoints worth sampling: from the first with 90 % of the held-out loss's fall to the last before G "
    "(middle) passes 0.25 or the held-out loss has risen by 2 standard errors. A recommendation: nothing is deleted",
    "calibrated": "false: these limits are rules of thumb until the truth test sets them",
}


def forwards(*, held_out: int, train: int) -> int:
    """U-Net passes, of one picture each, that one checkpoint takes whose dataset holds out so many pictures."""
    asked = min(held_out, MOST)
    seen = min(train, asked or MOST // 2)
    return PASSES * (asked * len(get_args(Asked)) + seen + MOST)


class Part(BaseModel):
    """A part of summary.json; keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Span(Part):
    """A mean over ``n`` pictures with its 95 % interval; None where one picture leaves no spread to judge by."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int

    @property
    def is_above(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def is_below(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high is not None and self.high < 0


class Change(Part):
    """Losses of one split under its captions: the mean itself, and its change against the base, whole and by band."""

    loss: float
    change: Span
    bands: tuple[Span, ...]


class Gap(Part):
    """The memorisation gap, in the middle of the timesteps and by band."""

    middle: Span
    bands: tuple[Span, ...]


class Contrast(Part):
    """A logarithm of losses under two texts: the LoRA's, the base's own, and the LoRA's minus the base's."""

    own: Span
    base: Span
    gained: Span


class ArmProbes(Part):
    """All that was measured of one checkpoint at one strength; None: not measured.

    ``says`` puts it in sentences.
    """

    run: str | None
    variant: str | None
    seed: int | None
    step: int | None
    strength: float
    held_out: Change | None
    train: Change | None
    prior: Change | None
    gap: Gap | None
    binding: Contrast | None
    specificity: Contrast | None
    alone: Contrast | None
    gains: dict[Asked, Span]
    leak: float | None
    says: tuple[str, ...] = ()


class Window(Part):
    """Which checkpoints of one run, at one strength, are worth sampling; ``arms`` is empty where none is."""

    run: str | None
    variant: str | None
    seed: int | None
    strength: float
    first: int | None
    last: int | None
    arms: tuple[str, ...]
    why: str


class Limits(Part):
    """The rule of the window, and whether its numbers are more than rules of thumb."""

    fall: float
    gap: float
    rise: float
    calibrated: bool


class Probes(Part):
    """summary.json. ``bands`` are the timesteps of each band, ``wrong`` the wrong trigger that was asked with."""

    timesteps: tuple[int, ...]
    bands: tuple[tuple[int, ...], ...]
    noises: int
    wrong: str
    class_texts: tuple[str, ...]
    limits: Limits
    arms: dict[str, ArmProbes]
    windows: tuple[Window, ...]
    not_measured: dict[str, str]
    explained: dict[str, str]

    def curve(self, run: str | None, *, strength: float = 1.0) -> tuple[tuple[str, ArmProbes], ...]:
        """The checkpoints of a run at one strength by arm, in the order of their steps."""
        own = [(name, arm) for name, arm in self.arms.items() if arm.run == run and arm.strength == strength]
        return tuple(sorted(own, key=lambda one: one[1].step or 0))


def results(study: Path) -> Probes | None:
    """The probes of a study's folder; None where there are none. Raises StoreError where they cannot be read."""
    folder = study / FOLDER
    if not (folder / "manifest.json").is_file():
        return None
    open_artifact(folder)
    try:
        return Probes.model_validate_json((folder / SUMMARY).read_bytes())
    except (OSError, ValidationError) as error:
        raise StoreError(f"{folder / SUMMARY} is not a summary of probes; delete {folder} and probe again") from error
