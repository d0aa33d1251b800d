"""What a study comes to, computed from its numbers; and the sizes against those that kohya's files have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vez import config, foresight
from vez.config import Config, Project, Study
from vez.errors import ConfigError, StoreError
from vez.foresight import check_disk, check_memory, fitted
from vez.metrics import stats
from vez.metrics.looks import Look
from vez.plan import HEADER, QUICK, Cost, Drawn, Plan, cost_of, groups, named, plan, rate_key, span
from vez.room import Sizes, sizes_of
from vez.suite import asked

THESIS = """
[project]
base = "stable-diffusion-v1-5/stable-diffusion-v1-5"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"
[dataset.v1]
images = "images/v1"
[dataset.v2]
images = "images/v2"
[study.thesis]
images_seen = 3400
seeds = [0, 1]
[study.thesis.variant]
v1 = { dataset = "v1", batch = 1, rank = 32 }
v2 = { dataset = "v2", batch = 8, rank = 32 }
v3 = { dataset = "v2", batch = 8, rank = 64, alpha = 64 }
v4 = { dataset = "v2", batch = 8, rank = 64, alpha = 32, lr_text = 0 }
"""


@pytest.fixture
def thesis(tmp_path: Path) -> Config:
    (tmp_path / "vez.toml").write_text(THESIS, encoding="utf-8")
    return config.load(tmp_path / "vez.toml")


def test_rank_64_of_sd1_is_exactly_72_mib(thesis: Config) -> None:
    """The size that the reference study reports for its dim-64 files."""
    cost = cost_of(None)
    assert cost.unet + cost.text == 589_824
    assert cost.file_bytes(thesis.study["thesis"].variant["v3"]) == 72 * 2**20
    without_text = cost.file_bytes(thesis.study["thesis"].variant["v4"])
    assert without_text == cost.unet * 64 * 2


def test_variants_of_one_dataset_and_batch_train_in_one_pass(thesis: Config) -> None:
    assert groups(thesis.study["thesis"]) == [("v1", 1, ("v1",)), ("v2", 8, ("v2", "v3", "v4"))]


def test_side_by_side_splits_a_pass(thesis: Config) -> None:
    study = thesis.study["thesis"].model_copy(update={"side_by_side": 2})
    assert groups(study) == [("v1", 1, ("v1",)), ("v2", 8, ("v2", "v3")), ("v2", 8, ("v4",))]


def test_steps_hold_the_pictures_seen(thesis: Config) -> None:
    made = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates={}, device="cpu")
    assert [one.steps for one in made.passes] == [3400, 425]
    assert [one.seen for one in made.passes] == [3400, 3400]
    assert made.seconds is None
    assert made.images == (1 + 4 * 2) * 200, "the standard profile"
    assert "1800 images to compare them (profile standard, 200 for each of 9 arms), time unknown" in made.text()
    assert "time unknown until the first steps" in made.text()
    assert "72.00 MiB" in made.text()


def test_a_measured_rate_gives_the_time(thesis: Config) -> None:
    rates = {
        rate_key(thesis, "thesis", ["v1"], device="cuda"): 0.1,
        rate_key(thesis, "thesis", ["v2", "v3", "v4"], device="cuda"): 1.0,
    }
    made = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates=rates, device="cuda")
    assert made.seconds == pytest.approx(2 * (340 + 425))
    assert "about 26 min in all" in made.text()
    other = plan(thesis, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost_of(None), rates=rates, device="cpu")
    assert other.seconds is None, "a rate of another device says nothing"


def test_drawing_that_takes_hours_names_the_quick_profile() -> None:
    assert Drawn(6, 200, "standard", 0.5).text().endswith("about 10 min")
    assert Drawn(6, 200, "standard", 30.0).text().endswith('about 10 h 0 min; profile = "quick" takes about 48 min')
    project = Project(base="b", trigger="t", noun="n", describes="d")
    study = Study.model_validate({"steps": 1, "variant": {"v": {"dataset": "d"}}})
    assert asked(study, project, profile="quick").images == QUICK


@pytest.mark.parametrize(
    ("variants", "rest", "said"),
    [
        (6, {}, ""),
        (
            7,
            {},
            "8 prompts with the trigger word cannot tell 7 LoRAs from none, 6 at most, however large the difference: "
            '9 could, and profile = "standard" has 12',
        ),
        (7, {"sampling": {"profile": "standard"}}, ""),
        (7, {"sampling": {"profile": "probe"}}, ""),
        (
            1,
            {"suite": "own", "sampling": {}, "prompts": ["{trigger} on the moon"] * 5},
            "5 prompts with the trigger word cannot tell a LoRA from none, however large the difference: 6 could",
        ),
        (4, {"suite": "own", "sampling": {}, "prompts": ["{trigger} on the moon"] * 8}, ""),
        (4, {"suite": "own", "sampling": {}, "prompts": ["{trigger} on the moon"] * 6, "seeds": [0, 1]}, "8 LoRAs"),
        (
            1,
            {"looks": 2, "suite": "own", "sampling": {}, "prompts": ["{trigger} on the moon"] * 8},
            "at the first of 2 looks 8 prompts with the trigger word cannot tell a LoRA from none, however large the "
            "difference: 9 could",
        ),
    ],
)
def test_prompts_too_few_for_any_verdict_are_told_beforehand(
    variants: int, rest: dict[str, Any], said: str, thesis: Config
) -> None:
    """By the test's own arithmetic, what is said to be too few never reaches p = 0.05 after Holm."""
    first = next(iter(thesis.study["thesis"].variant.values())).model_dump()
    made = {"steps": 1, "variant": {f"v{i}": first for i in range(variants)}, "sampling": {"profile": "quick"}} | rest
    one = thesis.model_copy(update={"study": {"nosnja": Study.model_validate(made)}})
    doubt = foresight.too_few(one, "nosnja")
    assert doubt == said or (said == "8 LoRAs" and said in doubt)
    asked_for = [p for p in asked(one.study["nosnja"], one.project).prompts if p.role == "trigger" and p.set == "B"]
    runs = variants * len(one.study["nosnja"].seeds)
    if asked_for:
        clear = [stats.sign_flip_p([1.0] * len(asked_for))] * runs
        assert (min(stats.holm(clear)) > Look(1, one.study["nosnja"].looks).alpha) == bool(doubt)


