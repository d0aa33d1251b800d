"""Truth test, level C: LoRAs with planted defects (bench/truth_c.py); the committed numbers, their page, their plot."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
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
    writer, text = bench.truth_c_page, PAGE.read_text(encoding="utf-8")
    section = text[text.index(writer.BEGIN) : text.index(writer.END) + len(writer.END)]
    assert section == writer.page(data, bench.WRONGS), "run: python bench/truth_c.py page --write docs/truth.md"
    plot = PAGE.with_name(writer.PLOT).read_text(encoding="utf-8")
    assert plot == writer.plot(data)
    label = ElementTree.fromstring(plot).attrib["aria-label"]
    assert all(f"{title}, {name}" in label for title in writer.SETS.values() for name in writer.TITLES)


def test_at_least_twelve_loras_and_every_defect_is_there(bench: ModuleType, data: dict[str, Any]) -> None:
    main, word, *later = bench.configs(Path("x"))
    for name, configs in {"first": [main, word], **{of.root.name: [of] for of in later}}.items():
        wrong = bench.WRONGS[name]
        trained = {variant for config in configs for s in config.study.values() for variant in s.variant}
        assert trained == {arm.partition("@")[0] for arm in wrong} and len(wrong) >= 12
        assert name not in bench.truth_c_page.SETS or data[name]["arms"].keys() == wrong.keys()


def test_every_set_has_other_pictures_and_noises(bench: ModuleType, tmp_path: Path) -> None:
    main, _, *later = bench.configs(tmp_path)
    last = 0
    for config in (main, *later):
        (first,) = {s.sampling.first_seed for s in config.study.values()}
        assert first >= last
        last = first + max(prompt.seeds or 0 for s in config.study.values() for prompt in s.prompts)
    held = [{str(pair) for pair in bench.held_out(seed)} for seed in (31, 131, 257, 389, 521, 617)]
    assert len(set().union(*held)) == sum(map(len, held)), "no picture is held out twice"


def captions_in(root: Path) -> dict[str, list[str]]:
    """Dataset → the captions of its training pictures, in order."""
    folders = (root / "captions").iterdir()
    return {of.name: [path.read_text() for path in sorted(of.glob("copy*.txt"))] for of in folders}


def test_the_doses_ask_for_more_and_their_captions_say_less(bench: ModuleType, tmp_path: Path) -> None:
    doses = bench.truth_c_doses
    asked = doses.asked()
    assert sum(prompt.seeds for prompt in asked) == 212 and len({prompt.id for prompt in asked}) == len(asked)
    doses.draw_datasets(tmp_path)
    said = captions_in(tmp_path)
    called = {name: sum(bench.TRIGGER in caption for caption in of) / len(of) for name, of in said.items()}
    called = {name: called[name] for name in ("dose", "left50", "left100", "misnamed")}
    assert called == {"dose": 1.0, "left50": 0.5, "left100": 0.0, "misnamed": 0.0}
    assert all("wearing a" in caption for caption in said["misnamed"])


def test_the_spread_takes_each_axis_apart(bench: ModuleType, tmp_path: Path) -> None:
    spread = bench.truth_c_spread
    asked = spread.asked()
    assert sum(prompt.seeds for prompt in asked) == 256 and len({prompt.id for prompt in asked}) == len(asked)
    spread.draw_datasets(tmp_path)
    said = captions_in(tmp_path)
    called = {name: sum(bench.TRIGGER in text for text in texts) / 24 for name, texts in said.items()}
    assert called == {"plain": 1, "places4": 1, "places": 1, "moved": 1, "misnamed50": 0.5} | dict.fromkeys(
        ("left100", "misnamed", "moved-left", "class"), 0
    )
    away = {name: sum(a != b for a, b in zip(said[name], said["plain"], strict=True)) for name in ("places4", "places")}
    assert 6 <= away["places4"] < away["places"]


def test_the_crossed_are_the_spreads_prompts_and_their_captions_lie(bench: ModuleType, tmp_path: Path) -> None:
    crossed = bench.truth_c_crossed
    config = crossed.project(tmp_path)
    of = {name: variant for study in config.study.values() for name, variant in study.variant.items()}
    assert of["moved-prior-longest"].prior == of["prior"].prior == "class" and of["moved-longest"].prior is None
    assert (of["moved-prior-longest"].dataset, of["prior"].dataset) == ("moved", "plain")
    assert of["moved-misnamed-long"].dataset == "moved-misnamed"
    crossed.draw_datasets(tmp_path)
    said = captions_in(tmp_path)
    assert {name for name, texts in said.items() if any(bench.TRIGGER in text for text in texts)} == {
        "plain", "places", "moved"
    }  # fmt: skip
    assert sum(a != b for a, b in zip(said["moved"], said["plain"], strict=True)) > 12


def test_the_contexts_lose_the_context_in_doses(bench: ModuleType, tmp_path: Path) -> None:
    contexts = bench.truth_c_contexts
    asked = contexts.asked()
    assert sum(prompt.seeds for prompt in asked) == 184 and len({prompt.id for prompt in asked}) == len(asked)
    own = [prompt for prompt in asked if prompt.id.startswith("X")]
    around = [bench.truth_c_read.asked(prompt.text) for prompt in own]
    assert len(set(around)) == 30 and len(own) == 60 and all(place and weather for place, weather in around)
    contexts.draw_datasets(tmp_path)
    said = {}
    for name in ("plain", *(f"swapped{share}" for share in contexts.SWAPPED), "places4", "places", "weathers", "moved"):
        captions = [path.read_text() for path in sorted((tmp_path / "captions" / name).glob("copy*.txt"))]
        assert all(bench.TRIGGER in caption for caption in captions) and len(captions) == 24
        said[name] = [bench.truth_c_read.asked(caption) for caption in captions]
    other = {name: sum(a != b for a, b in zip(of, said["plain"], strict=True)) for name, of in said.items()}
    assert other["plain"] == 0 < other["swapped55"] <= other["swapped70"] <= other["swapped80"] <= other["swapped100"]
    assert 0 < other["places4"] < other["places"] and 0 < other["weathers"] <= other["moved"] < 24
    assert all(a[0] != b[0] for a, b in zip(said["places"], said["plain"], strict=True) if b[1] != "indoors")


def test_the_words_about_the_sets_are_those_of_the_numbers(bench: ModuleType, data: dict[str, Any]) -> None:
    """What the page says above its tables; the tables are held elsewhere."""
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("## Level C") : text.index(bench.truth_c_page.BEGIN)]
    rank, arms = bench.truth_c_page.rank, {name: data[name]["arms"] for name in bench.truth_c_page.SETS}
    by_set = {
        short: [round(rank(of, *pair), 2) for of in arms.values()] for short, pair in bench.truth_c_page.AXES.items()
    }
    assert by_set == {
        "F": [0.67, 0.63, 0.80, 0.42, 0.93, 0.93],
        "P": [0.62, 0.48, 0.62, 0.86, 0.69, 0.99],
        "LK": [0.38, 0.75, 0.86, 0.72, 0.82, 0.92],
    }
    assert "0.80, at the very edge, and 0.86; and on the spread, 0.93 and 0.82" in text
    assert "on the others: 0.62, 0.48, 0.62" in text
    assert [round(rank(of, "effect", "trigger_effect"), 2) for of in arms.values()][2:] == [0.75, -0.10, 0.85, 0.56]
    aucs = [data[name]["pictures"]["similarity"]["auc"] for name in arms]
    assert f"AUC {min(aucs):.2f} to {max(aucs):.2f}" in text

    contexts = arms["contexts"]
    lost = {name: of for name, of in contexts.items() if of["oracle context"] < -0.1}
    kept = {name: of for name, of in contexts.items() if of["oracle context"] > -0.03}
    assert len(lost) == len(kept) == 7 and round(rank(lost, "context", "T2"), 2) == 0.5
    assert sum(bad["vez T2"] < good["vez T2"] for bad in lost.values() for good in kept.values()) == 48
    times = {name: round(of["vez T2"] / of["oracle context"], 1) for name, of in lost.items()}
    swapped = {name for name in contexts if name.startswith("swapped")}
    spans = [sorted(n for name, n in times.items() if (name in swapped) is of) for of in (True, False)]
    assert [(span[0], span[-1]) for span in spans] == [(1.8, 2.9), (1.3, 1.6)]
    assert round(rank({n: of for n, of in contexts.items() if n not in swapped}, "concept", "similarity"), 2) == 0.9

    every = [of for table in arms.values() for of in table.values()]
    sound = [of["vez T2"] for of in every if of["oracle context"] > -0.1]
    other = [of["vez T2"] for of in every if of["oracle context"] <= -0.1]
    assert len(sound) == 68 and round(-min(sound), 2) == 0.36 and sum(value < -0.45 for value in other) == 15
    assert len(other) == 26
    of_leak = [of["vez leak"] for of in every if of["oracle leak"] < 0.1]
    assert (sum(value > 0.1 for value in of_leak), len(of_leak)) == (22, 24)
    assert [sum(of["vez repeats"] > 0.25 for of in table.values()) for table in arms.values()] == [1, 0, 1, 11, 10, 12]
    assert all(of["vez copying"] < 0.03 for of in contexts.values())
    strayed = [of for name in ("doses", "contexts") for of in arms[name].values() if of["oracle strayed"] > 0.1]
    assert (sum(of["vez unrelated"] > -0.3 for of in strayed), len(strayed)) == (7, 10)

    probed = {name: [row[2:] for row in told] for name, told in by_probe(bench, data).items()}
    assert probed["fell"] == [["oracle leak", "0.71 over 15", ""], ["oracle leak", "0.71 over 14", ""]]
    assert [row[1:] for row in probed["binding"] if row[0] == "oracle effect"] == [
        ["0.50 over 15", "13 of 15"],
        ["-0.43 over 14", "13 of 14"],
    ]
    harmful = [of for of in every if of["oracle effect"] < 0 and "probe binding" in of]
    assert (sum(of["probe binding"] < 0 for of in harmful), len(harmful)) == (1, 4)


def test_the_words_about_the_last_two_sets_are_those_of_the_numbers(bench: ModuleType, data: dict[str, Any]) -> None:
    text, rank = PAGE.read_text(encoding="utf-8"), bench.truth_c_page.rank
    arms = {name: data[name]["arms"] for name in ("spread", "crossed")}
    spread = arms["spread"]
    gone = {name: of["vez T2"] for name, of in spread.items() if of["oracle context"] < -0.1}
    there = {name: of["vez T2"] for name, of in spread.items() if name not in gone}
    assert (
        len(gone) == 4 and max(gone.values()) < min(there.values()) and min(there, key=there.__getitem__) == "preserve"
    )
    assert round(rank({n: of for n, of in spread.items() if n != "preserve"}, "context", "T2"), 2) == 0.78
    assert sum(value < -0.3 for value in gone.values()) == 4 and sum(value < -0.45 for value in gone.values()) == 2
    assert [name for name, value in there.items() if value < -0.3] == ["preserve"]

    assert "on the crossed 0.93 (concept), 0.99 (context) and 0.92 (leak)" in text
    crossed = arms["crossed"]
    gone = {name: of for name, of in crossed.items() if of["oracle context"] < -0.1}
    falls = [[of["vez T2"] for name, of in crossed.items() if (name in gone) is lost] for lost in (True, False)]
    assert len(gone) == 10 and round(rank(gone, "context", "T2"), 2) == 0.99 and max(falls[0]) < min(falls[1])
    assert [sum(value < -limit for value in falls[0]) for limit in (0.3, 0.45)] == [10, 9] and min(falls[1]) > -0.3
    chosen = data["crossed"]["checkpoint"]
    assert (chosen["vez chooses"], chosen["oracle chooses"]) == (64, 192)
    assert "is not distinguishable from it; it took fewer steps" in chosen["vez says"]


def by_probe(bench: ModuleType, data: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The page's rows of each probe."""
    words = {title: probe for probe, title in bench.truth_c_page.WORDS.items()}
    found: dict[str, list[list[str]]] = {probe: [] for probe in words.values()}
    for row in bench.truth_c_page.probes(data):
        found[words[row[1]]].append(row)
    return found


