"""A whole study on a base of a few layers: every stage by the functions that the command line calls."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from vez import config, rates, study
from vez.config import Config
from vez.dataset import load as load_dataset
from vez.errors import BaseModelError, ConfigError, DataError, StoreError
from vez.events import Done, Event, Note, Sampled, Step
from vez.interop import load_kohya
from vez.sample import read_rows
from vez.store import open_artifact

TOML = """
[project]
base = "base"
trigger = "zolka"
noun = "costume"
describes = "folk costume"

[dataset.v1]
images = "images"
captions = "captions"
held_out = 2
resolution = 64

[study.small]
clip = "clip"
steps = 2
seeds = [0]
validate_every = 2
suite = "own"

[study.small.variant]
low = { dataset = "v1", batch = 2, rank = 2 }
high = { dataset = "v1", batch = 2, rank = 4, alpha = 2 }
one = { dataset = "v1", batch = 1, rank = 2, lr_text = 0 }

[study.small.sampling]
steps = 2
seeds = 1
batch = 4

[[study.small.prompts]]
id = "snow-trigger"
group = "snow"
text = "a girl wearing {trigger} in the snow"
context = "in the snow"

[[study.small.prompts]]
id = "snow-class"
group = "snow"
role = "class"
text = "a girl wearing {describes} in the snow"
context = "in the snow"
"""


def make_project(folder: Path, base: Path, clip: str | None = None) -> Config:
    """A project of eight pictures, all captioned by hand, on a base inside its folder."""
    (folder / "images").mkdir(parents=True)
    (folder / "captions").mkdir()
    (folder / "base").symlink_to(base, target_is_directory=True)
    if clip is not None:
        (folder / "clip").symlink_to(clip, target_is_directory=True)
    dice = np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.NEAREST).save(folder / "images" / f"{i}.png")
        (folder / "captions" / f"{i}.txt").write_text(f"zolka, a girl wearing zolka, number {i}", encoding="utf-8")
    (folder / "vez.toml").write_text(TOML, encoding="utf-8")
    return config.load(folder / "vez.toml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, random_base_folder: Path) -> Config:
    return make_project(tmp_path_factory.mktemp("project"), random_base_folder)


@pytest.fixture(scope="module")
def trained(project: Config) -> list[Event]:
    return list(study.train_runs(project, "small", device="cpu"))


def steps_of(events: list[Event]) -> dict[str, int]:
    found: dict[str, int] = {}
    for event in events:
        if isinstance(event, Step):
            found[event.run] = found.get(event.run, 0) + 1
    return found


def test_the_plan_knows_sizes_before_anything_is_made(project: Config) -> None:
    made = study.plan(project, "small")
    assert [one.variants for one in made.passes] == [("low", "high"), ("one",)]
    assert [one.pictures for one in made.passes] == [6, 6]
    assert made.images == 4 * 2
    assert not made.assumed


def test_every_variant_is_trained_and_its_file_has_the_planned_size(project: Config, trained: list[Event]) -> None:
    assert steps_of(trained) == {"low-0": 2, "high-0": 2, "one-0": 2}
    planned = study.plan(project, "small").file_bytes
    for variant, size in planned.items():
        folder = study.folder_of(project, "small") / "runs" / f"{variant}-0"
        artifact = open_artifact(folder)
        assert set(artifact.parents) == {"base", "dataset"}
        state, _ = load_kohya(folder / "lora.safetensors")
        assert sum(2 * (w.down.numel() + w.up.numel()) for w in state.values()) == size


@pytest.mark.usefixtures("trained")
def test_a_second_time_trains_nothing(project: Config) -> None:
    again = list(study.train_runs(project, "small", device="cpu"))
    assert steps_of(again) == {}
    assert sum(isinstance(event, Done) for event in again) == 4, "the dataset and three runs"


@pytest.mark.usefixtures("trained")
def test_a_new_variant_trains_alone(project: Config) -> None:
    text = TOML.replace(
        "[study.small.sampling]", 'more = { dataset = "v1", batch = 2, rank = 3 }\n[study.small.sampling]'
    )
    (project.root / "more.toml").write_text(text, encoding="utf-8")
    more = config.load(project.root / "more.toml")
    assert steps_of(list(study.train_runs(more, "small", device="cpu"))) == {"more-0": 2}


def test_pictures_and_a_mirror_while_it_trains(tmp_path: Path, random_base_folder: Path) -> None:
    """As the study asks for them; the run is the one that it is without."""
    loaded = make_project(tmp_path / "with", random_base_folder)
    more = {"sample_every": 2, "log": ("tensorboard",), "variant": {"low": loaded.study["small"].variant["low"]}}
    plain = loaded.study["small"].model_copy(update={"variant": more["variant"]})
    asked = loaded.model_copy(update={"study": {"small": plain.model_copy(update=more)}})
    for event in study.train_runs(asked, "small", device="cpu"):
        assert not isinstance(event, Note) or "not told" not in event.text
    folder = tmp_path / "with" / "studies" / "small"
    assert {file.name for file in (folder / "runs" / "low-0" / "samples").iterdir()} == {
        "step-000000-1.png", "step-000002-1.png"
    }  # fmt: skip
    accumulator = EventAccumulator(str(folder / "tensorboard" / "low-0"))
    accumulator.Reload()
    assert [one.step for one in accumulator.Scalars("loss")] == [1, 2]
    assert [one.step for one in accumulator.Images("samples/1")] == [0, 2]
    again = make_project(tmp_path / "without", random_base_folder)
    list(study.train_runs(again.model_copy(update={"study": {"small": plain}}), "small", device="cpu"))
    files = [open_artifact(tmp_path / part / "studies" / "small" / "runs" / "low-0") for part in ("with", "without")]
    assert files[0].id == files[1].id and files[0].files["lora.safetensors"] == files[1].files["lora.safetensors"]


@pytest.fixture(scope="session")
def clip_like_the_base(tmp_path_factory: pytest.TempPathFactory, random_base_folder: Path) -> str:
    """A random CLIP that reads with the random base's tokenizer."""
    folder = tmp_path_factory.mktemp("clip-of-the-base")
    tokenizer = CLIPTokenizer.from_pretrained(random_base_folder / "tokenizer")
    tokenizer.save_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    torch.manual_seed(1)
    towers = {"text_config": size | tokens, "vision_config": size | {"image_size": 32, "patch_size": 8}}
    CLIPModel(CLIPConfig(**towers, projection_dim=16)).save_pretrained(folder)
    return str(folder)


