"""The sixth set of the truth test, level C: as the spread, with more LoRAs that lose the context.

The spread was to lie apart on concept, context and leak at once, and four of its 16 LoRAs lost place or weather where
six had been forecast; the twelve that kept them were ranked by luck. Here ten lose them, in doses and crossed with what
moves concept and leak: places, or places and weathers, by each other's names at three lengths, with the trigger left
out, with other garments' names, with class pictures beside. Prompts are the spread's; pictures, held-out pictures and
noises are its own. `preserve` is not here: T2 falls with it though the oracle names place and weather still, in
pictures that have gone pale (docs/truth.md), and this set asks about losses that the oracle can see.

Forecast, by the spread's LoRAs. Context: 0 for the four `plain`, `misnamed` and `prior`; -0.05 to -0.15 for the two
with class pictures; -0.2 to -0.3 for `moved`, `moved-left`, `places-long`; -0.3 to -0.55 for the rest. Concept: 0 where
the trigger is left out or other garments are named, else as the length has it. Leak: 0 with class pictures, 0.2 to 0.5
for the others from 64 steps on. Rank correlations of 0.9 (concept), 0.87 (context) and 0.83 (leak) are expected, the
leak nearest to 0.8. Designed and committed before a picture of it was made; scored once, no metric or limit changed.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import truth_c_contexts
import truth_c_doses
import truth_c_make
import truth_c_spread
from vez.config import Config

STEPS = {"usual": 64, "long": 128, "longest": 192}
GRID = truth_c_spread.GRID
FIRST_NOISE = 110
"""No noise of the other studies."""

WRONG = {
    "plain@8": "too short: an eighth of the usual",
    "plain@24": "three eighths",
    "plain@64": "nothing: the usual length",
    "plain": "three times as long",
    "misnamed": "called other garments, never by the trigger",
    "prior": "nothing: class pictures beside it",
    "moved": "all places and weathers called by another's name",
    "moved-left": "the same, and the trigger in none of the captions",
    "places-long": "all places called by another's name, twice as long",
    "moved-long": "all places and weathers, twice as long",
    "moved-left-long": "the same without the trigger, twice as long",
    "moved-misnamed-long": "places and weathers as there, other garments' names, twice as long",
    "moved-prior-long": "places and weathers as there, class pictures beside it, twice as long",
    "places-longest": "all places called by another's name, three times as long",
    "moved-longest": "all places and weathers, three times as long",
    "moved-prior-longest": "the same, class pictures beside it, three times as long",
}
DATASETS = ("plain", "misnamed", "places", "moved", "moved-left", "moved-misnamed")


def project(root: Path) -> Config:
    """Its four studies, by how long they train."""
    every: dict[str, Any] = {"first_seed": FIRST_NOISE, "asked": truth_c_spread.asked()}
    found: dict[str, dict[str, Mapping[str, object]]] = {name: {} for name in STEPS}
    for name in WRONG:
        plain, _, length = name.rpartition("-")
        data, length = (plain, length) if length in STEPS else (name, "usual")
        if not name.startswith("plain"):
            beside = {"prior": "class"} if data.endswith("prior") else {}
            dataset = {"prior": "plain"}.get(data, data.removesuffix("-prior"))
            found[length][name] = {"dataset": dataset, **beside}
    lengths = truth_c_make.study_of(
        {"plain": {"dataset": "plain"}}, steps=GRID[-1], save_every=GRID[0], checkpoints=GRID, **every
    )
    others = {name: truth_c_make.study_of(found[name], steps=steps, **every) for name, steps in STEPS.items()}
    return truth_c_make.config_of(root, datasets=DATASETS, studies={"lengths": lengths} | others)


def draw_datasets(root: Path) -> None:
    """Every dataset; the same six held-out pictures, the same 24 to train on."""
    rng = random.Random(31415)
    good = truth_c_make.trained(truth_c_make.scenes(truth_c_make.VIEWS, rng), rng)
    held = truth_c_make.held_out(617)
    named, misnamed = truth_c_doses.named, truth_c_doses.misnamed
    places = len(truth_c_contexts.PLACES)
    moved = truth_c_contexts.moved(good, places=places, weathers=len(truth_c_contexts.WEATHERS))
    changed: dict[str, truth_c_make.Labelled] = {
        "plain": good,
        "misnamed": misnamed(good),
        "places": truth_c_contexts.moved(good, places=places),
        "moved": moved,
        "moved-left": named("", moved),
        "moved-misnamed": misnamed(moved),
    }
    truth_c_make.write_all(root, changed, held=held, rng=rng)