def answered(arms: dict[str, dict[str, float]], **more: Any) -> dict[str, Any]:
    chosen = {"grid": [8, 24, 80, 240], "oracle chooses": 80, "vez chooses": 240} | more
    halves = {metric: {"ceiling": 0.9} for metric in ("similarity", "T2", "leak")}
    part = {"arms": arms, "halves": halves, "pictures": {}, "checkpoint": chosen}
    return {
        "first": part,
        "copies": {"first": {"24 pictures": 0.1, "12 pictures": 0.3, "5 pictures": 0.2}},
        "apart": {},
    }


def test_what_is_asked_is_answered_from_the_numbers(bench: ModuleType) -> None:
    arms = {f"a{i}": {"oracle concept": i / 10, "vez similarity": i / 9, "oracle context": -i / 10, "vez T2": -i / 8,
                      "oracle leak": i / 10, "vez leak": -i / 10} for i in range(10)}  # fmt: skip
    writer = bench.truth_c_page
    f, p, lk, gap, step = list(writer.results(answered(arms), "first"))
    assert f.right and p.right and not lk.right and not gap.right and step.right and "0.90" in f.asked
    for named in (8, None):
        *_, step = writer.results(answered(arms, **{"vez chooses": named}), "first")
        assert "checkpoint" in step.what and not step.right


