"""Does the LoRA still draw different pictures of one prompt?

Mean dissimilarity of pairs needs no correction for their number, as the Vendi score does, which grows with it.
"""

from typing import Final

import numpy as np

from vez.metrics.material import Material, Metric, by_prompt, scenes, table
from vez.metrics.summary import Values

SMALLEST: Final = 1e-6


def _diversity(m: Material) -> Values:
    """Mean distance of a picture to the other noises of its prompt, over the base's mean of the same prompts."""
    if m.base is None:
        return {}
    chosen, seen = scenes(m), m.judge.images
    apart: dict[str, dict[str, dict[int, float]]] = {}
    for arm in dict.fromkeys(d.arm for d in m.drawn):
        for prompt, of in by_prompt(m, chosen, arm=arm).items():
            if len(of) > 1:
                distances = 1 - seen[of] @ seen[of].T
                means = (distances.sum(axis=1) - distances.diagonal()) / (len(of) - 1)
                apart.setdefault(arm, {})[prompt] = dict(zip(of, means.tolist(), strict=True))
    rows = []
    for prompts in apart.values():
        shared = prompts.keys() & apart.get(m.base, {}).keys()
        own = [value for prompt in sorted(shared) for value in apart[m.base][prompt].values()]
        if own and float(np.mean(own)) > SMALLEST:
            rows += [(i, v / float(np.mean(own))) for prompt in prompts if prompt in shared
                     for i, v in prompts[prompt].items()]  # fmt: skip
    return table(m, rows)


DIVERSITY: Final[tuple[Metric, ...]] = (
    Metric(
        "diversity",
        "diversity",
        "How different the pictures of one prompt are, over the scenes with the trigger (set B): mean distance of two "
        "noises, as the judge of likeness sees it, over the base's of the same prompts. 1: as the base, 0: one picture "
        "again and again.",
        "needs the base as an arm, and two seeds or more of prompts with the trigger",
        _diversity,
    ),
)