def test_epochs_and_repeats_count_as_in_kohya(tmp_path: Path) -> None:
    text = THESIS.replace("images_seen = 3400", "epochs = 10\nrepeats = 10")
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    loaded = config.load(tmp_path / "vez.toml")
    made = plan(loaded, "thesis", pictures={"v1": 34, "v2": 34}, cost=cost_of(None), rates={}, device="cpu")
    assert [one.steps for one in made.passes] == [3400, 425]


def planned(config: Config, *, sizes: Sizes | None = None, **change: Any) -> tuple[Config, Plan, Cost]:
    """The thesis' plan on a base that is known, with some of the study's settings changed."""
    study = config.study["thesis"].model_copy(update=change)
    config = config.model_copy(update={"study": {"thesis": study}})
    cost = Cost(sizes or replace(sizes_of(None), assumed=False))
    made = plan(config, "thesis", pictures={"v1": 30, "v2": 34}, cost=cost, rates={}, device="cpu")
    return config, made, cost


def test_the_memory_is_told_and_grows_with_batch_and_variants(thesis: Config) -> None:
    _, made, _ = planned(thesis)
    one, three = (p.peak_bytes / 1e9 for p in made.passes)
    assert 5 < one < 10, "SD 1.5 in fp32, 512 px, batch 1"
    assert three > 10 * (one - 5), "24 samples at once"
    assert f"about {one:.1f} GB of memory" in made.text()
    _, half, _ = planned(thesis, precision="bf16")
    assert half.passes[0].peak_bytes < 0.6 * made.passes[0].peak_bytes