def test_a_limit_lies_where_it_misjudges_least(bench: ModuleType) -> None:
    halves, writer = bench.truth_c_page.truth_c_halves, bench.truth_c_page
    assert halves.line([0.5, 0.7, 0.9], [0.1, 0.3], keep="above") == pytest.approx(0.4)
    assert halves.line([0.1, 0.3], [0.5, 0.7, 0.2], keep="below") == pytest.approx(0.4)
    assert halves.line([0.1], [], keep="below") is None
    assert halves.area([2.0, 3.0], [1.0, 2.0]) == 0.875
    assert writer.misjudged([0.5, 0.2], [0.1, 0.6], 0.3, higher=True) == "1 of 2 stopped, 1 of 2 let pass, AUC 0.50"
    assert writer.misjudged([], [], 0.3, higher=True) == "not measured"
    assert writer.misjudged([0.1, 0.2], [0.5], 0.3, higher=False) == "0 of 2 stopped, 0 of 1 let pass, AUC 1.00"


def test_halves_tell_how_far_a_correlation_can_go(bench: ModuleType) -> None:
    rng, halves = np.random.default_rng(1), bench.truth_c_page.truth_c_halves
    keys = [(f"p{i}", noise) for i in range(12) for noise in range(2)]
    sure = {f"a{k}": {key: (k + rng.normal(0, 0.1), rng.normal()) for key in keys} for k in range(16)}
    found = halves.reliability(sure)
    assert found["oracle"] > 0.97 and found["metric"] < 0.6, "one is steady, the other is luck alone"
    assert found["ceiling"] == pytest.approx((found["oracle"] * found["metric"]) ** 0.5, abs=2e-3)
    assert halves.reliability({"a": {("p0", 0): (0.1, 0.2)}}) == {}, "one LoRA has no rank"
    assert halves.predicted({"oracle": 0.5, "metric": 0.8}, times=1) == pytest.approx(0.4**0.5)
    assert halves.predicted({"oracle": 0.5, "metric": 0.5}, times=3) == pytest.approx(0.75)


