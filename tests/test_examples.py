"""The examples: each loads, is planned for Stable Diffusion 1.5, and trains, made small, on the base in the package."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vez import config, study
from vez.config import Config
from vez.dataset import load as load_dataset
from vez.events import Saved, Step

ROOT = Path(__file__).parents[1] / "src" / "vez" / "examples"
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("*/vez.toml"))
PICTURES = 7


def filled(name: str, folder: Path) -> Config:
    """The example with drawn pictures and captions in its folders."""
    shutil.copytree(ROOT / name, folder, dirs_exist_ok=True)
    loaded = config.load(folder / "vez.toml")
    dice = np.random.default_rng(1)
    for dataset, recipe in loaded.dataset.items():
        captions = folder / (recipe.captions or f"captions/{dataset}")
        captions.mkdir(parents=True, exist_ok=True)
        (folder / recipe.images).mkdir(parents=True, exist_ok=True)
        for i in range(PICTURES):
            squares = dice.integers(0, 256, (48, 40, 3), dtype=np.uint8)
            image = Image.fromarray(squares).resize((640, 768), Image.Resampling.NEAREST)
            image.save(folder / recipe.images / f"{dataset}-{i}.png", compress_level=1)
            for crop in recipe.crops:
                stem = f"{dataset}-{i}" + ("" if crop == "full" else f".{crop}")
                (captions / f"{stem}.txt").write_text(
                    loaded.project.expand(f"{{trigger}} {{noun}}, {{trigger}} {{noun}} number {i}, {crop}")
                )
    return loaded


def small(loaded: Config) -> Config:
    """Of the same kind in every setting, on `tiny`, at 64 px, of at most two pictures, for two steps."""
    project = loaded.project.model_copy(update={"base": "tiny"})
    datasets = {
        name: recipe.model_copy(
            update={"resolution": 64, "drop": ("unreadable",), "captions": recipe.captions or Path(f"captions/{name}")}
        )
        for name, recipe in loaded.dataset.items()
    }
    short = {"steps": 2, "images_seen": None, "epochs": None, "save_every": None, "validate_every": None}
    studies = {
        name: one.model_copy(
            update=short
            | {"variant": {v: of.model_copy(update={"batch": min(of.batch, 2)}) for v, of in one.variant.items()}}
        )
        for name, one in loaded.study.items()
    }
    return loaded.model_copy(update={"project": project, "dataset": datasets, "study": studies})


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_planned_and_trains(name: str, tmp_path: Path) -> None:
    loaded = filled(name, tmp_path)
    (of,) = loaded.study
    told = study.plan(loaded, of).text()
    assert all(re.search(rf"^    {variant} ", told, re.MULTILINE) for variant in loaded.study[of].variant)
    events = list(study.train_runs(small(loaded), of, device="cpu"))
    ran = {event.run for event in events if isinstance(event, Step)}
    assert ran == {f"{v}-{seed}" for v in loaded.study[of].variant for seed in loaded.study[of].seeds}
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert len(losses) == 2 * len(ran) and np.isfinite(losses).all()
    assert len([event for event in events if isinstance(event, Saved)]) == len(ran)
    for folder in (tmp_path / ".vez" / "datasets").glob("[a-z]*"):
        dataset = load_dataset(folder)
        assert all(row.hand and loaded.project.trigger in row.caption for row in dataset.rows)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_says_what_to_collect_how_to_caption_and_what_to_check(name: str) -> None:
    page = (ROOT / name / "README.md").read_text(encoding="utf-8")
    assert all(f"**{word}" in page for word in ("Collect", "Caption", "Check"))
    assert f"]({name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_reference_studys_files_have_its_sizes(tmp_path: Path) -> None:
    loaded = filled("reference-study", tmp_path)
    made = study.plan(loaded, "nosnja")
    assert {name: size / 2**20 for name, size in made.file_bytes.items()} == {"v1": 36, "v2": 36, "v3": 72, "v4": 72}
    assert {one.variants: one.steps for one in made.passes} == {("v1",): 3400, ("v2", "v3", "v4"): 425}
    assert made.length == "3400 pictures seen each"
