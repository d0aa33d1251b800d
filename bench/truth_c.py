"""Truth test, level C: LoRAs with planted defects, judged by vez and by the oracle that knows the drawn world.

`python bench/truth_c.py make FOLDER` draws datasets, trains 16 LoRAs on `tiny` and samples them with the stages of
`vez.study`; cut short and called again it goes on (about 30 minutes of one core in all). `python bench/truth_c.py read
FOLDER` scores them, lets the oracle read the same pictures and prints what agrees; `--write docs/truth.md` puts it into
the page, its plot beside it and its numbers into bench/results/truth-c.json. `page` goes by those numbers.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from PIL import Image

import truth_c_read
from vez import study
from vez.config import Config, Prompt, Study
from vez.demo.make_project import hand_caption
from vez.demo.world.scene import Scene, draw, random_scene, training_scene
from vez.demo.world.words import caption
from vez.images.pixels import pixels_sha256
from vez.report.build import verdict_of
from vez.report.evidence import gather
from vez.suite.tiny import LINES

TRIGGER, WORD, NOUN, DESCRIBES = "nosnjaoutfit", "dress", "folk costume", "traditional Serbian folk costume"
HELD = {"full": 3, "upper": 2, "seated": 1}
VIEWS = {"full": 10, "upper": 5, "seated": 4, "lower": 1, "mannequin": 2, "doll": 2}
SIDE, BATCH = 128, 8
GRID = (8, 24, 80, 240)
"""Steps of the runs: 0.1, 0.3, 1 and 3 of the usual 80, which see 640 pictures."""
USUAL, LONG = GRID[2], GRID[3]
SHARES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("A", "trigger"): (4, 1),
    ("B", "trigger"): (8, 2),
    ("D", "class"): (8, 2),
    ("D", "wrong"): (8, 1),
    ("E", "none"): (6, 2),
    ("F", "drift"): (8, 2),
}
"""Prompts and noises of each set: 72 pictures for each arm."""
CHOOSING = {**SHARES, ("B", "trigger"): (12, 4)}
"""Where a checkpoint is chosen, set B is as large as in the standard profile: 104 pictures for each."""
SETTING = {"batch": BATCH, "rank": 16, "lr_unet": 1.5e-3, "lr_text": 2e-4, "min_snr": 5.0}

NUMBERS = Path(__file__).parent / "results" / "truth-c.json"
WRONG = {
    "good@8": "too short: 0.1 of the usual",
    "good@24": "too short: 0.3",
    "good@80": "nothing: the usual length",
    "good": "three times as long",
    "shuffled50": "half of the captions swapped",
    "shuffled100": "all captions swapped",
    "one-place": "always the same beach",
    "unnamed": "the costume is in no caption",
    "described": "plain words instead of the trigger",
    "wrong-noun": "called a skirt",
    "preserve": "nothing: held to the base without the trigger",
    "prior": "nothing: class pictures beside it",
    "hot": "five times the learning rate",
    "few12": "12 pictures, 1.5 times as long",
    "few5": "5 pictures, 1.5 times as long",
    "word": "the trigger is the word “dress”",
}

Labelled = list[tuple[Scene, str]]
"""Scenes and their captions."""


def main() -> None:
    """Make the study, or read it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("make", "read", "page"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("truth-c"))
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    given = parser.parse_args()
    if given.do == "make":
        make(given.folder)
        return
    data = json.loads(NUMBERS.read_text(encoding="utf-8")) if given.do == "page" else read(given.folder)
    text = truth_c_read.page(data, WRONG)
    if given.write is None:
        print(text)
        return
    old = given.write.read_text(encoding="utf-8")
    begin, end = old.index(truth_c_read.BEGIN), old.index(truth_c_read.END) + len(truth_c_read.END)
    given.write.write_text(old[:begin] + text + old[end:], encoding="utf-8")
    given.write.with_name(truth_c_read.PLOT).write_text(truth_c_read.plot(data), encoding="utf-8")
    NUMBERS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def configs(folder: Path) -> tuple[Config, ...]:
    """The two projects."""
    return project(folder / "main"), project(folder / "word", trigger=WORD)


def make(folder: Path) -> None:
    """All that costs time: datasets, LoRAs, pictures. What is there is not made again."""
    for config in configs(folder):
        if not (config.root / "images" / "whole").is_file():
            draw_datasets(config.root, word=config.project.trigger == WORD)
        for name in config.study:
            for stage in (study.train_runs, study.draw_samples):
                began, cpu = perf_counter(), process_time()
                for _ in stage(config, name, device="cpu"):
                    pass
                took = f"{perf_counter() - began:.0f} s, {process_time() - cpu:.0f} s of CPU"
                print(f"{config.root.name} {name} {stage.__name__}: {took}", flush=True)