def test_the_gap_is_what_trained_pictures_fell_more(bench: ModuleType, tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        for step, trained, held in ((0, 1.0, 1.0), (5, 0.5, 0.8)):
            for split, middle in (("train", trained), ("held_out", held)):
                bands = (9.0, 9.0, middle, middle, middle, 9.0, 9.0, 9.0)
                log.append(Validated("r-0", step, middle, bands, split))
    assert bench.truth_c_read.gaps(tmp_path) == pytest.approx({0: 0.0, 5: 0.470}, abs=1e-3)


def test_every_dataset_holds_out_the_same_pictures(bench: ModuleType, tmp_path: Path) -> None:
    config, *_ = bench.configs(tmp_path)
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
    config, *_ = bench.configs(tmp_path)
    bench.draw_datasets(config.root, word=False)
    of = config.study["defects"]
    one = of.model_copy(update={"variant": {"shuffled100": of.variant["shuffled100"]}})
    config = config.model_copy(update={"study": {"one": one}})
    for stage in (study.train_runs, study.draw_samples, study.score_samples):
        for _ in stage(config, "one", device="cpu"):
            pass
    found = bench.truth_c_read.read_set([tmp_path / "main" / "studies" / "one"])["arms"]["shuffled100"]
    before = data["first"]["arms"]["shuffled100"]
    for name in ("oracle concept", "oracle context", "oracle leak", "vez similarity", "vez leak", "vez T2"):
        assert found[name] == pytest.approx(before[name], abs=0.15), name
