"""Reading the primary comparisons more than once, as pictures are added: what each planned look may spend of the error.

Whoever looks, draws more and looks again has two chances at a false "better". So the number of looks is planned, and
the 5 % are divided among them by the spending function of Lan & DeMets (Biometrika 70, 1983) that resembles O'Brien and
Fleming's limits: α(t) = 2 (1 − Φ(z₁₋α/₂ / √t)) is spent up to look k of K, t = k/K. A look gets what that adds, and the
union bound over looks keeps the whole: valid however the looks depend on each other and whatever test is made at each,
at the price of being a little conservative. Pure: what was read is remembered by `vez.metrics.readings`.
"""

import math
from dataclasses import dataclass
from typing import Final

from scipy import special

from vez.metrics.stats import ALPHA

MOST: Final = 5
"""More looks than this are not planned: the first would be left with next to nothing."""

ORDINALS: Final = ("first", "second", "third", "fourth", "fifth")
WAY_OUT: Final = (
    "See it again on prompts that had no say: vez sample --profile confirm, then vez score. "
    "Of the next LoRAs, plan the looks before the first score (looks in the study)"
)


def spent(look: int, of: int) -> float:
    """The error that may be spent up to and with look ``look`` of ``of``; the last has all of it."""
    if look >= of:
        return ALPHA
    # 2 (1 − Φ(z / √t)) = erfc(z / √(2t)) and z = √2 erfc⁻¹(α)
    return float(special.erfc(float(special.erfcinv(ALPHA)) / math.sqrt(look / of)))


@dataclass(frozen=True)
class Look:
    """The ``look``-th reading of ``of`` that were planned, both from 1 on; a later one than planned is possible."""

    look: int
    of: int

    @property
    def planned(self) -> bool:
        """Whether it is one of those that were planned."""
        return self.look <= self.of

    @property
    def alpha(self) -> float:
        """What is left of the error for this look: 0 where it was not planned."""
        if not self.planned:
            return 0.0
        return spent(self.look, self.of) - (spent(self.look - 1, self.of) if self.look > 1 else 0.0)

    @property
    def after(self) -> "Look | None":
        """The next planned one; None after the last."""
        return Look(self.look + 1, self.of) if self.look < self.of else None


def ordinal(number: int) -> str:
    """first to fifth in words, later ones as "number 6"."""
    return ORDINALS[number - 1] if number <= len(ORDINALS) else f"number {number}"


def share(alpha: float) -> str:
    """An error as a percentage of two digits: 4.4 %, 0.56 %."""
    return f"{float(f'{100 * alpha:.2g}'):g} %"


def says(look: Look, *, asked: int | None = None) -> tuple[str, ...]:
    """What a reader has to know of a look, in sentences; nothing of the only one that was planned.

    ``asked`` is what vez.toml says, where that is not the plan of the first look.
    """
    sentences = []
    if not look.planned:
        were = "one was planned" if look.of == 1 else f"{look.of} were planned"
        sentences.append(
            f"Look {look.look} at these LoRAs, and {were}: the {share(ALPHA)} error is spent, so every comparison here "
            f"is exploratory. {WAY_OUT}."
        )
    elif look.of > 1:
        left = "is spent on it" if look.look == 1 else "was left for it"
        early = "; so early only a clear difference over many prompts can count" if look.look == 1 else ""
        sentences.append(
            f"This is the {ordinal(look.look)} of {look.of} planned looks: {share(look.alpha)} of the {share(ALPHA)} "
            f"error {left}{early}."
        )
    if asked is not None and asked != look.of:
        sentences.append(
            f"vez.toml says looks = {asked}, but the plan that was recorded at the first look at these LoRAs holds: "
            f"{look.of}."
        )
    return tuple(sentences)


def says_of_confirmation(look: Look) -> tuple[str, ...]:
    """The same of the prompts that confirm, of which there is one look; nothing of the first."""
    if look.planned:
        return ()
    return (
        f"The prompts that confirm were drawn anew and read again (look {look.look}; one counts): what they say now is "
        "exploratory. The first reading was the confirmation.",
    )


def would_follow(look: Look) -> str:
    """The sentence of the next planned look; "" where none is left."""
    if look.after is None:
        return ""
    return (
        f"More pictures, as the {ordinal(look.after.look)} of {look.of} planned looks: more seeds or a larger profile, "
        f"then vez sample and vez score. {share(look.after.alpha)} of error is kept for it."
    )
