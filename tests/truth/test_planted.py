"""Truth test, level C: LoRAs with planted defects (bench/truth_c.py); the committed numbers, their page, their plot."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from vez import study
from vez.dataset import load
from vez.events import EventLog, Validated

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "truth.md"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "bench"))
    yield importlib.import_module("truth_c")
    sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def data(bench: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench.NUMBERS.read_text(encoding="utf-8"))
    return found


def test_page_and_plot_are_made_of_the_committed_numbers(bench: ModuleType, data: dict[str, Any]) -> None:
    reader, text = bench.truth_c_read, PAGE.read_text(encoding="utf-8")
    section = text[text.index(reader.BEGIN) : text.index(reader.END) + len(reader.END)]
    assert section == reader.page(data, bench.WRONG), "run: python bench/truth_c.py page --write docs/truth.md"
    plot = PAGE.with_name(reader.PLOT).read_text(encoding="utf-8")
    assert plot == reader.plot(data)
    label = ElementTree.fromstring(plot).attrib["aria-label"]
    assert all(name in label for name in reader.AXES)


def test_at_least_twelve_loras_and_every_defect_is_there(bench: ModuleType, data: dict[str, Any]) -> None:
    assert data["arms"].keys() == bench.WRONG.keys() and len(data["arms"]) >= 12
    trained = {name for config in bench.configs(Path("x")) for s in config.study.values() for name in s.variant}
    assert trained == {arm.partition("@")[0] for arm in data["arms"]}


def test_what_is_asked_is_answered_from_the_numbers(bench: ModuleType) -> None:
    arms = {f"a{i}": {"oracle concept": i / 10, "vez similarity": i / 9, "oracle context": -i / 10, "vez T2": -i / 8,
                      "oracle leak": i / 10, "vez leak": -i / 10} for i in range(10)}  # fmt: skip
    data = {
        "arms": arms,
        "apart": [],
        "pictures": {},
        "copies": {"24 pictures": 0.1, "12 pictures": 0.3, "5 pictures": 0.2},
        "grid": [8, 24, 80, 240],
        "oracle chooses": 80,
        "vez chooses": 240,
    }
    f, p, lk, gap, step, *limits = list(bench.truth_c_read.results(data))
    assert f.right and p.right and not lk.right and not gap.right and step.right
    assert "0.50, and it parts them" in limits[0].found and "overlap" in limits[1].found
    (step,) = [row for row in bench.truth_c_read.results(data | {"vez chooses": 8}) if "checkpoint" in row.what]
    assert not step.right
    (step,) = [row for row in bench.truth_c_read.results(data | {"vez chooses": None}) if "checkpoint" in row.what]
    assert not step.right


def test_the_gap_is_what_trained_pictures_fell_more(bench: ModuleType, tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        for step, trained, held in ((0, 1.0, 1.0), (5, 0.5, 0.8)):
            for split, middle in (("train", trained), ("held_out", held)):
                bands = (9.0, 9.0, middle, middle, middle, 9.0, 9.0, 9.0)
                log.append(Validated("r-0", step, middle, bands, split))
    assert bench.truth_c_read.gaps(tmp_path) == pytest.approx({0: 0.0, 5: 0.470}, abs=1e-3)


def test_every_dataset_holds_out_the_same_pictures(bench: ModuleType, tmp_path: Path) -> None:
    (config, _) = bench.configs(tmp_path)
    bench.draw_datasets(config.root, word=False)
    held = []
    for name in ("good", "shuffled100", "few5"):
        *_, done = bench.study.build_datasets(config, [name])
        dataset = load(done.artifact_path)
        assert len(dataset.train) in (24, 25)
        held.append({row.source_sha256 for row in dataset.held_out})
        assert all(row.source.startswith("held") for row in dataset.held_out)
    assert held[0] == held[1] == held[2] and len(held[0]) == 6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_lora_that_is_made_again_says_the_same(bench: ModuleType, data: dict[str, Any], tmp_path: Path) -> None:
    (config, _) = bench.configs(tmp_path)
    bench.draw_datasets(config.root, word=False)
    of = config.study["defects"]
    one = of.model_copy(update={"variant": {"shuffled100": of.variant["shuffled100"]}})
    config = config.model_copy(update={"study": {"one": one}})
    for stage in (study.train_runs, study.draw_samples, study.score_samples):
        for _ in stage(config, "one", device="cpu"):
            pass
    found = bench.truth_c_read.arms(tmp_path, {"main": ["one"]})["shuffled100"]
    before = data["arms"]["shuffled100"]
    for name in ("oracle concept", "oracle context", "oracle leak", "vez similarity", "vez leak", "vez T2"):
        assert found[name] == pytest.approx(before[name], abs=0.15), name
