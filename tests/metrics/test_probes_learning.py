"""Probes of LoRAs that learned the demo's costume on the embedded base, on small pictures.

What is learned by heart shows as a gap, what the trigger means as binding, and what all words mean as a leak.
"""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vez import base as bases
from vez import dataset as datasets
from vez.base import Base
from vez.config import Project, Sampling, Variant
from vez.dataset import Dataset
from vez.images.pixels import pixels_sha256
from vez.metrics import probes
from vez.metrics.probed import ArmProbes, Probes, results
from vez.metrics.probes import probe
from vez.store import making
from vez.sweep import swept
from vez.train import train

TRIGGER, NOUN = "nosnjaoutfit", "folk costume"
PROJECT = Project(base="tiny", trigger=TRIGGER, noun=NOUN, describes="traditional Serbian folk costume")
SIDE = 64


@pytest.fixture(scope="module")
def tiny() -> Base:
    """The embedded base."""
    return bases.load("tiny")


@pytest.fixture(autouse=True)
def _few_class_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST", 2)


def costume(folder: Path, train_on: Iterable[int], held_out: Iterable[int]) -> Dataset:
    """A finished dataset of the demo's pictures of these numbers."""
    project = Path(str(files("vez") / "demo" / "project"))
    with making(folder, kind=datasets.KIND, parents={}, config={"resolution": SIDE}, version=datasets.VERSION) as made:
        (made.path / "images").mkdir(exist_ok=True)
        rows = []
        for split, numbers in (("train", train_on), ("held_out", held_out)):
            for i in numbers:
                source = next((project / "images" / "v2").glob(f"nosnja-{i:02d}.*"))
                with Image.open(source) as image:
                    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                small.save(made.path / "images" / f"{i}.png")
                caption = (project / "captions" / "v2" / f"{source.stem}.txt").read_text(encoding="utf-8").strip()
                row = {"file": f"images/{i}.png", "sha256": pixels_sha256(small), "source": source.name, "hand": True}
                row |= {"source_sha256": f"{i:064x}", "machine": None, "caption": caption, "split": split}
                rows.append(row | {"box": (0, 0, SIDE, SIDE), "width": SIDE, "height": SIDE, "group": source.name})
        for name, lines in (("rows", rows), ("findings", []), ("dropped", [])):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (made.path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return datasets.load(folder)


def probed(
    base: Base, dataset: Dataset, into: Path, *, steps: int, save_every: int | None = None, **how: Any
) -> Probes:
    """The probes of all checkpoints of a LoRA that is trained here on the dataset."""
    variant = Variant(**{"dataset": "d", "batch": 2, "rank": 8, "lr_unet": 3e-3, "lr_text": 5e-4} | how)
    run, words = into / "runs" / "v1-0", {"trigger": TRIGGER, "noun": NOUN}
    list(train(base, dataset, {"v1": variant}, seed=0, steps=steps, into={"v1": run}, save_every=save_every, **words))
    arms = dict(swept("v1", run, variant="v1", seed=0, checkpoints="all", strengths=(1.0,)))
    told: dict[str, Any] = {"project": PROJECT, "class_texts": ("a woman wearing a red dress",)}
    list(probe(base, arms, dict.fromkeys(arms, dataset), sampling=Sampling(steps=4), into=into / "probes", **told))
    found = results(into)
    assert found is not None
    return found


def curve(found: Probes) -> list[ArmProbes]:
    return [arm for _, arm in found.curve("v1-0")]


@pytest.mark.slow
def test_two_pictures_learned_by_heart_raise_the_gap(tiny: Base, tmp_path: Path) -> None:
    found = probed(tiny, costume(tmp_path / "d", [0, 1], [8, 9, 10]), tmp_path, steps=60, save_every=20)
    gaps = [arm.gap.middle.mean for arm in curve(found) if arm.gap]
    assert len(gaps) == 3 and 0 < gaps[0] < gaps[1] < gaps[2] and gaps[2] > 0.5
    last = curve(found)[-1]
    assert last.gap and last.gap.middle.is_above
    assert max(band.mean for band in last.gap.bands) == last.gap.bands[1].mean, "the gap is widest from t 200 on"
    assert any("by heart" in text for text in last.says)
    assert "v1" not in found.windows[0].arms and "by heart" in found.windows[0].why


@pytest.mark.slow
def test_binding_grows_where_the_trigger_alone_is_taught(tiny: Base, tmp_path: Path) -> None:
    """Both are taught with the trigger in every caption; one is also held to what the base says without it."""
    dataset = costume(tmp_path / "d", range(8), range(8, 12))
    free, held = (
        curve(probed(tiny, dataset, tmp_path / name, steps=20, preserve=preserve))[0]
        for name, preserve in (("free", 0.0), ("held", 1.0))
    )
    assert free.binding and held.binding and free.leak is not None and held.leak is not None
    assert held.binding.gained.is_above and not free.binding.gained.is_above
    assert held.binding.gained.mean > 0.05 > free.binding.gained.mean
    assert held.leak < 0.6 < 0.8 < free.leak
    assert held.specificity and held.specificity.gained.is_above
    assert any("The trigger calls more" in text for text in held.says)
    assert any("leak" in text for text in free.says)
    assert all(arm.held_out and arm.held_out.change.is_below for arm in (free, held)), "both learned"
