"""One setting trained several times: what is true of these weights, and what of the setting.

A LoRA is one draw of its training seed. With several, prompts are crossed with training seeds: every LoRA draws every
prompt. An interval over prompts alone is about *these weights*; one about *this setting* must also allow for the LoRAs
that other training seeds would have given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vez.metrics.layout import Array, Cells, pair
from vez.metrics.stats import ALPHA, Interval, t_interval

FEWEST = 3
"""Training seeds below which nothing is said of a setting: two give a spread that no interval can be made of."""


@dataclass(frozen=True)
class Replicates:
    """A setting minus another, or minus no LoRA, over its training seeds.

    `weights` holds for the LoRAs that were trained, `setting` for others trained the same way; None, and `why_not` says
    why, where that cannot be told. `p` belongs to `setting`. `training_sd` is how far training seeds alone move the
    mean, 0 where they move it less than prompts' noise would.
    """

    training_seeds: int
    n_prompts: int
    weights: Interval
    setting: Interval | None
    p: float | None
    training_sd: float | None
    why_not: str | None


def replicate(pairs: Sequence[tuple[Cells, Cells]]) -> Replicates:
    """Setting A minus setting B, or minus no LoRA: for each training seed the two arms' {(prompt, seed): value}.

    Only pictures that every pair has count. The variance of the mean is that of a two-way
    random layout, (MS_seeds + MS_prompts − MS_rest) / (seeds · prompts), never taken below the larger of the two; its
    degrees of freedom are the harmonic mean of seeds − 1 and prompts − 1, weighted by the share of each. In simulations
    (docs/truth.md) the 95 % interval then covers 93–97 % from three seeds on.

    Raises ValueError where no picture is in all of them, or a value is infinite.
    """
    table = _table(pairs)  # (training seeds, prompts)
    seeds, prompts = table.shape
    weights = t_interval(table.mean(axis=0))
    lacking = None
    if seeds < FEWEST:
        lacking = f"needs at least {FEWEST} training seeds, there {'is 1' if seeds == 1 else f'are {seeds}'}"
    elif prompts < 2:
        lacking = "needs at least two prompts that every LoRA drew"
    if lacking is not None:
        return Replicates(seeds, prompts, weights, None, None, None, lacking)
    mean = float(table.mean())
    of_seeds, of_prompts = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_seeds[:, None] - of_prompts[None, :] + mean
    ms_seeds, ms_prompts = prompts * float(of_seeds.var(ddof=1)), seeds * float(of_prompts.var(ddof=1))
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))
    scaled = max(ms_seeds + ms_prompts - ms_rest, ms_seeds, ms_prompts)
    share = max(0.0, ms_seeds - ms_rest) / scaled if scaled > 0 else 0.0
    freedom = 1 / (share / (seeds - 1) + (1 - share) / (prompts - 1))
    error = math.sqrt(scaled / (seeds * prompts))
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0)
    training = math.sqrt(max(0.0, ms_seeds - ms_rest) / prompts)
    return Replicates(seeds, prompts, weights, Interval(mean, mean - half, mean + half, prompts), p, training, None)


def _table(pairs: Sequence[tuple[Cells, Cells]]) -> Array:
    """Differences of prompts' means by training seed and prompt, over the cells that all pairs have."""
    if not pairs:
        raise ValueError("the two settings share no training seed; train both with the same seeds")
    whole = [{key for key in a if key in b and not math.isnan(a[key] - b[key])} for a, b in pairs]
    shared = sorted(set.intersection(*whole))
    if not shared:
        raise ValueError("no picture was drawn by every LoRA of the setting; draw and score them all first")
    layouts = [pair({key: a[key] for key in shared}, {key: b[key] for key in shared}) for a, b in pairs]
    return np.stack([layout.prompt_means for layout in layouts])