def test_a_study_in_one_call_and_a_second_one_that_makes_nothing(
    tmp_path: Path, random_base_folder: Path, clip_like_the_base: str
) -> None:
    project = make_project(tmp_path, random_base_folder, clip_like_the_base)
    events = list(study.run(project, "small", device="cpu"))
    done = events[-1]
    assert isinstance(done, Done) and done.artifact_path == tmp_path / "studies" / "small" / "report.html"
    assert done.id == open_artifact(tmp_path / "studies" / "small" / "scores").id
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"}
    page = done.artifact_path.read_bytes()
    again = list(study.run(project, "small", device="cpu"))
    assert again[-1] == done
    assert not any(isinstance(event, Step | Sampled) for event in again)
    assert done.artifact_path.read_bytes() == page, "the same artifacts give the same page"
    changed = {p.name for p, time in made.items() if p.stat().st_mtime_ns != time}
    assert changed == {"report.html", "README.md"}  # the page and the card, in the same bytes
    hidden = {"text": "a girl wearing {trigger} on a hill", "context": "on a hill", "set": "G", "id": "hill"}
    prompts = [*(prompt.model_dump() for prompt in project.study["small"].prompts), hidden]
    small = type(project.study["small"]).model_validate(project.study["small"].model_dump() | {"prompts": prompts})
    confirming = project.model_copy(update={"study": {"small": small}})
    list(study.draw_samples(confirming, "small", device="cpu", profile="confirm", only=["low"]))
    list(study.score_samples(project, "small", device="cpu"))
    summary = json.loads((tmp_path / "studies/small/scores/summary.json").read_bytes())
    assert set(summary["confirmation"]["arms"]) == {"low", "base"} and set(summary["arms"]) > {"low", "high"}
    assert summary["settings"]["low"]["T1"]["why_not"] == "needs at least 3 training seeds, there is 1"


