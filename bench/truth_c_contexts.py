"""The fourth set of the truth test, level C: LoRAs that lose the context in doses, to ask whether T2 ranks the loss.

Of the doses' 15 LoRAs 13 lay within 0.05 of each other on the oracle's context. Here captions are swapped in doses, or
a place or a weather is called by another's name, always the same (as a person mislabels), in some places, all, or at
four lengths of one run; all in pictures, held-out pictures, noises and orders of swapping that no other set has. A
pilot of three LoRAs with pictures and noises of its own (not among these) was asked of the oracle alone, no metric: all
places and weathers misnamed cost 0.21 of the context after 64 steps, three places misnamed nothing.

No `preserve` is here. T2 falls by 0.2 when a LoRA is held to the base, though place and weather are kept: that is a
known error of the metric, told with the other sets. This set asks whether T2 ranks losses where there are some.

Forecast. Contexts, less the base's: 0 (`plain`, `moved@16`), -0.03 to -0.15 (swapped55 to 80, some misnamed, class
pictures), -0.2 to -0.35 (swapped90 and 100, moved@64 and after). By the spread from prompt to prompt of the doses'
pictures (0.1 at a small loss, 0.29 at a large one; of T2 0.2 and 0.41) 72 prompts know an arm's context to 0.01 to
0.04 and its T2 to 0.03 to 0.05. T2 differs between LoRAs that keep the context by some 0.07 besides. Simulated so,
halves of the pictures allow a correlation of 0.95, and T2's is 0.88 on average, below 0.8 once in eight. Concept and
leak are told as they come: nothing here spreads them but length, so 0.8 is expected of neither. Designed and committed
before a picture of it was made; scored once, no metric changed.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import truth_c_make
from vez.config import Config, Prompt
from vez.demo.make_project import hand_caption

STEPS = 64
GRID = (16, 32, 64, 128)
"""Steps of the run whose checkpoint is chosen, which loses the context as it learns; the others take `STEPS`."""
FIRST_NOISE = 90
"""No noise of the other studies."""
NOISES = 2

WRONG = {
    "moved@16": "all places and weathers called by another's name, a quarter of the usual length",
    "moved@32": "the same, half of the usual",
    "moved@64": "the same, the usual length",
    "moved": "the same, twice as long",
    "plain": "nothing: the usual length",
    "swapped55": "55 % of the captions swapped",
    "swapped70": "70 %",
    "swapped80": "80 %",
    "swapped90": "90 %",
    "swapped100": "all captions swapped",
    "swapped100-prior": "all captions swapped, class pictures beside it",
    "places4": "four of the places called by another's name",
    "places": "all places called by another's name",
    "weathers": "all weathers called by another's name",
}
SWAPPED = (55, 70, 80, 90, 100)
SHARES = {("B", "trigger"): (12, NOISES), ("D", "class"): (8, 1), ("E", "none"): (12, 2), ("F", "drift"): (8, 1)}
"""Prompts of the suite and noises of each; with those of `asked` 184 pictures for each arm, 144 of them scenes."""
WHO = (
    "a woman with black hair",
    "a girl with blonde hair",
    "a woman with red hair",
    "a girl with brown hair",
    "a woman with grey hair",
)
PLACES = ("city street", "forest", "beach", "stairs", "mountains", "flower field")
WEATHERS = ("sunny", "night", "snow", "sunset", "rain")
SAID = {"sunny": "sunny day", "night": "at night", "snow": "snow", "sunset": "sunset", "rain": "rain"}


def asked() -> tuple[Prompt, ...]:
    """Some of the suite's prompts, and each outdoor place in each weather twice."""
    trigger = truth_c_make.TRIGGER
    more = []
    for i, (place, weather, again) in enumerate(product(PLACES, WEATHERS, (0, 1))):
        id, who, rest = f"X{i + 1:02d}", WHO[(i + again) % len(WHO)], f", {place}, {SAID[weather]}"
        text = f"{trigger}, {who} wearing traditional {trigger}{rest}"
        given = {"id": id, "set": "B", "group": id, "role": "trigger", "text": text, "context": who + rest}
        more.append(Prompt.model_validate(given | {"seeds": NOISES}))
    return (*truth_c_make.prompts(SHARES), *more)


def project(root: Path) -> Config:
    """Its two studies: the run whose checkpoint is chosen, and the LoRAs of the usual length."""
    by_data = ("plain", *(f"swapped{share}" for share in SWAPPED), "places4", "places", "weathers")
    variants: Mapping[str, Mapping[str, object]] = {
        **{name: {"dataset": name} for name in by_data},
        "swapped100-prior": {"dataset": "swapped100", "prior": "class"},
    }
    return truth_c_make.config_of(
        root,
        datasets=(*by_data, "moved"),
        studies={
            "lengths": truth_c_make.study_of(
                {"moved": {"dataset": "moved"}},
                steps=GRID[-1],
                save_every=GRID[0],
                checkpoints=GRID,
                first_seed=FIRST_NOISE,
                asked=asked(),
            ),
            "usual": truth_c_make.study_of(variants, steps=STEPS, first_seed=FIRST_NOISE, asked=asked()),
        },
    )


def draw_datasets(root: Path) -> None:
    """Every dataset; the same six held-out pictures, the same 24 to train on."""
    rng = random.Random(1913)
    good = truth_c_make.trained(truth_c_make.scenes(truth_c_make.VIEWS, rng), rng)
    held = truth_c_make.held_out(389)
    changed: dict[str, truth_c_make.Labelled] = {
        "plain": good,
        **{f"swapped{share}": swapped(share / 100, random.Random(6000 + share), good) for share in SWAPPED},
        "places4": moved(good, places=4),
        "places": moved(good, places=len(PLACES)),
        "weathers": moved(good, weathers=len(WEATHERS)),
        "moved": moved(good, places=len(PLACES), weathers=len(WEATHERS)),
    }
    truth_c_make.write_all(root, changed, held=held, rng=rng)


def swapped(share: float, rng: random.Random, good: truth_c_make.Labelled) -> truth_c_make.Labelled:
    """A share of the pictures, drawn at random, bear each other's captions, none of them its own."""
    turned = rng.sample(range(len(good)), round(share * len(good)))
    words = {i: good[j][1] for i, j in zip(turned, turned[1:] + turned[:1], strict=True)}
    return [(scene, words.get(i, text)) for i, (scene, text) in enumerate(good)]


def moved(good: truth_c_make.Labelled, *, places: int = 0, weathers: int = 0) -> truth_c_make.Labelled:
    """The first so many places and weathers go by the next one's name, the last of them by the first one's."""
    rng = random.Random(14)
    other = dict(zip(PLACES[:places], PLACES[1:places] + PLACES[: min(places, 1)], strict=True))
    sky = dict(zip(WEATHERS[:weathers], WEATHERS[1:weathers] + WEATHERS[: min(weathers, 1)], strict=True))
    return [
        (scene, hand_caption(as_if, rng))
        for scene, _ in good
        for as_if in [
            replace(scene, place=other.get(scene.place, scene.place), weather=sky.get(scene.weather, scene.weather))
        ]
    ]