def test_what_cannot_fit_names_the_setting_that_makes_it_fit(thesis: Config) -> None:
    """Following the sentence must lead to a study that is not refused; what is not needed is not asked for."""
    asked: dict[str, Any] = {
        "side_by_side": 1,
        "precision": "bf16",
        "checkpointing": "whole",
        "batch": 2,
    }
    for n, last in enumerate(asked, start=1):
        change = {key: asked[key] for key in list(asked)[:n]}
        if "batch" in change:
            batch, variants = change.pop("batch"), thesis.study["thesis"].variant
            change["variant"] = {k: v.model_copy(update={"batch": min(v.batch, batch)}) for k, v in variants.items()}
        config, smaller, cost = planned(thesis, **change)
        free = 0.8 * max(one.peak_bytes for one in smaller.passes) + 1
        check_memory(config, smaller, cost=cost, free=free, device="cpu")
        config, made, cost = planned(thesis)
        with pytest.raises(ConfigError) as refused:
            check_memory(config, made, cost=cost, free=free, device="cpu")
        said = str(refused.value)
        assert f"{free / 1e9:.1f} GB are free; set side_by_side = 1" in said
        assert [f"{key} = " in said for key in asked] == [key in list(asked)[:n] for key in asked], said
        assert ("accumulate = 4" in said) == (last == "batch")


def test_where_all_else_is_not_enough_the_base_in_eight_bits_is_named(thesis: Config) -> None:
    least: dict[str, Any] = {"side_by_side": 1, "precision": "bf16", "checkpointing": "whole"}
    least["variant"] = {k: v.model_copy(update={"batch": 1}) for k, v in thesis.study["thesis"].variant.items()}
    _, whole, _ = planned(thesis, **least)
    config, coded, cost = planned(thesis, **least, quantize="int8")
    peaks = [max(one.peak_bytes for one in made.passes) for made in (whole, coded)]
    assert 0.8e9 < peaks[0] - peaks[1] < 1e9, "a byte for each of SD 1.5's weights"
    free = 0.8 * peaks[1] + 1
    check_memory(config, coded, cost=cost, free=free, device="cpu")
    config, made, cost = planned(thesis)
    with pytest.raises(ConfigError, match='batch = 1 and accumulate = 8 and quantize = "int8"'):
        check_memory(config, made, cost=cost, free=free, device="cpu")


def test_a_memory_target_is_met_by_computing_more_again(thesis: Config) -> None:
    peaks = {}
    for again in ("none", "selective", "whole"):
        _, made, _ = planned(thesis, checkpointing=again)
        peaks[again] = max(one.peak_bytes for one in made.passes) / 1e9
    assert peaks["none"] > peaks["selective"] > peaks["whole"]
    for again, peak in peaks.items():
        config, _, _ = planned(thesis, memory=peak + 0.001)
        assert fitted(config, "thesis", device="cpu").study["thesis"].checkpointing == again
    config, _, _ = planned(thesis, memory=peaks["none"] + 1, checkpointing="selective")
    assert fitted(config, "thesis", device="cpu").study["thesis"].checkpointing == "selective", "never less than asked"
    config, _, _ = planned(thesis)
    assert fitted(config, "thesis", device="cpu") is config


def test_a_memory_target_that_cannot_be_met_is_refused_with_what_to_set(thesis: Config) -> None:
    _, whole, cost = planned(thesis, checkpointing="whole")
    target = round(max(one.peak_bytes for one in whole.passes) / 1e9 - 0.05, 2)
    config, _, _ = planned(thesis, memory=target)
    config = fitted(config, "thesis", device="cpu")
    with pytest.raises(ConfigError, match=rf"memory = {target:g} allows no more; set side_by_side = "):
        check_memory(config, whole, cost=cost, free=1e12, device="cpu")
    roomy = config.study["thesis"].model_copy(update={"memory": target + 0.1})
    config = config.model_copy(update={"study": {"thesis": roomy}})
    check_memory(config, whole, cost=cost, free=1e12, device="cpu")
    with pytest.raises(ConfigError, match=r"1\.0 GB are free; no setting"):
        check_memory(config, whole, cost=cost, free=1e9, device="cpu")


def test_where_nothing_fits_that_is_said(thesis: Config) -> None:
    config, made, cost = planned(thesis)
    with pytest.raises(ConfigError, match="no setting makes it fit"):
        check_memory(config, made, cost=cost, free=1e9, device="cpu")