@pytest.mark.usefixtures("trained")
def test_samples_come_from_every_arm_and_the_report_shows_them(project: Config) -> None:
    events = list(study.draw_samples(project, "small", device="cpu"))
    drawn = [event for event in events if isinstance(event, Sampled)]
    assert {event.arm for event in drawn} == {"low", "high", "one", "base"}
    assert len(drawn) == study.plan(project, "small").images
    done = study.write_report(project, "small")
    page = done.artifact_path.read_text(encoding="utf-8")
    assert "zolka" in page
    assert study.verdict(project, "small")


@pytest.mark.usefixtures("trained")
def test_the_study_names_who_judges_besides_clip(project: Config, clip_like_the_base: str, tmp_path: Path) -> None:
    list(study.draw_samples(project, "small", device="cpu"))
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    Dinov2Model(Dinov2Config(**shape)).save_pretrained(project.root / "judge")
    (project.root / "others").mkdir()
    for picture in sorted((project.root / "images").iterdir())[:3]:
        (project.root / "others" / picture.name).write_bytes(picture.read_bytes())
    words = 'describes = "folk costume"\nlookalikes = ["red coat"]\ngallery = "others"'
    text = TOML.replace('describes = "folk costume"', words)
    text = text.replace('clip = "clip"', f'clip = "{clip_like_the_base}"\ndino = "judge"')
    (project.root / "judged.toml").write_text(text, encoding="utf-8")
    judged = config.load(project.root / "judged.toml")
    list(study.score_samples(judged, "small", device="cpu"))
    scores = project.root / "studies" / "small" / "scores"
    summary = json.loads((scores / "summary.json").read_bytes())
    assert summary["reference"]["judge"] == "dino" and {"T3", "gallery"} <= set(summary["metrics"])
    assert summary["controls"]["strength_0"]["ok"] and set(summary["controls"]["strength_0"]["levels"]) > {"low"}
    # the words and pictures that only judge make no other dataset
    assert (
        open_artifact(scores).parents["dataset:low"]
        == load_dataset(next(iter((project.root / ".vez" / "datasets").glob("v1-*")))).id
    )
    for wrong, error in {'dino = "judge"': 'dino = "clip"', 'gallery = "others"': 'gallery = "nowhere"'}.items():
        (project.root / "judged.toml").write_text(text.replace(wrong, error), encoding="utf-8")
        with pytest.raises((BaseModelError, DataError), match=r"not a DINOv2|cannot be loaded|there is no folder"):
            next(study.run(config.load(project.root / "judged.toml"), "small", device="cpu"))


@pytest.mark.usefixtures("trained")
def test_a_sweep_draws_strengths_and_only_the_arms_that_are_named(project: Config) -> None:
    text = TOML.replace("[study.small.sampling]", "[study.small.sampling]\nstrengths = [0.5, 1.0]")
    (project.root / "swept.toml").write_text(text, encoding="utf-8")
    swept = config.load(project.root / "swept.toml")
    assert study.plan(swept, "small").images == (1 + 3 * 2) * 2
    events = list(study.draw_samples(swept, "small", device="cpu", only=["low@x0.5", "one"]))
    assert {event.arm for event in events if isinstance(event, Sampled)} == {"low@x0.5", "one", "base"}
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("6 images to compare them (2 for each of 3 arms)" in text for text in notes)
    with pytest.raises(ConfigError, match=r"no arm 'lo'; known are low@x0\.5, low, high@x0\.5"):
        list(study.draw_samples(swept, "small", device="cpu", only=["lo"]))


@pytest.mark.usefixtures("trained")
def test_a_confirmation_lies_beside_the_samples(project: Config) -> None:
    text = (
        TOML
        + """
[[study.small.prompts]]
id = "hidden"
set = "G"
text = "a girl in {trigger} on a hill"
context = "on a hill"
"""
    )
    (project.root / "hidden.toml").write_text(text, encoding="utf-8")
    hidden = config.load(project.root / "hidden.toml")
    list(study.draw_samples(hidden, "small", device="cpu", profile="confirm", only=["low"]))
    rows = read_rows(study.folder_of(project, "small") / "confirm")
    assert {(row["arm"], row["prompt"], row["seed"]) for row in rows} == {
        (arm, "hidden", seed) for arm in ("low", "base") for seed in range(100, 104)
    }


@pytest.mark.usefixtures("trained")
def test_a_study_without_pictures_says_so(project: Config) -> None:
    text = TOML.replace("[study.small.sampling]", '[study.small.sampling]\nprofile = "probe"')
    (project.root / "probe.toml").write_text(text, encoding="utf-8")
    probe = config.load(project.root / "probe.toml")
    assert "no pictures to compare them" in study.plan(probe, "small").text()
    events = list(study.draw_samples(probe, "small", device="cpu"))
    assert [type(event) for event in events] == [Note]


