"""Trained controls: what they are made of, and that a study with them says of its variants what it says without."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from small import make_dataset
from test_study import TOML, make_project
from test_study import clip_like_the_base as clip_like_the_base  # a fixture
from vez import config, study
from vez.config import Config
from vez.controls import permutation
from vez.controls.classes import class_texts
from vez.controls.noise import random_like
from vez.controls.shuffled import shuffled
from vez.dataset import Dataset
from vez.dataset import load as load_dataset
from vez.errors import ConfigError, StoreError
from vez.events import Sampled, Step
from vez.files.operations import norm
from vez.files.reading import read as read_lora
from vez.interop import LoraWeights, load_kohya
from vez.metrics.expected import judged
from vez.report import machine
from vez.report.build import verdict_of
from vez.report.evidence import gather
from vez.store import open_artifact

ASKED = 'controls = ["shuffled", "class", "random"]\ncontrols_of = "high"\n'


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_no_picture_keeps_its_caption(one: Dataset, kinds: list[int]) -> None:
    rows = [replace(one.train[0], caption=f"caption {k}", source_sha256=str(i)) for i, k in enumerate(kinds)]
    most = max(kinds.count(k) for k in kinds)
    if 2 * most > len(rows):
        with pytest.raises(ConfigError, match=rf"{most} of v1's {len(rows)} pictures have one caption"):
            permutation(rows, name="v1")
        return
    order = permutation(rows, name="v1")
    assert sorted(order) == list(range(len(rows)))
    assert all(rows[i].caption != rows[j].caption for i, j in enumerate(order))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "v1-0")


def test_a_crop_does_not_get_the_words_of_its_own_picture(one: Dataset) -> None:
    rows = [replace(one.train[0], caption=f"caption {i}", source_sha256=str(i // 2)) for i in range(8)]
    assert all(i // 2 != j // 2 for i, j in enumerate(permutation(rows, name="v1")))


def test_what_cannot_be_shuffled_is_said(one: Dataset) -> None:
    with pytest.raises(ConfigError, match="trains on 1 picture: captions are shuffled among at least two"):
        permutation(one.train[:1], name="v1")
    alike = [replace(row, caption="zolka ") for row in one.train]
    with pytest.raises(ConfigError, match=r"6 of v1's 6 pictures have one caption \('zolka'\)"):
        permutation(alike, name="v1")


def test_the_shuffled_dataset_is_the_same_but_for_its_captions(one: Dataset, tmp_path: Path) -> None:
    made = shuffled(one, tmp_path / "shuffled")
    assert made.id != one.id and made.held_out == one.held_out
    assert [replace(row, caption="") for row in made.rows] == [replace(row, caption="") for row in one.rows]
    assert sorted(row.caption for row in made.train) == sorted(row.caption for row in one.train)
    assert all(a.caption != b.caption for a, b in zip(made.train, one.train, strict=True))
    assert all((made.pixels(row) == one.pixels(row)).all() for row in made.rows)
    (tmp_path / "shuffled" / "rows.jsonl").touch()
    before = (tmp_path / "shuffled" / "manifest.json").stat().st_mtime_ns
    assert shuffled(one, tmp_path / "shuffled").id == made.id
    assert (tmp_path / "shuffled" / "manifest.json").stat().st_mtime_ns == before, "made once"


def test_a_random_lora_changes_each_module_by_as_much() -> None:
    dice = torch.Generator().manual_seed(0)
    state = {
        "a": LoraWeights(torch.randn(4, 32, generator=dice), torch.randn(16, 4, generator=dice), 2.0),
        "b": LoraWeights(torch.randn(2, 8, 3, 3, generator=dice), 1e-4 * torch.randn(8, 2, 1, 1, generator=dice), 2.0),
        "c": LoraWeights(torch.randn(2, 8, generator=dice), torch.zeros(8, 2), 2.0),
    }
    drawn = random_like(state, seed=0)
    for name, weights in state.items():
        assert drawn[name].down.shape == weights.down.shape and drawn[name].up.shape == weights.up.shape
        assert math.isclose(drawn[name].delta().double().norm(), weights.delta().double().norm(), rel_tol=1e-5)
    assert not torch.equal(drawn["a"].down, random_like(state, seed=1)["a"].down)
    assert torch.equal(drawn["a"].down, random_like({"a": state["a"]}, seed=0)["a"].down), "by its own name"
    cosine = torch.nn.functional.cosine_similarity(drawn["a"].delta().flatten(), state["a"].delta().flatten(), dim=0)
    assert abs(cosine) < 0.3


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, random_base_folder: Path, clip_like_the_base: str
) -> tuple[Config, Config]:
    """The same study, without controls and with them, each run to its report."""
    made = []
    for name, more in (("plain", ""), ("controlled", ASKED)):
        folder = tmp_path_factory.mktemp(name)
        make_project(folder, random_base_folder, clip_like_the_base)
        (folder / "vez.toml").write_text(TOML.replace("[study.small]\n", f"[study.small]\n{more}"), encoding="utf-8")
        made.append(config.load(folder / "vez.toml"))
        list(study.run(made[-1], "small", device="cpu"))
    return made[0], made[1]


def test_verdict_and_comparisons_are_those_of_the_study_without(both: tuple[Config, Config]) -> None:
    found = [gather(study.folder_of(of, "small")) for of in both]
    assert found[0].trained is None and found[1].trained is not None
    told = [json.loads(machine.as_json(of)) for of in found]
    assert {one["kind"] for one in told[1].pop("trained_controls")["controls"]} == {"shuffled", "class", "random"}
    assert told[0].pop("trained_controls") is None
    for one in told:  # these hash the base's folder, too, which is another one
        assert one.pop("samples") and one.pop("scores")
    assert told[0] == told[1]
    assert verdict_of(found[0]) == verdict_of(found[1])
    plain, controlled = (study.folder_of(of, "small") for of in both)
    for part in ("samples", "scores"):
        assert open_artifact(plain / part).files == open_artifact(controlled / part).files
    assert (plain / "card" / "README.md").read_bytes() == (controlled / "card" / "README.md").read_bytes()
    assert {run.name for run in (controlled / "runs").iterdir() if run.is_dir()} == {"low-0", "high-0", "one-0"}


def test_a_study_that_asks_for_controls_later_makes_only_them(both: tuple[Config, Config]) -> None:
    """And one that no longer asks: what its stages are made of does not know of controls."""
    small = both[1].study["small"].model_copy(update={"controls": (), "controls_of": None})
    without = both[1].model_copy(update={"study": {"small": small}})
    folder = study.folder_of(both[1], "small")
    before = {part: open_artifact(folder / part).id for part in ("samples", "scores", "controls/scores")}
    for of in (without, both[1]):
        events = list(study.run(of, "small", device="cpu"))
        assert not any(isinstance(event, Step | Sampled) for event in events)
        assert {part: open_artifact(folder / part).id for part in before} == before


def test_the_controls_are_what_they_are_called(both: tuple[Config, Config]) -> None:
    folder = study.folder_of(both[1], "small")
    into = folder / "controls"
    teacher, _ = load_kohya(folder / "runs" / "high-0" / "lora.safetensors")
    random = read_lora(into / "runs" / "control-random-0" / "lora.safetensors")
    assert len(random.modules) == len(teacher)
    drawn, _ = load_kohya(into / "runs" / "control-random-0" / "lora.safetensors")
    for name, weights in teacher.items():
        assert math.isclose(norm(drawn[name]), norm(weights), rel_tol=1e-5), name
    concept = load_dataset(next((both[1].root / ".vez" / "datasets").glob("v1-*")))
    shuffled_run, class_run = (open_artifact(into / "runs" / f"control-{kind}-0") for kind in ("shuffled", "class"))
    assert shuffled_run.parents["dataset"] == load_dataset(into / "data" / "shuffled").id
    pictures = load_dataset(into / "data" / "class")
    assert class_run.parents["dataset"] == pictures.id and len(pictures.train) == len(concept.train)
    assert [row.caption for row in pictures.train] == class_texts(concept, both[1].project)
    assert not any("zolka" in row.caption for row in pictures.rows)
    assert len({row.sha256 for row in pictures.rows}) == len(pictures.rows), "each its own noise"
    high = open_artifact(folder / "runs" / "high-0")
    assert shuffled_run.config["variant"] == high.config["variant"] and shuffled_run.config["steps"] == 2
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Trained controls" in page and "Trained with the captions shuffled" in page
    samples = open_artifact(into / "samples").files
    assert samples["high/snow-trigger-0.png"] == open_artifact(folder / "samples").files["high/snow-trigger-0.png"]


def test_what_exists_is_not_made_again_and_what_is_gone_comes_back_the_same(both: tuple[Config, Config]) -> None:
    into = study.folder_of(both[1], "small") / "controls"
    events = list(study.control_runs(both[1], "small", device="cpu"))
    assert not any(isinstance(event, Step | Sampled) for event in events)
    before = {name: open_artifact(into / name).files for name in ("runs/control-class-0", "data/class", "samples")}
    for name in before:
        (into / name).rename(into / f"{name}-before")
    drawn = [event for event in study.control_runs(both[1], "small", device="cpu") if isinstance(event, Sampled)]
    assert {event.arm for event in drawn if event.seconds} == {
        "base", "control-shuffled", "control-class", "control-random"
    }, "the variant's own pictures are taken from the study"  # fmt: skip
    for name, files in before.items():
        now = open_artifact(into / name).files
        assert {f: h for f, h in now.items() if f != "events.jsonl"} == {
            f: h for f, h in files.items() if f != "events.jsonl"
        }, name
        (into / f"{name}-before").rename(into / f"{name.replace('/', '-')}-old")


def test_the_report_knows_that_the_variant_was_trained_again(both: tuple[Config, Config]) -> None:
    folder = study.folder_of(both[1], "small")
    manifest = folder / "runs" / "high-0" / "manifest.json"
    kept = manifest.read_bytes()
    row = json.loads(kept)
    manifest.write_text(json.dumps(row | {"id": "0" * 64}), encoding="utf-8")
    found = gather(folder)
    manifest.write_bytes(kept)
    assert found.trained is None and "made after an earlier high" in " ".join(found.absent)


def test_the_plan_tells_their_cost(both: tuple[Config, Config]) -> None:
    plain, controlled = (study.plan(of, "small") for of in both)
    assert plain.controls == "" and "controls" not in plain.text() and "controls" not in plain.disk_bytes
    said = "then controls after high: shuffled, class, random; 2 runs of 2 steps; 12 images"
    assert said in controlled.text()
    assert controlled.images == plain.images and controlled.disk_bytes["controls"] > 0


def test_controls_before_the_variant_are_refused(tmp_path: Path, random_base_folder: Path) -> None:
    make_project(tmp_path, random_base_folder)
    (tmp_path / "vez.toml").write_text(TOML.replace("[study.small]\n", f"[study.small]\n{ASKED}"), encoding="utf-8")
    with pytest.raises(StoreError, match="made after high-0, which is not finished; go on with: vez train small"):
        list(study.control_runs(config.load(tmp_path / "vez.toml"), "small", device="cpu"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"controls": ["noise"]}, "'shuffled', 'class' or 'random'"),
        ({"controls": ["random", "random"]}, "controls has one twice"),
        ({"controls": ["random"], "controls_of": "b"}, "controls_of is 'b'; known variants are a"),
        ({"controls_of": "a"}, "controls_of goes with controls"),
        ({"controls": ["random"], "sampling": {"profile": "probe"}}, "the profile probe draws none"),
        ({"controls": ["random"], "variant": {"control-x": {"dataset": "v1"}}}, "another name"),
    ],
)
def test_what_is_asked_wrongly(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config.Study.model_validate({"steps": 1, "variant": {"a": {"dataset": "v1"}}} | given)


def summary(word: str, pair: str, gate: str) -> dict[str, object]:
    arms = [f"control-{kind}" for kind in ("shuffled", "class", "random")]
    mean = {"mean": 0.4, "low": 0.3, "high": 0.5}
    low = 0.05 if word == "better" else 0.0
    change = {"diff": 0.1, "low": low, "high": 0.2}
    return {
        "metrics": {"similarity": {}, "T2": {}},
        "arms": {arm: {"similarity": mean, "drift": mean} for arm in arms},
        "against_base": {
            arm: {
                "similarity": change | {"verdict": word},
                "T2": change | {"verdict": {"better": "equivalent", "worse": "better"}.get(word, word)},
            }
            for arm in arms
        },
        "pairs": {
            "high": {arm: {name: change | {"verdict": pair} for name in ("T2", "trigger_effect")} for arm in arms}
        },
        "gates": {arm: {"similarity": {"limit": {"limit": 0.15, "word": gate}}} for arm in arms},
    }


def test_controls_that_behave_as_they_must_warn_of_nothing() -> None:
    found = judged(summary("better", "better", "failed"), of="high")
    assert [one.kind for one in found.controls] == ["shuffled", "class", "random"] and not found.warnings
    assert {asked.outcome for one in found.controls for asked in one.asked} == {"as expected"}
    unknown = judged(summary("not distinguishable", "not distinguishable", "not shown"), of="high")
    assert not unknown.warnings, "too few prompts to tell is no warning"


def test_a_control_that_scores_as_if_it_had_learned_warns() -> None:
    found = judged(summary("better", "equivalent", "passed"), of="high")
    words = " ".join(found.warnings)
    assert len(found.warnings) == 3
    assert (
        "shuffled scores as well as high on T2 and trigger_effect" in words
        and "plain pictures of the class scores" in words
    )
    assert "(similarity): that score cannot be trusted on this data, for any LoRA" in words
    shuffled, random = judged(summary("worse", "worse", "failed"), of="high").warnings
    assert shuffled.count("captions were shuffled") == 2
    assert random == (
        "A LoRA of random numbers scores better than no LoRA on T2: on this data a rise of that is no merit."
    )


def test_a_question_asked_beforehand_is_answered_by_its_own_interval() -> None:
    """Among all pairs of arms it may drown: of the demo's it was p = .023 alone and .141 among six."""
    drowned = judged(summary("better", "not distinguishable", "failed"), of="high").controls[0]
    assert {one.metric: one.outcome for one in drowned.asked} == dict.fromkeys(
        ("similarity", "T2", "trigger_effect"), "as expected"
    )
    open_ = judged(summary("not distinguishable", "not distinguishable", "failed"), of="high").controls[0]
    assert {one.outcome for one in open_.asked} == {"not shown"}


def test_what_a_study_does_not_measure_is_said() -> None:
    bare = {"metrics": {}, "arms": {f"control-{kind}": {} for kind in ("shuffled", "class", "random")}}
    found = {one.kind: one for one in judged(bare, of="high").controls}
    assert {one.outcome for control in found.values() for one in control.asked} == {"not measured"}
    assert [one.metric for one in found["shuffled"].asked] == ["similarity", "T2", "trigger_effect"]
    assert [one.metric for one in found["class"].asked] == ["similarity"]
    assert [one.metric for one in found["random"].asked] == ["similarity", "T2", "drift"]
    assert not judged(bare, of="high").warnings