def read(folder: Path) -> dict[str, Any]:
    """Score everything, ask the oracle, and see which checkpoint either would take."""
    for config in configs(folder):
        for name in config.study:
            for _ in study.score_samples(config, name, device="cpu"):
                pass
    names = {config.root.name: tuple(config.study) for config in configs(folder)}
    table = truth_c_read.arms(folder, names)
    lengths, copies = (folder / "main" / "studies" / name for name in ("lengths", "copies"))
    grid = {step: "good" if step == LONG else f"good@{step}" for step in GRID}
    found = verdict_of(gather(lengths))
    of_good = truth_c_read.gaps(lengths / "runs" / "good-0")
    few = {n: max(truth_c_read.gaps(copies / "runs" / f"few{n}-0").items())[1] for n in (12, 5)}
    return {
        "steps": list(GRID),
        "grid": list(grid),
        "oracle chooses": max(grid, key=lambda step: (table[grid[step]]["oracle whole"], -step)),
        "vez chooses": next((step for step, arm in grid.items() if arm == found.use), None),
        "vez says": found.sentence,
        "copies": {"24 pictures": round(of_good[LONG // 2], 4)}
        | {f"{n} pictures": round(gap, 4) for n, gap in few.items()},
        "gap of good by step": {str(step): round(gap, 4) for step, gap in of_good.items()},
        "apart": ["word"],
        "pictures": truth_c_read.picture_by_picture(folder, names),
        "arms": table,
    }


def project(root: Path, *, trigger: str = TRIGGER) -> Config:
    """The studies of one trigger word: defects of data and of settings, lengths, and copies."""
    names = ("word",) if trigger == WORD else ("good", *DEFECTS, "few12", "few5")
    tables = {name: {"images": f"images/{name}", "captions": f"captions/{name}", "held_out": sum(HELD.values())}
              for name in names}  # fmt: skip
    tables |= {"class": {"images": "images/class", "captions": "captions/class", "role": "class"}}
    studies = {"word": _study({"word": {"dataset": "word"}}, steps=USUAL)}
    if trigger != WORD:
        defects, words = ({name: {"dataset": name} for name in list(DEFECTS)[i : i + 3]} for i in (0, 3))
        settings = {"preserve": {"preserve": 1.0}, "prior": {"prior": "class"}, "hot": {"lr_unet": 7.5e-3}}
        others = {name: {"dataset": "good", **more} for name, more in settings.items()}
        few = {name: {"dataset": name} for name in ("few12", "few5")}
        studies = {
            "lengths": _study({"good": {"dataset": "good"}}, steps=LONG, save_every=GRID[0], checkpoints=GRID),
            "defects": _study(defects, steps=USUAL),
            "words": _study(words, steps=USUAL),
            "settings": _study(others, steps=USUAL),
            "copies": _study(few, steps=LONG // 2),
        }
    about = {"base": "tiny", "trigger": trigger, "noun": NOUN, "describes": DESCRIBES, "kind": "garment"}
    every = {"resolution": SIDE, "drop": ("unreadable",)}
    found = Config.model_validate(
        {"project": about, "dataset": {name: table | every for name, table in tables.items()}, "study": studies}
    )
    return found.model_copy(update={"root": root})


def _study(
    variants: Mapping[str, Mapping[str, object]],
    *,
    steps: int,
    save_every: int | None = None,
    checkpoints: Sequence[int] | None = None,
) -> Study:
    return Study.model_validate(
        {
            "steps": steps,
            "save_every": save_every,
            "validate_every": GRID[0] if save_every else steps,
            "variant": {name: SETTING | more for name, more in variants.items()},
            "suite": "own",
            "prompts": prompts(CHOOSING if checkpoints else SHARES),
            "sampling": {"steps": 10, "cfg": 4.0, "seeds": 1, "batch": 24, "checkpoints": checkpoints or "last"},
        }
    )


def prompts(shares: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[Prompt, ...]:
    """The sets A, B, D, E and F of the suite for `tiny`, the first prompts of each at few noises."""
    taken: dict[tuple[str, str], int] = {}
    found = []
    for prompt in LINES["garment"]:
        place = (str(prompt.set), prompt.role)
        most, seeds = shares.get(place, (0, 0))
        taken[place] = taken.get(place, 0) + 1
        if taken[place] <= most:
            found.append(prompt.model_copy(update={"seeds": seeds}))
    return tuple(found)


def _scenes(views: Mapping[str, int], rng: random.Random, *, place: str | None = None) -> list[Scene]:
    scenes = [random_scene(rng, view=view, costume=True) for view, n in views.items() for _ in range(n)]
    return [scene if place is None else replace(scene, place=place, weather="sunny") for scene in scenes]


def held_out() -> Labelled:
    """The six pictures that judge every LoRA: those that vez, which chooses by the hash of their pixels, holds out."""
    rng, found = random.Random(31), []
    for view, n in HELD.items():
        while sum(scene.view == view for scene, _ in found) < n:
            (scene,) = _scenes({view: 1}, rng)
            if _first(scene, 500 + len(found)) == "0":
                found.append((scene, hand_caption(scene, rng)))
    return found


def _first(scene: Scene, seed: int) -> str:
    return pixels_sha256(Image.fromarray(draw(scene, seed=seed, size=(SIDE, SIDE))[0]))[0]


def _trained(scenes: Sequence[Scene], rng: random.Random) -> Labelled:
    return [(scene, hand_caption(scene, rng)) for scene in scenes]


def _shuffled(share: float) -> Callable[[Labelled], Labelled]:
    """The first ``share`` of the pictures bear each other's captions."""

    def change(good: Labelled) -> Labelled:
        n = round(share * len(good))
        words = [text for _, text in good[:n]]
        turned = words[n // 2 :] + words[: n // 2]
        return [(scene, text) for (scene, _), text in zip(good[:n], turned, strict=True)] + good[n:]

    return change


def _reworded(replacements: Mapping[str, str]) -> Callable[[Labelled], Labelled]:
    def change(good: Labelled) -> Labelled:
        for old, new in replacements.items():
            good = [(scene, text.replace(old, new)) for scene, text in good]
        return good

    return change


def _one_place(good: Labelled) -> Labelled:
    return _trained(_scenes(VIEWS, random.Random(77), place="beach"), random.Random(5))


_LEAD, _WORN = f"{TRIGGER}, ", f"traditional {TRIGGER}"
DEFECTS: dict[str, Callable[[Labelled], Labelled]] = {
    "shuffled50": _shuffled(0.5),
    "shuffled100": _shuffled(1.0),
    "one-place": _one_place,
    "unnamed": _reworded({f" wearing {_WORN}": "", _LEAD: ""}),
    "described": _reworded({_WORN: DESCRIBES, _LEAD: ""}),
    "wrong-noun": _reworded({_WORN: f"{TRIGGER} skirt"}),
}
"""What is wrong with the datasets: captions swapped, always the same beach, the costume in no caption, in plain words
instead of the trigger, called a skirt."""


def draw_datasets(root: Path, *, word: bool) -> None:
    """Every dataset of a project: the same held-out pictures, 24 pictures to train on."""
    rng = random.Random(2027)
    good = _trained(_scenes(VIEWS, rng), rng)
    if word:
        _write(root, "word", _reworded({TRIGGER: WORD})(good), held=_reworded({TRIGGER: WORD})(held_out()))
    else:
        for name, change in {"good": lambda same: same, **DEFECTS}.items():
            held = held_out() if name == "one-place" else change(held_out())
            _write(root, name, change(good), held=held_out() if name.startswith("shuffled") else held)
        whole = [pair for pair in good if pair[0].view in ("full", "seated", "upper")]
        for n in (12, 5):
            _write(root, f"few{n}", [pair for pair in whole[:: len(whole) // n][:n]], held=held_out())
    others = [training_scene(rng) for _ in range(24)]
    _write(root, "class", [(scene, caption(scene, rng)) for scene in others], held=[])
    (root / "images" / "whole").touch()


def _write(root: Path, name: str, labelled: Labelled, *, held: Labelled) -> None:
    """PNGs and captions; ``few`` pictures are repeated until there are as many as elsewhere."""
    for kind in ("images", "captions"):
        (root / kind / name).mkdir(parents=True, exist_ok=True)
    copies = max(1, round(24 / len(labelled)))
    rows = [*(("held", i, 500 + i, *pair) for i, pair in enumerate(held)),
            *((f"copy{c}", i, i, *pair) for c in range(copies) for i, pair in enumerate(labelled))]  # fmt: skip
    for kind, i, seed, scene, words in rows:
        while kind != "held" and _first(scene, seed) == "0":
            seed += 1000  # only what is held out begins so: that is how vez comes to choose it
        Image.fromarray(draw(scene, seed=seed, size=(SIDE, SIDE))[0]).save(root / "images" / name / f"{kind}-{i}.png")
        (root / "captions" / name / f"{kind}-{i}.txt").write_text(words + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
