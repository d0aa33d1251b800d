"""Truth test, level C: LoRAs with planted defects, judged by vez and by the oracle that knows the drawn world.

`python bench/truth_c.py make FOLDER` draws datasets, trains six sets of LoRAs on `tiny` and samples them with the
stages of `vez.study`; cut short and called again it goes on. `probe FOLDER` asks two later sets' LoRAs without
drawing, and may be left out. `--only SET` does one of the later sets alone; what is known of the others stays. `read
FOLDER` scores all, lets the oracle read the same pictures and prints what agrees; `--write docs/truth.md` puts it into
the page, its plot beside it and its numbers into bench/results/truth-c.json. `page` goes by those numbers.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import truth_c_check
import truth_c_contexts
import truth_c_crossed
import truth_c_doses
import truth_c_page
import truth_c_read
import truth_c_spread
from truth_c_make import (
    DESCRIBES,
    TRIGGER,
    VIEWS,
    Labelled,
    config_of,
    held_out,
    reworded,
    scenes,
    shuffled,
    study_of,
    trained,
    write,
)
from vez import study
from vez.config import Config
from vez.demo.world.scene import training_scene
from vez.demo.world.words import caption

WORD = "dress"
GRID = (8, 24, 80, 240)
"""Steps of the runs: 0.1, 0.3, 1 and 3 of the usual 80, which see 640 pictures."""
USUAL, LONG = GRID[2], GRID[3]
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
LATER = {"check": truth_c_check, "doses": truth_c_doses, "contexts": truth_c_contexts,
         "spread": truth_c_spread, "crossed": truth_c_crossed}  # fmt: skip
"""Project whose LoRAs and datasets are told elsewhere → where."""
PROBED = ("doses", "contexts")
"""Sets whose LoRAs are asked without drawing too."""
GRIDS = {"check": ("sound", truth_c_check.GRID), "doses": ("dose", truth_c_doses.GRID),
         "contexts": ("moved", truth_c_contexts.GRID), "spread": ("plain", truth_c_spread.GRID),
         "crossed": ("plain", truth_c_crossed.GRID)}  # fmt: skip
"""Set → the run whose checkpoint is chosen, and its steps."""
WRONGS = {"first": WRONG} | {name: part.WRONG for name, part in LATER.items()}


def main() -> None:
    """Make the study, or read it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=("make", "probe", "read", "page"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("truth-c"))
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    parser.add_argument("--only", choices=LATER, help="one set; the others stay as they are known")
    given = parser.parse_args()
    if given.do in ("make", "probe"):
        {"make": make, "probe": probe}[given.do](given.folder, given.only)
        return
    data = {} if given.do == "read" and given.only is None else json.loads(NUMBERS.read_text(encoding="utf-8"))
    if given.do == "read":
        data |= read(given.folder) if given.only is None else {given.only: read_later(given.folder, given.only)}
    text = truth_c_page.page(data, WRONGS)
    if given.write is None:
        print(text)
        return
    old = given.write.read_text(encoding="utf-8")
    begin, end = old.index(truth_c_page.BEGIN), old.index(truth_c_page.END) + len(truth_c_page.END)
    given.write.write_text(old[:begin] + text + old[end:], encoding="utf-8")
    given.write.with_name(truth_c_page.PLOT).write_text(truth_c_page.plot(data), encoding="utf-8")
    NUMBERS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def configs(folder: Path) -> tuple[Config, ...]:
    """The two projects of the first LoRAs, and those of the later sets."""
    return (
        project(folder / "main"),
        project(folder / "word", trigger=WORD),
        *(part.project(folder / name) for name, part in LATER.items()),
    )


def wanted(folder: Path, only: str | None) -> tuple[Config, ...]:
    """All projects, or the one of a later set."""
    return configs(folder) if only is None else (LATER[only].project(folder / only),)


def make(folder: Path, only: str | None = None) -> None:
    """All that costs time: datasets, LoRAs, pictures. What is there is not made again."""
    for config in wanted(folder, only):
        if not (config.root / "images" / "whole").is_file():
            if config.root.name in LATER:
                LATER[config.root.name].draw_datasets(config.root)
            else:
                draw_datasets(config.root, word=config.project.trigger == WORD)
        for name in config.study:
            for stage in (study.train_runs, study.draw_samples):
                began, cpu = perf_counter(), process_time()
                for _ in stage(config, name, device="cpu"):
                    pass
                took = f"{perf_counter() - began:.0f} s, {process_time() - cpu:.0f} s of CPU"
                print(f"{config.root.name} {name} {stage.__name__}: {took}", flush=True)


def probe(folder: Path, only: str | None = None) -> None:
    """Ask LoRAs without drawing, which takes longer than to score them all."""
    for config in wanted(folder, only):
        for name in config.study if config.root.name in PROBED else ():
            for _ in study.probe_runs(config, name, device="cpu"):
                pass


