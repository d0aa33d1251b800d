"""The tape of a run: which picture, timestep, noise and learning rate each step uses, decided before the run starts.

Pure numpy. Every quantity belongs to the n-th *sample seen*, never to a batch: the first step at batch 8 sees exactly
what the first eight steps at batch 1 saw, and a longer tape begins with a shorter one. So runs are paired across
variants, and a run that is cut and resumed reads on where it stopped.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vez.errors import TrainError

# Consecutive samples that fall into different eighths of the timesteps: the marginal stays uniform, the variance of a
# step's gradient falls (low-discrepancy sampler; Kingma et al., "Variational Diffusion Models", 2021, App. I.1).
STRATA = 8


@dataclass(frozen=True)
class Tape:
    """What each sample of a run is; every array has the shape (steps, batch)."""

    image: NDArray[np.int64]
    """Index into the dataset's training rows."""
    timestep: NDArray[np.int64]
    """Diffusion timestep, 0 (nearly clean) to timesteps - 1 (nearly noise)."""
    noise_seed: NDArray[np.uint64]
    """What `noise` makes this sample's noise of."""
    drop: NDArray[np.float64]
    """Uniform in [0, 1): the caption is left out where this lies below a variant's caption_dropout."""


def record(
    dataset_size: int, *, seed: int, steps: int, batch: int, timesteps: int = 1000, beside: bool = False
) -> Tape:
    """The tape of ``steps`` steps over ``dataset_size`` pictures; ``beside``: of the class pictures beside them.

    Each epoch shows every picture once, in an order of its own. Raises TrainError for an empty dataset.
    """
    if dataset_size < 1:
        raise TrainError("the dataset has no picture to train on; lower held_out, or add pictures")
    samples = steps * batch
    # One stream per quantity, each drawn in order, so that a longer tape only appends.
    order, strata, within, seeds, drop = (np.random.Generator(np.random.Philox(s)) for s in _streams(seed, 5, beside))
    epochs = -(-samples // dataset_size)
    image = np.concatenate([order.permutation(dataset_size) for _ in range(epochs)])[:samples]
    blocks = -(-samples // STRATA)
    stratum = np.argsort(strata.random((blocks, STRATA)), axis=1).reshape(-1)[:samples]
    timestep = np.floor((stratum + within.random(samples)) / STRATA * timesteps).astype(np.int64)
    return Tape(
        image=image.reshape(steps, batch),
        timestep=np.minimum(timestep, timesteps - 1).reshape(steps, batch),
        noise_seed=seeds.integers(0, 2**64, size=samples, dtype=np.uint64).reshape(steps, batch),
        drop=drop.random(samples).reshape(steps, batch),
    )


def _streams(seed: int, count: int, beside: bool) -> list[np.random.SeedSequence]:
    return np.random.SeedSequence(seed, spawn_key=(count,) if beside else ()).spawn(count)


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Two standard normal fields of one sample, (2, *shape): one re-samples its latent, the other is its noise."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal((2, *shape), dtype=np.float32)


Draw = Literal[
    "offset",
    "grids",
    "perturbation",
    "wording",
    "flip",
    "preserve",
    "offset-strength",
    "perturbation-strength",
    "wildcards",
    "crop",
]
_DRAWS: tuple[Draw, ...] = get_args(Draw)  # append only: places are keys


def dice(seed: int, draw: Draw) -> np.random.Generator:
    """What else one sample draws, a stream for each purpose: a setting more never moves what another one draws.

    ``seed`` is the sample's ``noise_seed``.
    """
    key = (_DRAWS.index(draw) + 1,)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]
POLYNOMIAL_END = 1e-7  # the learning rate that a polynomial schedule falls to, as in diffusers


def learning_rate_factor(
    step: int,
    *,
    steps: int,
    warmup: float,
    schedule: Schedule,
    cycles: int = 1,
    power: float = 1.0,
    lr: float = 1.0,
) -> float:
    """The multiple of the learning rate ``lr`` at ``step`` (0-based), as diffusers.optimization schedules it.

    ``warmup`` is in steps, or below 1 a share of ``steps``. ``cycles`` are those of the cosine with restarts.
    """
    warmup = round(warmup * steps) if 0 < warmup < 1 else int(warmup)
    if step < warmup:
        return step / max(1, warmup)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    if schedule == "polynomial":
        end = min(1.0, POLYNOMIAL_END / lr) if lr > 0 else 0.0
        return float((1.0 - end) * max(0.0, 1.0 - progress) ** power + end)
    if schedule == "cosine_with_restarts":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (cycles * progress % 1.0)))) if progress < 1 else 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