@pytest.mark.usefixtures("trained")
def test_seconds_per_image_are_kept_for_the_next_plan(project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "FEWEST", 1)
    text = TOML.replace("[study.small.sampling]", "[study.small.sampling]\ncfg = 3.5")
    (project.root / "timed.toml").write_text(text.replace("batch = 4\n", "batch = 3\n", 1), encoding="utf-8")
    timed = config.load(project.root / "timed.toml")
    assert "time unknown until the first are drawn" in study.plan(timed, "small", device="cpu").text()
    list(study.draw_samples(timed, "small", device="cpu"))
    assert study.plan(timed, "small", device="cpu").drawn.seconds is not None
    assert "for each of 4 arms), about" in study.plan(timed, "small", device="cpu").text()


@pytest.mark.usefixtures("trained")
def test_precision_changes_what_is_trained_and_drawn(project: Config) -> None:
    text = TOML.replace("small", "quick").replace("steps = 2", 'precision = "bf16"\nsteps = 2', 1)
    (project.root / "quick.toml").write_text(text, encoding="utf-8")
    quick = config.load(project.root / "quick.toml")
    list(study.train_runs(quick, "quick", device="cpu"))
    list(study.draw_samples(quick, "quick", device="cpu"))
    for file in ("runs/low-0/lora.safetensors", "samples/base/snow-class-0.png"):
        small, other = (study.folder_of(project, name) / file for name in ("small", "quick"))
        if not small.exists():
            list(study.draw_samples(project, "small", device="cpu"))
        assert small.read_bytes() != other.read_bytes(), file


def test_sampling_before_training_says_what_to_do(tmp_path: Path, random_base_folder: Path) -> None:
    project = make_project(tmp_path, random_base_folder)
    with pytest.raises(StoreError, match="vez train small"):
        list(study.draw_samples(project, "small", device="cpu"))


def test_a_rate_is_kept_for_the_next_plan(project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "FEWEST", 2)
    text = (
        TOML.replace("[study.small", "[study.rated")
        .replace("[[study.small", "[[study.rated")
        .replace("steps = 2", "steps = 3", 1)
    )
    (project.root / "rated.toml").write_text(text, encoding="utf-8")
    rated = config.load(project.root / "rated.toml")
    assert study.plan(rated, "rated", device="cpu").seconds is None
    list(study.train_runs(rated, "rated", device="cpu"))
    known = study.plan(rated, "rated", device="cpu").seconds
    assert known is not None and known > 0
    kept = json.loads((project.root / ".vez" / "rates.json").read_bytes())
    assert len([key for key in kept if not key.startswith("sample ")]) == 2


def test_mistakes_are_found_before_the_work(tmp_path: Path, random_base_folder: Path) -> None:
    project = make_project(tmp_path, random_base_folder)
    with pytest.raises(ConfigError, match="v9"):
        list(study.build_datasets(project, ["v9"]))
    for picture in list((project.root / "images").iterdir())[2:]:
        picture.unlink()
    with pytest.raises(ConfigError, match="held_out"):
        study.plan(project, "small")
    for picture in (project.root / "images").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match="no pictures"):
        study.plan(project, "small")


KILLED = """
import sys
from pathlib import Path
from vez import config, study
for event in study.run(config.load(Path(sys.argv[1])), "small", device="cpu"):
    print(type(event).__name__, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", [("Step", 3), ("Sampled", 3), ("Stage", 1)])
def test_killed_anywhere_and_run_again_the_study_is_the_same(
    tmp_path: Path, random_base_folder: Path, clip_like_the_base: str, after: tuple[str, int]
) -> None:
    """kill -9, then the same command: the LoRAs and images have the bytes of a study that nobody stopped."""
    whole = make_project(tmp_path / "whole", random_base_folder, clip_like_the_base)
    cut = make_project(tmp_path / "cut", random_base_folder, clip_like_the_base)
    list(study.run(whole, "small", device="cpu"))
    command = [sys.executable, "-c", KILLED, str(cut.root / "vez.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        kind, count = after
        for line in process.stdout:
            count -= line.strip() == kind
            if count == 0:
                process.kill()
                break
    assert not (cut.root / "studies" / "small" / "report.html").exists()
    list(study.run(cut, "small", device="cpu"))
    for made in sorted((whole.root / "studies").rglob("*")):
        if made.suffix in {".safetensors", ".png"} or made.name in {"samples.jsonl", "scores.jsonl", "summary.json"}:
            assert (cut.root / made.relative_to(whole.root)).read_bytes() == made.read_bytes(), made.name


BUCKETED = (
    TOML.replace(
        "[study.small]",
        """[dataset.v2]
