"""The check of the truth test, level C: LoRAs with other defects, pictures, noises and held-out pictures.

What metrics and limits were changed with a look at the 16 LoRAs of bench/truth_c.py is tried on these, which nobody
had looked at: they were scored once, after the changes were committed. bench/truth_c.py trains and draws them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import truth_c_make
from vez.config import Config

STEPS = 64
GRID = (16, 32, 64, 128)
"""Steps of the run whose checkpoint is chosen; the others take `STEPS`."""
FIRST_NOISE = 40
"""No noise of the other studies."""

WRONG = {
    "sound@16": "too short: a quarter of the usual",
    "sound@32": "half of the usual",
    "sound@64": "nothing: the usual length",
    "sound": "twice as long",
    "half-dress": "every other caption says “dress” for the trigger",
    "all-dress": "all of them do",
    "swapped75": "three quarters of the captions swapped",
    "bare": "captions say the trigger alone",
    "bare-snow": "the same, and always the same snowy forest",
    "night": "always the same street at night, twice the learning rate",
    "three": "3 pictures, repeated",
    "prior": "nothing: class pictures beside it",
    "swapped-prior": "all captions swapped, class pictures beside it",
    "preserve": "nothing: held to the base at 0.3",
    "unet-alone": "the text encoder is not trained",
    "text-hot": "the text encoder learns ten times as fast",
    "faint": "rank 2, a third of the learning rate",
}
BY_DATA = ("half-dress", "all-dress", "swapped75", "bare", "bare-snow", "three")
BY_SETTING: Mapping[str, Mapping[str, object]] = {
    "night": {"dataset": "night", "lr_unet": 3e-3},
    "prior": {"dataset": "sound", "prior": "class"},
    "swapped-prior": {"dataset": "swapped", "prior": "class"},
    "preserve": {"dataset": "sound", "preserve": 0.3},
    "unet-alone": {"dataset": "sound", "lr_text": 0.0},
    "text-hot": {"dataset": "sound", "lr_text": 2e-3},
    "faint": {"dataset": "sound", "rank": 2, "lr_unet": 5e-4},
}


def project(root: Path) -> Config:
    """Its three studies: lengths, defects of data, defects of settings."""
    named = ("sound", *BY_DATA, "night", "swapped")
    lengths: dict[str, Any] = {"save_every": GRID[0], "checkpoints": GRID, "steps": GRID[-1]}
    return truth_c_make.config_of(
        root,
        datasets=named,
        studies={
            "lengths": truth_c_make.study_of({"sound": {"dataset": "sound"}}, first_seed=FIRST_NOISE, **lengths),
            "data": truth_c_make.study_of({n: {"dataset": n} for n in BY_DATA}, steps=STEPS, first_seed=FIRST_NOISE),
            "settings": truth_c_make.study_of(BY_SETTING, steps=STEPS, first_seed=FIRST_NOISE),
        },
    )


def draw_datasets(root: Path) -> None:
    """Every dataset; the same six held-out pictures."""
    rng = random.Random(4242)
    good = truth_c_make.trained(truth_c_make.scenes(truth_c_make.VIEWS, rng), rng)
    held = truth_c_make.held_out(131)
    changed: dict[str, truth_c_make.Labelled] = {
        "sound": good,
        "half-dress": [pair if i % 2 else dressed([pair])[0] for i, pair in enumerate(good)],
        "all-dress": dressed(good),
        "swapped75": truth_c_make.shuffled(0.75)(good),
        "swapped": truth_c_make.shuffled(1.0)(good),
        "bare": [(scene, truth_c_make.TRIGGER) for scene, _ in good],
        "bare-snow": [(scene, truth_c_make.TRIGGER) for scene, _ in at("forest", "snow")(good)],
        "night": at("city street", "night")(good),
        "three": good[:3],
    }
    truth_c_make.write_all(root, changed, held=held, rng=rng)


def dressed(good: truth_c_make.Labelled) -> truth_c_make.Labelled:
    """The trigger called a dress."""
    words = {f"traditional {truth_c_make.TRIGGER}": "a dress", f"{truth_c_make.TRIGGER}, ": ""}
    return truth_c_make.reworded(words)(good)


def at(place: str, weather: str) -> Callable[[truth_c_make.Labelled], truth_c_make.Labelled]:
    """The same people, always at one place."""

    def change(good: Sequence[Any]) -> truth_c_make.Labelled:
        rng = random.Random(6)
        return truth_c_make.trained([replace(scene, place=place, weather=weather) for scene, _ in good], rng)

    return change
