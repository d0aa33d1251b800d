"""The fifth set of the truth test, level C: LoRAs that lie apart on concept, context and leak at once.

Each earlier set spread some axes and not others, and a rank correlation over LoRAs that lie alike is luck: the doses
had two of 15 that lost the context, the contexts none that lacked the costume, and 24 pictures for the leak. Here each
axis has its own defects, the known ways of the two sets before, in doses and crossed with each other: length for the
concept, a trigger that captions leave out or never say; places and weathers that go by each other's names for the
context; other garments' names, class pictures and `preserve` for the leak. All in pictures, held-out pictures and
noises of its own. Captions are not swapped: that costs people and poses too, which the oracle does not read, and the
contexts' page tells what comes of it. `preserve` is here although T2 is known to err on it.

Forecast. From the committed numbers of the LoRAs like these of the doses and the contexts (13 to 15 of them, pooled):
correlations of 0.87 to 0.92 (concept), 0.81 to 0.89 (context; the lower one with `preserve`) and 0.86 to 0.89 (leak).
The oracle's context: 0 but for `places4` (-0.1), `places`, `moved`, `moved-left` (-0.15 to -0.2), `places-long`,
`moved-long` (-0.2 to -0.3). Concept: 0 for `left100`, `moved-left`, `misnamed`, then as the length has it, 0.9 and more
with class pictures or held to the base. All three are expected at 0.8 or above, the context closest to it. Designed and
committed before a picture of it was made; to be scored once, no metric or limit changed.

One limit is tried on it: T2 may fall by 0.30 instead of 0.45. Of the four sets' 50 LoRAs that keep the context none
falls by more than 0.26; 0.30 would stop 7 of the 12 others, 0.45 stops 4. It is taken if it stops none here that the
oracle lets pass, and more than 0.45 does of those that it does not. Committed before a picture of it was scored.
"""

import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import truth_c_contexts
import truth_c_doses
import truth_c_make
from vez.config import Config, Prompt

STEPS, LONG = 64, 128
GRID = (8, 24, 64, 192)
"""Steps of the run whose checkpoint is chosen."""
FIRST_NOISE = 100
"""No noise of the other studies."""
NOISES, NOISES_UNASKED = 2, 4

WRONG = {
    "plain@8": "too short: an eighth of the usual",
    "plain@24": "three eighths",
    "plain@64": "nothing: the usual length",
    "plain": "three times as long",
    "left100": "the trigger in none of the captions, nor any garment",
    "misnamed50": "half of the captions name other garments, and not the trigger",
    "misnamed": "all captions name other garments, never the trigger",
    "prior": "nothing: class pictures beside it",
    "preserve": "nothing: held to the base at 0.3",
    "places4": "four of the places called by another's name",
    "places": "all places called by another's name",
    "moved": "all places and weathers called by another's name",
    "moved-left": "the same, and the trigger in none of the captions",
    "moved-prior": "places and weathers as there, class pictures beside it",
    "places-long": "all places called by another's name, twice as long",
    "moved-long": "all places and weathers, twice as long",
}
SHARES = {("B", "trigger"): (12, NOISES), ("D", "class"): (8, 1), ("E", "none"): (12, NOISES_UNASKED),
          ("F", "drift"): (8, 1)}  # fmt: skip
"""Prompts of the suite and noises of each; with those of `asked` 256 pictures for each arm."""


def asked() -> tuple[Prompt, ...]:
    """Some of the suite's prompts, each outdoor place in each weather twice, and more that do not ask for it."""
    trigger, who = truth_c_make.TRIGGER, truth_c_contexts.WHO
    given: list[dict[str, Any]] = []
    scenes = product(truth_c_contexts.PLACES, truth_c_contexts.WEATHERS, (0, 1))
    for i, (place, weather, again) in enumerate(scenes, start=1):
        person, rest = who[(i + again) % len(who)], f", {place}, {truth_c_contexts.SAID[weather]}"
        text = f"{trigger}, {person} wearing traditional {trigger}{rest}"
        given.append({"id": f"X{i:02d}", "set": "B", "role": "trigger", "text": text, "context": person + rest,
                      "seeds": NOISES})  # fmt: skip
    for i, text in enumerate(truth_c_doses.UNASKED, start=13):
        given.append({"id": f"E{i}", "set": "E", "role": "none", "text": text, "context": text,
                      "seeds": NOISES_UNASKED})  # fmt: skip
    more = [Prompt.model_validate({"group": of["id"], **of}) for of in given]
    return (*truth_c_make.prompts(SHARES), *more)


def project(root: Path) -> Config:
    """Its three studies: lengths, the usual length, twice that."""
    by_data = ("left100", "misnamed50", "misnamed", "places4", "places", "moved", "moved-left")
    usual: Mapping[str, Mapping[str, object]] = {
        **{name: {"dataset": name} for name in by_data},
        "prior": {"dataset": "plain", "prior": "class"},
        "moved-prior": {"dataset": "moved", "prior": "class"},
        "preserve": {"dataset": "plain", "preserve": 0.3},
    }
    long = {f"{name}-long": {"dataset": name} for name in ("places", "moved")}
    every: dict[str, Any] = {"first_seed": FIRST_NOISE, "asked": asked()}
    lengths: dict[str, Any] = {"save_every": GRID[0], "checkpoints": GRID, "steps": GRID[-1]}
    return truth_c_make.config_of(
        root,
        datasets=("plain", *by_data),
        studies={
            "lengths": truth_c_make.study_of({"plain": {"dataset": "plain"}}, **lengths, **every),
            "usual": truth_c_make.study_of(usual, steps=STEPS, **every),
            "long": truth_c_make.study_of(long, steps=LONG, **every),
        },
    )


def draw_datasets(root: Path) -> None:
    """Every dataset; the same six held-out pictures, the same 24 to train on."""
    rng = random.Random(2718)
    good = truth_c_make.trained(truth_c_make.scenes(truth_c_make.VIEWS, rng), rng)
    held = truth_c_make.held_out(521)
    moved, named, called = truth_c_contexts.moved, truth_c_doses.named, truth_c_doses.misnamed(good)
    places, weathers = len(truth_c_contexts.PLACES), len(truth_c_contexts.WEATHERS)
    changed: dict[str, truth_c_make.Labelled] = {
        "plain": good,
        "left100": named("", good),
        "misnamed50": [pair if i % 2 else other for i, (pair, other) in enumerate(zip(good, called, strict=True))],
        "misnamed": called,
        "places4": moved(good, places=4),
        "places": moved(good, places=places),
        "moved": moved(good, places=places, weathers=weathers),
        "moved-left": named("", moved(good, places=places, weathers=weathers)),
    }
    truth_c_make.write_all(root, changed, held=held, rng=rng)