images = "v2"
captions = "captions"
held_out = 1
resolution = 64
buckets = "kohya"
crops = ["full", "upper"]
exclude = [{ file = "1.png", reason = "another coat" }]

[study.small]""",
        1,
    )
    .replace('high = { dataset = "v1"', 'high = { dataset = "v2"')
    .replace('one = { dataset = "v1", batch = 1, rank = 2, lr_text = 0 }\n', "")
)


def test_a_study_of_two_versions_one_in_buckets_lints_both_and_links_what_changed(
    tmp_path: Path, random_base_folder: Path, clip_like_the_base: str
) -> None:
    make_project(tmp_path, random_base_folder, clip_like_the_base)
    (tmp_path / "v2").mkdir()
    for i in range(8):
        with Image.open(tmp_path / "images" / f"{i}.png") as image:
            size = ((80, 96), (220, 110), (110, 220))[i % 3]
            image.resize(size, Image.Resampling.NEAREST).save(tmp_path / "v2" / f"{i}.png")
        (tmp_path / "captions" / f"{i}.upper.txt").write_text(f"zolka, from the waist up, number {i}")
    (tmp_path / "vez.toml").write_text(BUCKETED, encoding="utf-8")
    made = config.load(tmp_path / "vez.toml")
    planned = study.plan(made, "small")
    events = list(study.run(made, "small", device="cpu"))

    v1, v2 = (load_dataset(next((tmp_path / ".vez" / "datasets").glob(f"{name}-*"))) for name in ("v1", "v2"))
    assert len({(row.width, row.height) for row in v2.train}) >= 2, "several shapes"
    assert {row.crop for row in v2.train} == {"full", "upper"}
    assert not {row.source for row in v2.train} & {row.source for row in v2.held_out}
    assert {one.variants[0]: one.pictures for one in planned.passes} == {"low": 6, "high": 12}
    assert len(v1.train) <= 6 and len(v2.train) <= 12, "what is planned is the most there can be"
    assert steps_of(events) == {"low-0": 2, "high-0": 2}
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert np.isfinite(losses).all()
    assert {
        open_artifact(study.folder_of(made, "small") / "runs" / f"{run}-0").parents["dataset"]
        for run in ("low", "high")
    } == {v1.id, v2.id}

    lints = {path.name for path in (tmp_path / ".vez" / "lints").iterdir() if (path / "findings.jsonl").is_file()}
    assert lints == {v1.path.name, v2.path.name}
    page = (study.folder_of(made, "small") / "changes" / "v1-v2.html").read_text(encoding="utf-8")
    assert "another coat" in page
    report = (study.folder_of(made, "small") / "report.html").read_text(encoding="utf-8")
    assert 'href="changes/v1-v2.html"' in report


def test_the_plan_counts_no_picture_out_twice(tmp_path: Path, random_base_folder: Path) -> None:
    make_project(tmp_path, random_base_folder)
    twice = '[{ file = "1.png", reason = "a" }, { file = "1.png", reason = "b" }, { file = "gone.png", reason = "c" }]'
    text = TOML.replace("resolution = 64", f"resolution = 64\nexclude = {twice}", 1)
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    assert {one.pictures for one in study.plan(config.load(tmp_path / "vez.toml"), "small").passes} == {5}


def test_a_run_that_goes_wrong_is_said_after_the_others_are_finished(tmp_path: Path, random_base_folder: Path) -> None:
    config_before = make_project(tmp_path, random_base_folder)
    text = (tmp_path / "vez.toml").read_text(encoding="utf-8")
    text = text.replace("rank = 4, alpha = 2", "rank = 4, alpha = 1e30")
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    again = subprocess.run(
        [sys.executable, "-m", "vez", "train", "-c", str(tmp_path / "vez.toml"), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")},
    )
    assert again.returncode == 2, again.stderr
    assert "high-0 stopped at step 1" in again.stderr and "low-0" not in again.stderr
    runs = study.folder_of(config_before, "small") / "runs"
    assert (runs / "low-0" / "lora.safetensors").exists() and (runs / "one-0" / "lora.safetensors").exists(), (
        "a pass later"
    )
    assert not (runs / "high-0").exists()
    page = study.write_report(config.load(tmp_path / "vez.toml"), "small").artifact_path.read_text(encoding="utf-8")
    assert "did not finish" in page and "stopped at step 1: the norm of the gradient is not finite" in page


def test_a_variant_with_a_prior_is_trained_with_class_pictures(tmp_path: Path, random_base_folder: Path) -> None:
    """In a pass of its own; the class's dataset is built though nothing learns from it alone."""
    make_project(tmp_path, random_base_folder)
    (tmp_path / "class").symlink_to(tmp_path / "images", target_is_directory=True)
    text = (tmp_path / "vez.toml").read_text(encoding="utf-8")
    text = text.replace(
        "[study.small]",
        '[dataset.people]\nimages = "class"\nrole = "class"\ncaptions = "captions"\nresolution = 64\n[study.small]',
    )
    text = text.replace("rank = 4, alpha = 2", 'rank = 2, prior = "people"')
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    made = config.load(tmp_path / "vez.toml")
    events = list(study.train_runs(made, "small", device="cpu"))
    runs = study.folder_of(made, "small") / "runs"
    low, high = (open_artifact(runs / name) for name in ("low-0", "high-0"))
    assert high.parents.keys() == {"base", "dataset", "prior"} and low.parents.keys() == {"base", "dataset"}
    first = {event.run: event.loss for event in events if isinstance(event, Step) and event.step == 1}
    assert first["high-0"] > first["low-0"]


