"""Datasets with planted defects, written as `build` writes them."""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vez import dataset as datasets
from vez import demo
from vez.config import Config
from vez.dataset import Dataset, Row
from vez.demo.world.scene import Scene, draw, random_scene
from vez.demo.world.words import VIEW_WORDS, WEATHER_WORDS
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance
from vez.lint.artifact import Lint, load
from vez.lint.stage import lint
from vez.lint.tokens import Tokens
from vez.metrics.embed import Clip
from vez.store import making

TRIGGER = "zolkavet"
PROJECT = {"base": "tiny", "trigger": TRIGGER, "noun": "folk costume", "describes": "traditional Serbian folk costume"}
DEMO = Path(demo.__file__).parent / "project"
POSE_WORDS = {
    "standing": "standing",
    "waving": "waving",
    "arms raised": "arms raised",
    "hands on hips": "hands on hips",
}


def config_of(root: Path, *, name: str = "v1", project: Mapping[str, Any] | None = None, **recipe: Any) -> Config:
    table = {
        "project": PROJECT | dict(project or {}),
        "dataset": {name: {"images": "images", "resolution": 128} | recipe},
        "root": root,
    }
    return Config.model_validate(table)


def grey(number: int) -> Image.Image:
    """A picture that nobody needs to look at."""
    return Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 90))


def row_of(i: int, caption: str, **values: Any) -> Row:
    """The i-th row: a source of its own."""
    blank = Row(
        file=f"images/{i:04d}.png",
        sha256="",
        source=f"{i:04d}.jpg",
        source_sha256=f"{i:064x}",
        machine=None,
        caption=caption,
        hand=True,
        split="train",
        width=128,
        height=128,
        group=f"g{i}",
    )
    return replace(blank, **values)


def frozen(
    root: Path,
    rows: Iterable[Row],
    pictures: Callable[[int], Image.Image] = grey,
    provenance: Iterable[Provenance] = (),
    *,
    name: str = "v1",
) -> Dataset:
    """A finished dataset of these rows."""
    rows = list(rows)
    folder = root / ".vez" / "datasets" / f"{name}-00000000"
    told = {"resolution": 128, "rows": repr(rows), "records": repr(provenance)}
    with making(folder, kind=datasets.KIND, parents={}, config=told, version=datasets.VERSION) as made:
        (made.path / "images").mkdir(exist_ok=True)
        lines = []
        for i, row in enumerate(rows):
            picture = pictures(i)
            picture.save(made.path / row.file)
            lines.append(asdict(replace(row, sha256=pixels_sha256(picture))))
        records = [{key: value for key, value in asdict(p).items() if value} for p in provenance]
        files = {"rows": lines, "findings": [], "dropped": [], "provenance": records}
        for file, of in files.items():
            (made.path / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in of), encoding="utf-8")
    return datasets.load(folder)


def linted(config: Config, dataset: Dataset, *, tokens: Tokens, clip: Clip | None = None, name: str = "v1") -> Lint:
    into = config.root / ".vez" / "lints" / dataset.path.name
    events = list(lint(config, name, dataset, into=into, clip=clip, tokenizer=tokens, cache=config.root / "cache"))
    assert type(events[-1]).__name__ == "Done"
    return load(into)


def checks(found: Lint, *levels: str) -> list[str]:
    """The checks that fired, each once, in alphabetical order."""
    return sorted({f.check for f in found.findings if f.level in (levels or ("error", "warning")) and not f.waived})


def good_scenes(count: int, *, seed: int = 3) -> list[Scene]:
    """Scenes of the costume, spread over framings, poses, places and lights as a careful person's would be."""
    dice = random.Random(seed)
    views = ("full", "upper", "seated", "full", "upper", "lower")
    return [random_scene(dice, view=views[i % len(views)], costume=True) for i in range(count)]


def told(scene: Scene) -> str:
    """A true caption: trigger, wearer (of some the hair), class noun, pose, place, light."""
    who = scene.person
    words = f"a {who.kind}" + (f" with {who.hair} hair" if scene.view != "lower" and who.skin % 2 else "")
    words += f" wearing a {TRIGGER} folk costume"
    if scene.view in VIEW_WORDS:
        words = VIEW_WORDS[scene.view][0].format(words)
    elif who.alive:
        words += f" {POSE_WORDS[scene.pose]}"
    parts = [words, scene.place, WEATHER_WORDS[scene.weather][0]]
    return ", ".join(part for part in parts if part)


def drawn(scenes: list[Scene]) -> Callable[[int], Image.Image]:
    return lambda i: Image.fromarray(np.asarray(draw(scenes[i], seed=500 + i, size=(128, 128), fine=2)[0]))