def read(folder: Path) -> dict[str, Any]:
    """Score everything, ask the oracle, and see which checkpoint either would take."""
    main, word, *_ = configs(folder)
    found = {"first": _scored((main, word), "good", GRID)} | {name: read_later(folder, name) for name in LATER}
    of_good = truth_c_read.gaps(main.root / "studies" / "lengths" / "runs" / "good-0")
    copies = main.root / "studies" / "copies" / "runs"
    few = {f"{n} pictures": max(truth_c_read.gaps(copies / f"few{n}-0").items())[1] for n in (12, 5)}
    grown = {"24 pictures": of_good[LONG // 2]} | few
    return found | {
        "copies": {"first": {n: round(gap, 4) for n, gap in grown.items()}},
        "gap of good by step": {str(step): round(gap, 4) for step, gap in of_good.items()},
        "apart": {"first": ["word"]},
    }


def read_later(folder: Path, name: str) -> dict[str, Any]:
    """Score one of the later sets, and ask the oracle."""
    return _scored((LATER[name].project(folder / name),), *GRIDS[name])


def _scored(configs: Sequence[Config], run: str, grid: Sequence[int]) -> dict[str, Any]:
    """What is told of the LoRAs of some projects, the first of which has the run whose checkpoint is chosen."""
    for config in configs:
        for name in config.study:
            for _ in study.score_samples(config, name, device="cpu"):
                pass
    found = truth_c_read.read_set([of.root / "studies" / name for of in configs for name in of.study])
    names = {step: run if step == grid[-1] else f"{run}@{step}" for step in grid}
    lengths = configs[0].root / "studies" / "lengths"
    return found | {"checkpoint": truth_c_read.checkpoint(lengths, names, found["arms"])}


def project(root: Path, *, trigger: str = TRIGGER) -> Config:
    """The studies of one trigger word: defects of data and of settings, lengths, and copies."""
    names = ("word",) if trigger == WORD else ("good", *DEFECTS, "few12", "few5")
    studies = {"word": study_of({"word": {"dataset": "word"}}, steps=USUAL)}
    if trigger != WORD:
        defects, words = ({name: {"dataset": name} for name in list(DEFECTS)[i : i + 3]} for i in (0, 3))
        settings: dict[str, dict[str, object]] = {
            "preserve": {"preserve": 1.0},
            "prior": {"prior": "class"},
            "hot": {"lr_unet": 7.5e-3},
        }
        others = {name: {"dataset": "good", **more} for name, more in settings.items()}
        few = {name: {"dataset": name} for name in ("few12", "few5")}
        studies = {
            "lengths": study_of({"good": {"dataset": "good"}}, steps=LONG, save_every=GRID[0], checkpoints=GRID),
            "defects": study_of(defects, steps=USUAL),
            "words": study_of(words, steps=USUAL),
            "settings": study_of(others, steps=USUAL),
            "copies": study_of(few, steps=LONG // 2),
        }
    return config_of(root, datasets=names, studies=studies, trigger=trigger)


def _one_place(good: Labelled) -> Labelled:
    return trained(scenes(VIEWS, random.Random(77), place="beach"), random.Random(5))


_LEAD, _WORN = f"{TRIGGER}, ", f"traditional {TRIGGER}"
DEFECTS: dict[str, Callable[[Labelled], Labelled]] = {
    "shuffled50": shuffled(0.5),
    "shuffled100": shuffled(1.0),
    "one-place": _one_place,
    "unnamed": reworded({f" wearing {_WORN}": "", _LEAD: ""}),
    "described": reworded({_WORN: DESCRIBES, _LEAD: ""}),
    "wrong-noun": reworded({_WORN: f"{TRIGGER} skirt"}),
}
"""What is wrong with the datasets: captions swapped, always the same beach, the costume in no caption, in plain words
instead of the trigger, called a skirt."""


def draw_datasets(root: Path, *, word: bool) -> None:
    """Every dataset of a project: the same held-out pictures, 24 pictures to train on."""
    rng = random.Random(2027)
    good = trained(scenes(VIEWS, rng), rng)
    if word:
        write(root, "word", reworded({TRIGGER: WORD})(good), held=reworded({TRIGGER: WORD})(held_out()))
    else:
        for name, change in {"good": lambda same: same, **DEFECTS}.items():
            held = held_out() if name == "one-place" else change(held_out())
            write(root, name, change(good), held=held_out() if name.startswith("shuffled") else held)
        whole = [pair for pair in good if pair[0].view in ("full", "seated", "upper")]
        for n in (12, 5):
            write(root, f"few{n}", [pair for pair in whole[:: len(whole) // n][:n]], held=held_out())
    others = [training_scene(rng) for _ in range(24)]
    write(root, "class", [(scene, caption(scene, rng)) for scene in others], held=[])
    (root / "images" / "whole").touch()


if __name__ == "__main__":
    main()
