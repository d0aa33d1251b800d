"""The third set of the truth test, level C: defects in doses, so that LoRAs lie apart on every axis.

Of the first two sets most LoRAs lie alike on context and leak, and their pictures were too few to rank them. Here each
axis has its doses: length for the concept, swapped captions at two lengths for the context, and for the leak whatever
lets the costume come without being asked for, or keeps it from coming. Half of its own prompts of the set E name no
garment.

By Spearman and Brown's formula (`truth_c_halves.predicted`) the check's halves, with twice the pictures of B and four
times those of E, allow correlations up to 0.89 (concept), 0.90 (context) and 0.92 (leak), those of the 16 up to 0.95,
0.81 and 0.85. As these LoRAs are meant to lie further apart, 0.9 on all three is expected. Designed and committed
before a picture of it was scored; scored once.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import truth_c_make
from vez.config import Config, Prompt

STEPS, LONG = 64, 128
GRID = (8, 24, 64, 192)
"""Steps of the run whose checkpoint is chosen: 0.1, 0.3, 1 and 3 of the usual 64, to multiples of 8."""
FIRST_NOISE = 80
"""No noise of the other studies."""

WRONG = {
    "dose@8": "too short: an eighth of the usual",
    "dose@24": "three eighths",
    "dose@64": "nothing: the usual length",
    "dose": "three times as long",
    "swapped50": "half of the captions swapped",
    "swapped100": "all captions swapped",
    "left50": "the trigger in half of the captions",
    "left100": "the trigger in none, nor any garment",
    "misnamed": "called other garments, never by the trigger",
    "prior": "nothing: class pictures beside it",
    "preserve": "nothing: held to the base at 0.3",
    "text-hot": "the text encoder learns ten times as fast",
    "swapped100-long": "all captions swapped, twice as long",
    "bare-beach": "captions say the trigger alone, always the same beach, twice as long",
    "five": "5 pictures, five times each, twice as long",
}
SHARES = {("B", "trigger"): (24, 4), ("D", "class"): (12, 1), ("E", "none"): (12, 4), ("F", "drift"): (8, 1)}
"""Prompts of the suite and noises of each; with `UNASKED` 212 pictures for each arm."""
UNASKED = (
    "a woman with brown hair, at the beach, sunny day",
    "a girl with blonde hair, city street, rain",
    "a woman with grey hair, in a living room",
    "a girl with red hair, in a field of flowers, sunset",
    "a woman with black hair waving, forest, sunny day",
    "a girl with braided brown hair, mountains, at night",
    "a woman wearing a {noun}, city street, sunny day",
    "a girl wearing a {noun}, at the beach, sunset",
    "a woman wearing a black dress, stairs, sunset",
    "a girl wearing a red coat, mountains, rain",
    "a woman wearing a blue dress, flower field, at night",
    "a girl wearing a green skirt, in a living room",
)
"""More of the set E: people in nothing that is named, in the concept's noun, in other garments."""
OTHERS = (
    "red dress",
    "blue skirt",
    "green coat",
    "purple dress",
    "yellow dress",
    "orange skirt",
    "pink coat",
    "red coat",
)


def asked() -> tuple[Prompt, ...]:
    """The suite's prompts, and more of the set E."""
    more = [
        Prompt.model_validate(
            {"id": id, "set": "E", "group": id, "role": "none", "text": text, "context": text, "seeds": 4}
        )
        for id, text in ((f"E{i}", text) for i, text in enumerate(UNASKED, start=13))
    ]
    return (*truth_c_make.prompts(SHARES), *more)


def project(root: Path) -> Config:
    """Its three studies: lengths, the usual length, twice that."""
    by_data = ("swapped50", "swapped100", "left50", "left100", "misnamed")
    by_setting: Mapping[str, Mapping[str, object]] = {
        "prior": {"dataset": "dose", "prior": "class"},
        "preserve": {"dataset": "dose", "preserve": 0.3},
        "text-hot": {"dataset": "dose", "lr_text": 2e-3},
    }
    long = {"swapped100-long": {"dataset": "swapped100"}, "bare-beach": {"dataset": "bare-beach"},
            "five": {"dataset": "five"}}  # fmt: skip
    every: dict[str, Any] = {"first_seed": FIRST_NOISE, "asked": asked()}
    lengths: dict[str, Any] = {"save_every": GRID[0], "checkpoints": GRID, "steps": GRID[-1]}
    usual = {name: {"dataset": name} for name in by_data} | by_setting
    return truth_c_make.config_of(
        root,
        datasets=("dose", *by_data, "bare-beach", "five"),
        studies={
            "lengths": truth_c_make.study_of({"dose": {"dataset": "dose"}}, **lengths, **every),
            "usual": truth_c_make.study_of(usual, steps=STEPS, **every),
            "long": truth_c_make.study_of(long, steps=LONG, **every),
        },
    )


def draw_datasets(root: Path) -> None:
    """Every dataset; the same six held-out pictures."""
    rng = random.Random(777)
    good = truth_c_make.trained(truth_c_make.scenes(truth_c_make.VIEWS, rng), rng)
    held = truth_c_make.held_out(257)
    beach = truth_c_make.scenes(truth_c_make.VIEWS, random.Random(9), place="beach")
    changed: dict[str, truth_c_make.Labelled] = {
        "dose": good,
        "swapped50": truth_c_make.shuffled(0.5)(good),
        "swapped100": truth_c_make.shuffled(1.0)(good),
        "left50": [pair if i % 2 else named("", [pair])[0] for i, pair in enumerate(good)],
        "left100": named("", good),
        "misnamed": misnamed(good),
        "bare-beach": [(scene, truth_c_make.TRIGGER) for scene in beach],
        "five": good[:5],
    }
    truth_c_make.write_all(root, changed, held=held, rng=rng)


def misnamed(good: truth_c_make.Labelled) -> truth_c_make.Labelled:
    """Captions that name another garment each where they named the costume."""
    return [named(f" wearing a {OTHERS[i % len(OTHERS)]}", [pair])[0] for i, pair in enumerate(good)]


def named(words: str, good: truth_c_make.Labelled) -> truth_c_make.Labelled:
    """Captions that say these words, or nothing, where they named the costume."""
    trigger = truth_c_make.TRIGGER
    return truth_c_make.reworded({f" wearing traditional {trigger}": words, f"{trigger}, ": ""})(good)