def test_an_assumed_base_refuses_nothing(thesis: Config) -> None:
    config, made, cost = planned(thesis, sizes=sizes_of(None))
    check_memory(config, made, cost=cost, free=1.0, device="cpu")


def test_files_that_do_not_fit_onto_the_disk(thesis: Config, tmp_path: Path) -> None:
    _, made, _ = planned(thesis, save_every=100)
    needed = sum(made.disk_bytes.values())
    rank32, rank64 = 36 * 2**20 + HEADER, 72 * 2**20 + HEADER
    without_text = made.file_bytes["v4"] + HEADER
    assert made.disk_bytes["LoRAs"] == 2 * (34 * rank32 + 5 * (rank32 + rank64 + without_text))
    assert made.disk_bytes["latents"] == (30 + 34) * 8 * 64 * 64 * 4
    assert made.disk_bytes["datasets"] == (30 + 34) * 3 * 512**2
    check_disk(made, free=needed, there=0, folder=tmp_path)
    check_disk(made, free=needed / 2, there=needed / 2, folder=tmp_path)
    with pytest.raises(StoreError, match=r"writes up to .* GB to .*free some room.*LoRAs.*save_every"):
        check_disk(made, free=needed - 1, there=0, folder=tmp_path)


def test_other_places_of_random_crops_need_room_too(thesis: Config) -> None:
    _, plain, _ = planned(thesis)
    v1 = thesis.dataset["v1"].model_copy(update={"random_crops": 4})
    _, more, _ = planned(thesis.model_copy(update={"dataset": {**thesis.dataset, "v1": v1}}))
    assert more.disk_bytes["latents"] - plain.disk_bytes["latents"] == 3 * 30 * 8 * 64 * 64 * 4
    assert more.disk_bytes["datasets"] - plain.disk_bytes["datasets"] == 3 * 30 * 3 * 512**2
    assert [one.steps for one in more.passes] == [one.steps for one in plain.passes]


