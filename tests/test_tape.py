"""The tape: per sample seen, whatever the batch, the length, or where it was cut."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.errors import TrainError
from vez.tape import STRATA, Tape, learning_rate_factor, noise, record

FIELDS = ("image", "timestep", "noise_seed", "drop")
sizes = st.integers(1, 50)
seeds = st.integers(0, 2**32)


def flat(tape: Tape, field: str) -> np.ndarray:  # type: ignore[type-arg]
    values: np.ndarray = getattr(tape, field).reshape(-1)  # type: ignore[type-arg]
    return values


@given(sizes, seeds, st.integers(1, 12), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_sample_does_not_depend_on_the_batch_or_the_length(size: int, seed: int, steps: int, batch: int) -> None:
    tape = record(size, seed=seed, steps=steps, batch=batch)
    ones = record(size, seed=seed, steps=steps * batch + 5, batch=1)
    for field in FIELDS:
        assert np.array_equal(flat(tape, field), flat(ones, field)[: steps * batch]), field


@given(sizes, seeds)
@settings(max_examples=50, deadline=None)
def test_every_epoch_shows_every_picture_once(size: int, seed: int) -> None:
    image = flat(record(size, seed=seed, steps=3 * size, batch=1), "image").reshape(3, size)
    assert np.array_equal(np.sort(image, axis=1), np.tile(np.arange(size), (3, 1)))


def test_timesteps_are_uniform_and_spread_over_every_eight() -> None:
    tape = record(34, seed=3, steps=2000, batch=8, timesteps=1000)
    assert (np.sort(tape.timestep // (1000 // STRATA), axis=1) == np.arange(8)).all()
    assert tape.timestep.min() >= 0 and tape.timestep.max() <= 999
    counts = np.bincount(flat(tape, "timestep") // 50, minlength=20)
    assert abs(counts - 800).max() < 150


def test_seeds_differ_and_pictures_and_timesteps_are_unrelated() -> None:
    one, two = (record(8, seed=s, steps=500, batch=8) for s in (0, 1))
    assert all(not np.array_equal(flat(one, f), flat(two, f)) for f in FIELDS)
    assert abs(np.corrcoef(flat(one, "image"), flat(one, "timestep"))[0, 1]) < 0.05
    assert len(np.unique(one.noise_seed)) == one.noise_seed.size


def test_pinned() -> None:
    """The first entries for ever: a tape that moves breaks every paired comparison and every resumed run."""
    tape = record(6, seed=0, steps=2, batch=4)
    assert flat(tape, "image").tolist() == PINNED_IMAGE
    assert flat(tape, "timestep").tolist() == PINNED_TIMESTEP
    assert noise(int(tape.noise_seed[0, 0]), (4, 8, 8))[0, 0, 0, :3] == pytest.approx(PINNED_NOISE, abs=1e-6)


PINNED_IMAGE = [5, 3, 0, 4, 2, 1, 4, 5]
PINNED_TIMESTEP = [991, 810, 335, 406, 163, 42, 593, 741]
PINNED_NOISE = [-0.6952789, 0.930248, -1.1525534]


def test_noise_is_standard_normal_and_its_two_fields_independent() -> None:
    fields = np.stack([noise(s, (4, 16, 16)) for s in range(50)])
    assert fields.dtype == np.float32
    assert abs(fields.mean()) < 0.01 and abs(fields.std() - 1) < 0.01
    assert abs(np.corrcoef(fields[:, 0].ravel(), fields[:, 1].ravel())[0, 1]) < 0.02


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(TrainError, match="no picture"):
        record(0, seed=0, steps=1, batch=1)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("constant", "constant_with_warmup"), ("cosine", "cosine"), ("linear", "linear")]
)
@pytest.mark.parametrize("warmup", [0, 5])
def test_learning_rates_are_those_of_diffusers(ours: str, theirs: str, warmup: int) -> None:
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(theirs, optimizer, num_warmup_steps=warmup, num_training_steps=20)
    for step in range(20):
        factor = learning_rate_factor(step, steps=20, warmup=warmup, schedule=ours)  # type: ignore[arg-type]
        assert factor == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would like optimizer.step() in between
            schedule.step()


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
@pytest.mark.parametrize(
    ("schedule", "extra"),
    [
        ("constant", {}),
        ("linear", {}),
        ("cosine", {}),
        ("cosine_with_restarts", {"cycles": 3}),
        ("polynomial", {"power": 2.0}),
        ("polynomial", {}),
    ],
)
def test_schedules_are_those_of_diffusers(schedule: Any, extra: dict[str, Any], warmup: float, steps: int) -> None:
    lr = 3e-3
    ahead = round(warmup * steps) if 0 < warmup < 1 else int(warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    theirs = get_scheduler(
        "constant_with_warmup" if schedule == "constant" else schedule,
        optimizer,
        num_warmup_steps=ahead,
        num_training_steps=steps,
        num_cycles=extra.get("cycles", 1),
        power=extra.get("power", 1.0),
    )
    for step in range(steps):
        mine = lr * learning_rate_factor(step, steps=steps, warmup=warmup, schedule=schedule, lr=lr, **extra)
        assert mine == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()
