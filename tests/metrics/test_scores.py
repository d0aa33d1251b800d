import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vez.config import Project
from vez.dataset import Dataset, Row
from vez.errors import StoreError
from vez.events import Done, Event, Note, Stage
from vez.metrics import embed
from vez.metrics.definitions import METRICS, describing
from vez.metrics.embed import Clip, Dino
from vez.metrics.readings import Ledger
from vez.metrics.scores import reference_rows, score, settings_of
from vez.store import making, open_artifact

PROJECT = Project(base="tiny", trigger="zolka", noun="coat", describes="red coat")
ARMS = ("base", "v1")
KINDS = {"trigger": "zolka coat, hill", "class": "red coat, hill", "none": "hill", "drift": "cat"}


def blotch(seed: int, size: int = 32) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A samples artifact: two arms, three groups of four roles, two seeds, pictures of coloured noise."""
    return draw(tmp_path_factory.mktemp("study") / "samples", "B")


def draw(folder: Path, letter: str, controls: dict[str, Any] | None = None) -> Path:
    config = {"arms": {"base": None, "v1": {"lora": "0" * 64, "variant": "v1", "run": "v1-3", "seed": 3}}}
    rows = []
    with making(folder, kind="samples", parents={"base": letter}, config=config, version=1) as made:
        for a, arm in enumerate(ARMS):
            (made.path / arm).mkdir()
            for g in range(3):
                for r, (role, text) in enumerate(KINDS.items()):
                    for seed in range(2):
                        file = f"{arm}/{role}{g}-{seed}.png"
                        blotch(1000 * a + 100 * g + 10 * r + seed + 5000 * (letter != "B")).save(made.path / file)
                        row = {
                            "arm": arm,
                            "prompt": f"{role}{g}" if letter == "B" else f"{letter}-{role}{g}",
                            "set": letter,
                            "group": f"g{g}",
                            "role": role,
                            "text": f"{text} {g}",
                        }
                        rows.append(row | {"context": "hill", "seed": seed, "noise_seed": 7, "file": file})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (made.path / "samples.jsonl").write_text(lines, encoding="utf-8")
        if controls is not None:
            (made.path / "controls.json").write_text(json.dumps(controls))
    return folder


def run(samples: Path, datasets: Mapping[str, Dataset], clip: Clip, into: Path, **more: Any) -> list[Event]:
    return list(score(samples, datasets, project=PROJECT, clip=clip, into=into, **more))


@pytest.fixture(scope="module")
def scored(
    samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event]]:
    into = tmp_path_factory.mktemp("scored") / "scores"
    return into, run(samples, {"v1": tiny_dataset}, clip, into)


def test_the_artifact_names_what_it_is_made_of(
    scored: tuple[Path, list[Event]], samples: Path, tiny_dataset: Dataset, clip: Clip
) -> None:
    into, events = scored
    artifact = open_artifact(into)
    assert events[0] == Stage("score", 48, f"{len(METRICS)} metrics") and events[-1] == Done(into, artifact.id)
    assert artifact.parents == {"samples": open_artifact(samples).id, "dataset:v1": tiny_dataset.id}
    assert artifact.config["clip"] == clip.sha256
    assert set(artifact.files) == {"scores.jsonl", "summary.json"}


def test_rows_are_clips_own_numbers(scored: tuple[Path, list[Event]], samples: Path, clip: Clip) -> None:
    rows = [json.loads(line) for line in (scored[0] / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(set(row) == {"arm", "prompt", "seed", "metric", "value"} for row in rows)
    by_key = {(row["metric"], row["arm"], row["prompt"], row["seed"]): row["value"] for row in rows}
    image = embed.image_features(clip, [samples / "v1/trigger1-0.png"])[0]
    texts = {"T0": "zolka coat, hill 1", "T1": describing("zolka coat, hill 1", PROJECT), "T2": "hill"}
    for metric, text in texts.items():
        cosine = float(image @ embed.text_features(clip, [f"A photo depicts {text}"])[0])
        assert by_key[metric, "v1", "trigger1", 0] == pytest.approx(2.5 * max(cosine, 0), abs=2e-5)
    assert texts["T1"] == "red coat, hill 1"


def test_the_summary_holds_every_metric_once(scored: tuple[Path, list[Event]]) -> None:
    summary = json.loads((scored[0] / "summary.json").read_bytes())
    names = {metric.name for metric in METRICS}
    assert set(summary["metrics"]) | set(summary["not_measured"]) == names
    assert not set(summary["metrics"]) & set(summary["not_measured"])
    (also,) = (event.text for event in scored[1] if isinstance(event, Note) and event.text.startswith("also"))
    said = {event.text.split(" ")[0] for event in scored[1] if isinstance(event, Note) and "it needs" in event.text}
    said |= set(also.removeprefix("also not measured, and not needed for a verdict: ").split(" (")[0].split(", "))
    assert said == set(summary["not_measured"]) and "similarity_clip" in said
    t1 = summary["arms"]["v1"]["T1"]
    assert (t1["n_prompts"], t1["n_images"]) == (3, 6) and t1["low"] < t1["mean"] < t1["high"]
    against = summary["against_base"]["v1"]["T1"]
    assert against["verdict"] == "not distinguishable" and against["mde"] is None  # three prompts can show nothing
    assert against["diff"] == pytest.approx(t1["mean"] - summary["arms"]["base"]["T1"]["mean"], abs=1e-9)
    assert summary["reference"]["held_out"] == 2
    assert summary["clip"]["published"] is False


def test_scored_once_and_with_a_cache_gives_the_same_bytes(
    scored: tuple[Path, list[Event]], samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in scored[0].iterdir()}
    again = run(samples, {"v1": tiny_dataset}, clip, scored[0])
    assert [type(event) for event in again] == [Done]
    for name in ("first", "second"):
        run(samples, {"v1": tiny_dataset}, clip, tmp_path / name, cache=tmp_path / "cache")
        assert {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} == before


def test_without_datasets_what_needs_them_is_not_measured(samples: Path, clip: Clip, tmp_path: Path) -> None:
    events = run(samples, {}, clip, tmp_path / "scores")
    summary = json.loads((tmp_path / "scores/summary.json").read_bytes())
    lacking = {"similarity", "trigger_effect", "leak", "nearest_training", "copying"}
    assert lacking <= set(summary["not_measured"])
    assert any(isinstance(e, Note) and e.text.startswith("similarity was not measured: it needs") for e in events)
    assert summary["reference"]["real_likeness"] is None and "similarity" not in summary["arms"]["v1"]


def test_a_picture_that_any_arm_trained_on_is_no_reference(tiny_dataset: Dataset) -> None:
    everything = tuple(
        Row(**{**vars(row), "split": "train" if i != 7 else "held_out"}) for i, row in enumerate(tiny_dataset.rows)
    )
    other = Dataset(tiny_dataset.path, "x", everything, (), (), tiny_dataset.config)
    assert len(reference_rows([tiny_dataset])) == 2
    assert reference_rows([tiny_dataset, other]) == [(tiny_dataset.path / "images/07.png", None)]


def test_what_is_not_samples_is_refused(tiny_dataset: Dataset, clip: Clip, tmp_path: Path, samples: Path) -> None:
    with pytest.raises(StoreError, match="is a dataset, not samples"):
        run(tiny_dataset.path, {}, clip, tmp_path / "scores")
    torn = Path(shutil.copytree(samples, tmp_path / "samples"))
    (torn / "v1/trigger0-0.png").unlink()
    with pytest.raises(StoreError, match=r"lacks 'v1/trigger0-0\.png'"):
        run(torn, {}, clip, tmp_path / "scores")


def test_what_confirms_is_measured_and_kept_apart(
    scored: tuple[Path, list[Event]], samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path: Path
) -> None:
    later = draw(tmp_path / "confirm", "G")
    run(samples, {"v1": tiny_dataset}, clip, tmp_path / "scores", confirm=later)
    both, alone = (json.loads((f / "summary.json").read_bytes()) for f in (tmp_path / "scores", scored[0]))
    assert alone["confirmation"] == {} and alone["settings"]["v1"]["T1"]["training_seeds"] == 1
    for table in ("arms", "against_base"):
        assert both[table]["v1"]["T1"] == alone[table]["v1"]["T1"]  # the choice is made without the confirmation
        assert both["confirmation"][table]["v1"]["T1"] != alone[table]["v1"]["T1"]
    assert both["confirmation"]["arms"]["v1"]["T1"]["n_prompts"] == 3
    parents = open_artifact(tmp_path / "scores").parents
    assert parents["confirm"] == open_artifact(later).id and parents["samples"] == open_artifact(samples).id
    image = embed.image_features(clip, [later / "v1/trigger1-0.png"])[0]
    cosine = float(image @ embed.text_features(clip, ["A photo depicts zolka coat, hill 1"])[0])
    rows = [json.loads(line) for line in (tmp_path / "scores/scores.jsonl").read_text(encoding="utf-8").splitlines()]
    (row,) = [r for r in rows if (r["metric"], r["arm"], r["prompt"], r["seed"]) == ("T0", "v1", "G-trigger1", 0)]
    assert row["value"] == pytest.approx(2.5 * max(cosine, 0), abs=2e-5)
    with pytest.raises(StoreError, match="is a dataset, not samples"):
        run(samples, {}, clip, tmp_path / "x", confirm=tiny_dataset.path)


def test_a_second_look_is_counted_said_and_costs_what_was_planned(
    samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path: Path
) -> None:
    datasets, into = {"v1": tiny_dataset}, tmp_path / "scores"
    ledger = Ledger(tmp_path / "looks.jsonl", planned=2)

    def look(drawn: Path) -> tuple[dict[str, Any], str]:
        events = run(drawn, datasets, clip, into, ledger=ledger)
        return summary_of(into), " ".join(event.text for event in events if isinstance(event, Note))

    first, said = look(samples)
    assert first["looks"] == {"look": 1, "of": 2, "planned": True, "asked": None, "confirmation": None,
                              "alpha": pytest.approx(0.00558, abs=1e-5)}  # fmt: skip
    assert "the first of 2 planned looks: 0.56 %" in said and (into / "looks.jsonl").is_file()
    shutil.rmtree(into)
    assert look(samples)[0]["looks"] == first["looks"], "the same pictures are the same look"
    others = [draw(tmp_path / name, name) for name in ("C", "D")]
    second, said = look(others[0])
    assert (second["looks"]["look"], second["looks"]["alpha"]) == (2, pytest.approx(0.05 - 0.00558, abs=1e-5))
    third, said = look(others[1])
    assert third["looks"] | {"confirmation": None} == {"look": 3, "of": 2, "planned": False, "asked": None,
                                                      "confirmation": None, "alpha": 0.0}  # fmt: skip
    assert "Look 3 at these LoRAs, and 2 were planned" in said and "--profile confirm" in said
    families = [{row["family"] for row in of["against_base"]["v1"].values()} for of in (first, second, third)]
    assert families == [{"primary", "exploratory"}] * 2 + [{"exploratory"}]


def test_a_ledger_that_is_lost_is_mended_and_a_damaged_one_ends_the_stage(
    samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path: Path
) -> None:
    ledger, into = Ledger(tmp_path / "looks.jsonl"), tmp_path / "scores"
    run(samples, {"v1": tiny_dataset}, clip, into, ledger=ledger)
    kept = ledger.path.read_bytes()
    ledger.path.unlink()
    events = run(samples, {"v1": tiny_dataset}, clip, into, ledger=ledger)
    assert ledger.path.read_bytes() == kept and any("was gone" in e.text for e in events if isinstance(e, Note))
    ledger.path.write_bytes(b"no look\n")
    before = (into / "summary.json").read_bytes()
    with pytest.raises(StoreError, match="line 1, is not a look that vez wrote"):
        run(draw(tmp_path / "more", "C"), {"v1": tiny_dataset}, clip, into, ledger=ledger)
    assert (into / "summary.json").read_bytes() == before and ledger.path.read_bytes() == b"no look\n"


def test_arms_of_one_setting_are_known_by_the_manifest() -> None:
    def record(seed: int) -> dict[str, object]:
        return {"lora": "0", "variant": "v1", "run": f"v1-{seed}", "seed": seed}

    assert settings_of({"base": None, "v1-0@400x0.6": record(0), "v1-1@400x0.6": record(1), "v1-1": record(1)}) == {
        "v1-0@400x0.6": ("v1@400x0.6", 0),
        "v1-1@400x0.6": ("v1@400x0.6", 1),
        "v1-1": ("v1", 1),
    }
    # with one training seed arms are called after their variant; an older manifest holds a hash alone
    assert settings_of({"v1@400": record(0), "v2": "0" * 64}) == {"v1@400": ("v1@400", 0)}


def summary_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_bytes()))


def test_a_tier_that_is_missing_is_named_with_what_it_needs(scored: tuple[Path, list[Event]], clip: Clip) -> None:
    tiers = summary_of(scored[0])["tiers"]
    assert tiers["clip"] == {"measured": True, "judges_likeness": True, "name": Path(clip.name).name,
                             "sha256": clip.sha256}  # fmt: skip
    for name in ("dino", "foreground", "lookalikes", "gallery"):
        assert tiers[name]["measured"] is False and tiers[name]["needs"].startswith("needs ")
    summary = summary_of(scored[0])
    assert summary["reference"]["judge"] == "clip" and "similarity_clip" in summary["not_measured"]
    # coloured noise is not alike, so there is no scale of likeness: T1 stands in for it
    assert "similarity" in summary["not_measured"] and summary["metrics"]["T1"]["primary"]
    assert summary["metrics"]["T2"] | {"definition": ""} == {
        "definition": "", "family": "text", "higher_is_better": True, "primary": True, "margin": 0.0375, "gate": None,
        "guard": True, "calibrated": False,
    }  # fmt: skip


def test_with_every_tier_more_is_measured_and_the_texts_are_scored_alike(
    scored: tuple[Path, list[Event]], samples: Path, tiny_dataset: Dataset, clip: Clip, dino: Dino, tmp_path: Path
) -> None:
    gallery = []
    for i in range(4):
        blotch(9000 + i).save(tmp_path / f"{i}.png")
        gallery.append(tmp_path / f"{i}.png")
    project = PROJECT.model_copy(update={"lookalikes": ("blue coat", "red hat")})
    into = tmp_path / "scores"
    list(score(samples, {"v1": masked(tiny_dataset, tmp_path)}, project=project, clip=clip, dino=dino,
               gallery=gallery, into=into, cache=tmp_path / "cache"))  # fmt: skip
    rich, plain = summary_of(into), summary_of(scored[0])
    assert all(of["measured"] for of in rich["tiers"].values()) and not rich["tiers"]["clip"]["judges_likeness"]
    assert rich["reference"]["judge"] == "dino" and rich["tiers"]["dino"]["sha256"] == dino.sha256
    more = {"T3", "told_apart", "gallery", "gallery_first"}
    assert more <= set(rich["metrics"]) and not more & set(plain["metrics"])
    for metric in ("T0", "T1", "T2", "unrelated", "flat"):
        assert rich["arms"]["v1"][metric] == plain["arms"]["v1"][metric]
    rows = (json.loads(line) for line in (into / "scores.jsonl").read_text(encoding="utf-8").splitlines())
    (row,) = (r for r in rows if (r["metric"], r["arm"], r["prompt"], r["seed"]) == ("T3", "v1", "trigger1", 0))
    image = embed.image_features(clip, [samples / "v1/trigger1-0.png"])[0]
    own, *others = (
        float(image @ embed.text_features(clip, [f"A photo depicts {words}, hill 1"])[0])
        for words in ("red coat", "blue coat", "red hat")
    )
    assert row["value"] == pytest.approx(2.5 * (own - sum(others) / 2), abs=2e-5)
    assert open_artifact(into).id != open_artifact(scored[0]).id
    assert open_artifact(into).config["dino"] == dino.sha256


def masked(dataset: Dataset, folder: Path) -> Dataset:
    """The same dataset, each held-out picture with the left half for its subject."""
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    mask.save(folder / "mask.png")
    name = os.path.relpath(folder / "mask.png", dataset.path)
    rows = tuple(replace(row, mask=name) for row in dataset.rows)
    return Dataset(dataset.path, dataset.id, rows, (), (), dataset.config)


def test_the_controls_come_with_every_score(scored: tuple[Path, list[Event]], samples: Path) -> None:
    found = summary_of(scored[0])["controls"]
    assert set(found) == {"strength_0", "held_out", "training_copies", "halves", "wrong_trigger"}
    assert found["strength_0"] is None and found["wrong_trigger"] == {}  # these samples have neither
    copies = found["training_copies"]["v1"]
    assert copies["copying"] == 1 and copies["copies"] == 1 and copies["ok"]
    assert set(found["halves"]["v1"]) == {"T1", "T2"} and found["halves"]["v1"]["T2"]["n_prompts"] == 3


def test_what_sampling_found_at_strength_0_is_carried(
    samples: Path, tiny_dataset: Dataset, clip: Clip, tmp_path: Path
) -> None:
    for name, level in (("fine", 1), ("moved", 7)):
        folder = draw(tmp_path / name, "B", controls={"strength_0": {"v1": level}})
        events = run(folder, {"v1": tiny_dataset}, clip, tmp_path / f"{name}-scores")
        told = summary_of(tmp_path / f"{name}-scores")["controls"]["strength_0"]
        assert told == {"levels": {"v1": level}, "ok": level == 1}
        warned = any(
            isinstance(e, Note) and "at strength 0 does not draw what the base draws" in e.text for e in events
        )
        assert warned is (level == 7)


def test_the_nearest_neighbours_are_listed_by_file(
    scored: tuple[Path, list[Event]], samples: Path, tiny_dataset: Dataset, clip: Clip
) -> None:
    rows = summary_of(scored[0])["nearest"]["v1"]
    assert rows == sorted(rows, key=lambda row: -row["cosine"]) and len(rows) == 6
    assert rows[0]["dataset"] == tiny_dataset.id
    pair = [samples / rows[0]["file"], tiny_dataset.path / rows[0]["training"]]
    one, other = embed.image_features(clip, pair)
    assert rows[0]["cosine"] == pytest.approx(float(one @ other), abs=1e-5)
    assert set(summary_of(scored[0])["colour"]["v1"]) == {"lightness", "a", "b", "chroma", "n_images"}