def test_class_pictures_are_linted_before_the_training_and_compared_with_nothing(
    tmp_path: Path, random_base_folder: Path
) -> None:
    make_project(tmp_path, random_base_folder)
    (tmp_path / "class").symlink_to(tmp_path / "images", target_is_directory=True)
    text = (tmp_path / "vez.toml").read_text(encoding="utf-8")
    people = '[dataset.people]\nimages = "class"\nrole = "class"\ncaptions = "captions"\nresolution = 64\n'
    text = text.replace("[study.small]", people + "[study.small]")
    text = text.replace("rank = 4, alpha = 2", 'rank = 2, prior = "people"')
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    made = config.load(tmp_path / "vez.toml")
    assert {one.prior for one in study.plan(made, "small").passes} == {None, "people"}
    events = study.run(made, "small", device="cpu")
    notes = [
        event.text
        for event in takewhile(lambda e: getattr(e, "name", "") != "train", events)
        if isinstance(event, Note)
    ]
    events.close()  # type: ignore[attr-defined]
    lints = {path.name.rpartition("-")[0] for path in (tmp_path / ".vez" / "lints").glob("[a-z]*")}
    assert lints == {"v1", "people"}
    assert not any("what changed" in note for note in notes)
    assert any("is held out of v1, but people trains on it" in note for note in notes)


def test_a_memory_target_decides_what_is_computed_again(
    project: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And nothing else: the LoRA is the same file."""
    taken: list[str] = []
    training = importlib.import_module("vez.train")  # (the attribute of the package is the function)
    own = training.train

    def watched(*args: Any, **how: Any) -> Any:
        taken.append(how["checkpointing"])
        return own(*args, **how)

    monkeypatch.setattr(training, "train", watched)
    whole = project.study["small"].model_copy(update={"checkpointing": "whole"})
    least = study.plan(project.model_copy(update={"study": {"small": whole}}), "small", device="cpu")
    target = max(one.peak_bytes for one in least.passes) / 1e9 + 1e-6
    files = {}
    for memory in (None, target):
        small = project.study["small"].model_copy(update={"memory": memory})
        root = tmp_path / str(memory)
        shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("studies"))
        asked = project.model_copy(update={"root": root, "study": {"small": small}})
        list(study.train_runs(asked, "small", device="cpu"))
        files[memory] = {p.parent.name: p.read_bytes() for p in (root / "studies").rglob("lora.safetensors")}
    assert files[None] == files[target] and files[None]
    assert taken[0] == "none" and taken[-1] == "whole"
