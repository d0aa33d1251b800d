"""Does the LoRA still draw different pictures of one prompt?

Mean dissimilarity of pairs needs no correction for their number, as the Vendi score does, which grows with it.
"""

from typing import Final

import numpy as np

from vez.metrics.material import Material, Metric, by_prompt, neighbours, scenes, table, unrelated
from vez.metrics.summary import Values

SMALLEST: Final = 1e-6


def _apart(m: Material, chosen: list[int], *, arm: str) -> dict[str, dict[int, float]]:
    """Prompt → picture → its mean distance to the prompt's other noises, of an arm's prompts that have two."""
    seen, found = m.judge.images, dict[str, dict[int, float]]()
    for prompt, of in by_prompt(m, chosen, arm=arm).items():
        if len(of) > 1:
            distances = 1 - seen[of] @ seen[of].T
            means = (distances.sum(axis=1) - distances.diagonal()) / (len(of) - 1)
            found[prompt] = dict(zip(of, means.tolist(), strict=True))
    return found


def _unit(m: Material) -> float | None:
    """The base's own mean distance of two noises of its median prompt, over prompts that it understands (set E, role
    drift); where none has two noises, over the scenes. None where there is none, or it draws the same again and again.

    The median, since a prompt that leaves the garment open varies ten times as much as one that names it.
    """
    for chosen in ([*neighbours(m), *unrelated(m)], scenes(m)):
        own = {} if m.base is None else _apart(m, chosen, arm=m.base)
        if own:
            median = float(np.median([np.mean(list(of.values())) for of in own.values()]))
            return median if median > SMALLEST else None
    return None


def _diversity(m: Material) -> Values:
    """Mean distance of a picture to the other noises of its prompt, in the base's own."""
    unit, chosen = _unit(m), scenes(m)
    if unit is None:
        return {}
    arms = dict.fromkeys(d.arm for d in m.drawn)
    each = (_apart(m, chosen, arm=arm).values() for arm in arms)
    return table(m, [(i, value / unit) for prompts in each for of in prompts for i, value in of.items()])


DIVERSITY: Final[tuple[Metric, ...]] = (
    Metric(
        "diversity",
        "diversity",
        "How different the pictures of one prompt are, over the scenes with the trigger (set B): mean distance of two "
        "noises, as the judge of likeness sees it, over the base's of the median prompt that it understands (set E, "
        "role drift; where there are none, of the same scenes, to which it may bring anything, the trigger meaning "
        "nothing to it). 1: as the base, 0: one picture again and again.",
        "needs the base as an arm, and two seeds or more of prompts with the trigger",
        _diversity,
    ),
)