def test_pictures_drawn_meanwhile_need_room_too(thesis: Config) -> None:
    """As many looks as there are: before step 1, at 100, …, after the last; three pictures, or one for each prompt."""
    plain, usual = (planned(thesis, **values)[1] for values in ({}, {"sample_every": 100}))
    own = planned(thesis, sample_every=100, sample_prompts=("a hat",))[1]
    looks = sum((2 + (one.steps - 1) // 100) * len(one.variants) for one in plain.passes) * len(plain.seeds)
    more = [made.disk_bytes["images"] - plain.disk_bytes["images"] for made in (usual, own)]
    assert more == [3 * looks * 3.0 * 512**2, looks * 3.0 * 512**2]
    assert plain.images == usual.images, "these are not what is scored"


def test_which_study_is_meant(thesis: Config, tmp_path: Path) -> None:
    assert named(thesis, None) == named(thesis, "thesis") == "thesis"
    with pytest.raises(ConfigError, match=r"no \[study.other\].*thesis"):
        named(thesis, "other")
    (tmp_path / "vez.toml").write_text(
        THESIS + THESIS[THESIS.index("[study") :].replace("thesis", "two"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="name the study: thesis, two"):
        named(config.load(tmp_path / "vez.toml"), None)


def test_a_folder_that_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a Stable Diffusion base"):
        cost_of(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.4, "4 s"), (89, "89 s"), (150, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_span(seconds: float, said: str) -> None:
    assert span(seconds) == said


def changed(*, folder: Path, extra: str = "", **variants: str) -> Config:
    """The thesis' file with other variants."""
    text = THESIS[: THESIS.index("v1 = {")]
    lines = "".join(f"{name} = {{ {of} }}\n" for name, of in variants.items())
    (folder / "vez.toml").write_text(text.replace("[study.thesis]", extra + "[study.thesis]") + lines, encoding="utf-8")
    return config.load(folder / "vez.toml")


CLASS = '[dataset.people]\nimages = "people"\nrole = "class"\nresolution = 768\n'
PICTURES = {"v1": 30, "v2": 34, "people": 200}


def foreseen(config: Config, pictures: tuple[str, ...] = ("v1",), **rest: Any) -> Plan:
    cost = Cost(replace(sizes_of(None), assumed=False))
    counted = {name: PICTURES[name] for name in pictures}
    return plan(config, "thesis", pictures=counted, cost=cost, **{"rates": {}, "device": "cpu", **rest})


def test_class_pictures_and_what_is_preserved_are_in_the_plan(tmp_path: Path) -> None:
    plain = 'dataset = "v1", batch = 2'
    project = changed(
        folder=tmp_path, extra=CLASS, a=plain, b=f'{plain}, prior = "people"', c=f"{plain}, preserve = 0.5"
    )
    assert [names for *_, names in groups(project.study["thesis"])] == [("a",), ("b",), ("c",)], "each its own time"
    made = foreseen(project, ("v1", "people"))
    a, b, c = made.passes
    assert b.peak_bytes > 1.2 * a.peak_bytes == 1.2 * c.peak_bytes, "larger pictures; the same ones once more"
    assert "pictures seen, and as many of people;" in made.text()
    assert "pictures seen, held to the base without the trigger;" in made.text()
    assert made.disk_bytes["latents"] == (30 * 512**2 + 200 * 768**2) / 64 * 8 * 4
    keys = {rate_key(project, "thesis", [name], device="cpu") for name in "abc"}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("batch = 4", "batch = 2, accumulate = 2"),
        ("batch = 2", "batch = 2, preserve = 1.0"),
    ],
)
def test_a_rate_is_that_of_like_steps(one: str, other: str, tmp_path: Path) -> None:
    project = changed(folder=tmp_path, a=f'dataset = "v1", {one}', b=f'dataset = "v1", {other}')
    keys = [rate_key(project, "thesis", [name], device="cpu") for name in "ab"]
    assert keys[0] != keys[1]
    known = foreseen(project, rates={keys[0]: 1.0})
    assert {name: p.seconds is not None for p in known.passes for name in p.variants} == {"a": True, "b": False}


def test_a_rate_is_of_its_checkpointing(thesis: Config) -> None:
    study = thesis.study["thesis"].model_copy(update={"checkpointing": "all"})
    other = thesis.model_copy(update={"study": {"thesis": study}})
    assert rate_key(thesis, "thesis", ["v1"], device="cpu") != rate_key(other, "thesis", ["v1"], device="cpu")


@pytest.mark.parametrize(
    ("setting", "more"),
    [("ema = 0.99", 1), ('optimizer = "prodigy", lr_unet = 1.0, lr_text = 1.0', 4), ('optimizer = "schedulefree"', 2)],
)
def test_averages_and_other_optimizers_are_counted(setting: str, more: int, tmp_path: Path) -> None:
    """In fp32 numbers a parameter: in memory, and in what a run goes on from (AdamW: weights and two moments)."""
    project = changed(folder=tmp_path, a='dataset = "v1"')
    plain = foreseen(project)
    other = foreseen(changed(folder=tmp_path, a=f'dataset = "v1", {setting}'))
    numbers = 18_874_368
    assert other.passes[0].peak_bytes - plain.passes[0].peak_bytes == pytest.approx(4 * more * numbers)
    kept = 3 + 1 if "ema" in setting else 1 + more
    assert other.disk_bytes["states"] / plain.disk_bytes["states"] == pytest.approx(kept / 3)


def test_long_captions_need_more_memory_where_text_encoders_learn(thesis: Config, tmp_path: Path) -> None:
    text = THESIS.replace("[project]", "[project]\ntokens = 225")
    (tmp_path / "vez.toml").write_text(text, encoding="utf-8")
    long, short = foreseen(config.load(tmp_path / "vez.toml"), ("v1", "v2")), foreseen(thesis, ("v1", "v2"))
    gained = [a.peak_bytes - b.peak_bytes for a, b in zip(long.passes, short.passes, strict=True)]
    assert gained[0] == pytest.approx(1.7 * 4 * 2 * 12 * 77 * 13 * 768)
    assert gained[1] == pytest.approx(24 * gained[0])
